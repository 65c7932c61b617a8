//! Pauses, throttles, kills and restarts in any order: no lane is forgotten, none goes on early.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::stage::{HOUR, MINUTE, Reply, Stage, pass};
use crate::model::TenantId;
use crate::policy::grouping::Limits;

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

fn cycles() -> u32 {
    std::env::var("REELAY_CYCLES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(120)
}

/// What every tenant must not do, by its number.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    paused: bool,
    throttled_until: Duration,
}

#[tokio::test(start_paused = true)]
async fn no_lane_is_forgotten_and_none_goes_on_early_through_any_pauses_kills_and_restarts() {
    let seed = fastrand::u64(..);
    println!("seed {seed}, {} cycles (REELAY_CYCLES)", cycles());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut stage = Stage::new(&TENANTS);
    stage.group = Limits::default();
    let held: Arc<Mutex<[Held; 3]>> = Arc::default();
    // The seconds that the next request of a tenant is told to wait.
    let told: Arc<Mutex<[u64; 3]>> = Arc::default();
    let early: Arc<Mutex<Vec<String>>> = Arc::default();
    let (holds, tells, reports) = (held.clone(), told.clone(), early.clone());
    stage.script(move |seen| {
        let number = TENANTS.iter().position(|t| *t == seen.tenant).unwrap();
        let held = &mut holds.lock().unwrap()[number];
        if seen.at < held.throttled_until {
            let until = held.throttled_until;
            let report = format!("{} at {:?}, not before {until:?}", seen.tenant, seen.at);
            reports.lock().unwrap().push(report);
        }
        match std::mem::take(&mut tells.lock().unwrap()[number]) {
            0 => Reply::Store,
            seconds => {
                // Read 50 ms after it was sent.
                held.throttled_until = seen.at + Duration::from_secs(seconds);
                Reply::throttle(Duration::from_secs(seconds))
            }
        }
    });
    stage.start().await;
    let mut next = [0; 3];
    for _ in 0..cycles() {
        let number = random.usize(0..TENANTS.len());
        let name = TENANTS[number];
        let tenant: TenantId = name.parse().unwrap();
        for _ in 0..random.u64(0..4) {
            stage.put(name, "a", next[number]);
            next[number] += 1;
        }
        match random.u32(0..6) {
            0 | 1 => {
                stage.engine().pause(&tenant).unwrap();
                // What is on the wire comes to its end.
                pass(Duration::from_secs(1)).await;
                held.lock().unwrap()[number].paused = true;
            }
            2 | 3 => {
                stage.engine().resume(&tenant).unwrap();
                held.lock().unwrap()[number].paused = false;
            }
            _ => told.lock().unwrap()[number] = random.u64(10..7200),
        }
        let began = stage.requests().len();
        pass(Duration::from_secs(random.u64(1..600))).await;
        match random.u32(0..3) {
            0 => stage.kill().await,
            1 => stage.restart().await,
            _ => {}
        }
        pass(Duration::from_secs(random.u64(1..60))).await;
        for seen in &stage.requests()[began..] {
            let of = TENANTS.iter().position(|t| *t == seen.tenant).unwrap();
            assert!(!held.lock().unwrap()[of].paused, "{seen:?} although paused");
        }
        assert_eq!(*early.lock().unwrap(), [] as [String; 0]);
    }
    for name in TENANTS {
        stage.engine().resume(&name.parse().unwrap()).unwrap();
    }
    *told.lock().unwrap() = [0; 3];
    pass(HOUR * 3 + MINUTE).await;
    for (name, next) in TENANTS.iter().zip(next) {
        assert_eq!(
            stage.stored(name, "a"),
            (0..next).collect::<Vec<_>>(),
            "{name}"
        );
    }
    assert_eq!(stage.left().chunks, 0);
    assert_eq!(*early.lock().unwrap(), [] as [String; 0]);
}
