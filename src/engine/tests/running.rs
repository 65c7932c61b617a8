//! Stopping, pausing, panics, crashes, a lost index, and what is shown meanwhile.

use std::time::Duration;

use super::stage::{DAY, HOUR, MINUTE, Reply, Stage, key, pass};
use crate::engine::{DrainOutcome, End};
use crate::model::{FailureClass as C, GateState, TenantId};
use crate::sabotage::{Sabotage, Sabotaged};

/// Of faults.
const HOURS: u64 = 72;

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_what_is_on_the_wire_and_begins_nothing() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 5);
    stage.requests_take(Duration::from_secs(10));
    stage.start().await;
    pass(Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(stage.stop(MINUTE).await, End::Stopped);
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(stage.stored("acme", "a"), [0]);
    assert_eq!(stage.stored("acme", "b"), [0]);
    assert_eq!(stage.left().chunks, 8);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_within_the_grace_period_is_released_and_nothing_is_counted() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 2);
    stage.script(|_| Reply::Hang);
    stage.start().await;
    pass(Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    stage.stop(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(22));
    stage.reopen();
    let head = stage.store().head(&key("acme", "a", 0).session_key());
    let head = head.unwrap().unwrap();
    assert_eq!((head.sequence, head.failures, head.crashes), (0, 0, 0));
    stage.all_is_well();
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_panics_releases_its_chunk_counts_nothing_and_harms_no_other() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 5);
    let mut panics = 3;
    stage.script(move |seen| {
        if seen.session == "a" && seen.sequence == 1 && panics > 0 {
            panics -= 1;
            // The script's lock must not be poisoned by it.
            return Reply::Panic;
        }
        Reply::Store
    });
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "b").len(), 5);
    assert_eq!(stage.counted("acme", "a"), 0);
    pass(MINUTE * 5).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2, 3, 4]);
    assert_eq!(stage.engine().workers().busy, 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_tenant_stays_paused_over_a_restart_until_it_is_resumed() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.start().await;
    assert!(!stage.engine().pause(&acme()).unwrap());
    assert!(stage.engine().pause(&acme()).unwrap());
    stage.fill("acme", &["a"], 2);
    stage.fill("globex", &["a"], 2);
    pass(HOUR).await;
    stage.restart().await;
    pass(HOUR).await;
    assert_eq!(stage.gate("acme"), GateState::Paused);
    assert_eq!(stage.stored("globex", "a"), [0, 1]);
    assert!(stage.stored("acme", "a").is_empty());
    assert_eq!(stage.engine().resume(&acme()).unwrap(), 1);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
    assert_eq!(stage.store().holds(), []);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_resumes_makes_a_blocked_lane_try_now() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 2);
    stage.script(|_| Reply::fail(C::Forbidden, Some(403)));
    stage.start().await;
    pass(HOUR * 5).await;
    stage.all_is_well();
    pass(Duration::from_secs(1)).await;
    let began = stage.requests().len();
    stage.engine().resume(&acme()).unwrap();
    pass(Duration::from_secs(5)).await;
    assert!(stage.requests().len() > began);
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
    assert_eq!(stage.gate("acme"), GateState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_hangs_delays_its_own_tenant_only() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.workers = 2;
    stage.fill("acme", &["a", "b", "c", "d"], 2);
    stage.fill("globex", &["a"], 10);
    *stage.grants[0].hangs.lock().unwrap() = true;
    stage.start().await;
    pass(Duration::from_secs(10)).await;
    assert_eq!(stage.stored("globex", "a").len(), 10);
    assert_eq!(
        stage.engine().workers().busy,
        0,
        "nothing is held meanwhile"
    );
}

/// Ends the process, as the store sees it, while the chunk is on the wire.
fn crash(stage: &mut Stage, session: &str) {
    let key = key("acme", session, 0).session_key();
    let mut lease = stage.store().lease(&key).unwrap().unwrap();
    lease.sending().unwrap();
    std::mem::forget(lease);
    stage.reopen();
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_was_on_the_wire_when_the_process_ended_goes_last() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    crash(&mut stage, "a");
    stage.concurrency = 1;
    stage.start().await;
    pass(MINUTE).await;
    let order: Vec<String> = stage.requests().into_iter().map(|s| s.session).collect();
    assert_eq!(order, ["b", "b", "b", "a", "a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_ended_the_process_five_times_is_held_with_that_reason() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    for _ in 0..5 {
        crash(&mut stage, "a");
    }
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert!(stage.stored("acme", "a").is_empty());
    assert_eq!(stage.stored("acme", "b"), [0, 1, 2]);
    let session = "a".parse().unwrap();
    let why = stage.engine().why(&acme(), Some(&session)).unwrap();
    assert!(why.next.contains("five times"), "{}", why.next);
    assert_eq!(stage.dead(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lost_index_ends_the_engine_and_what_was_delivered_stays_delivered() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 5);
    stage.store_defects = Sabotaged::NONE.with(Sabotage::PanicIndex);
    stage.reopen();
    stage.start().await;
    let ended = stage.engine().ended();
    let began = tokio::time::Instant::now();
    let end = tokio::time::timeout(MINUTE, ended).await.unwrap();
    assert!(matches!(end, End::IndexLost(_)), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
    let delivered = stage.stored("acme", "a").len() + stage.stored("acme", "b").len();
    assert_eq!(stage.left().chunks, 10 - delivered as u64);
    assert!(delivered < 10);
}

#[tokio::test(start_paused = true)]
async fn a_drain_over_a_lost_index_ends_as_storage() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 5);
    stage.store_defects = Sabotaged::NONE.with(Sabotage::PanicIndex);
    stage.reopen();
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Storage);
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_notices_that_the_index_is_lost() {
    let mut stage = Stage::new(&["acme"]);
    stage.store_defects = Sabotaged::NONE.with(Sabotage::PanicIndex);
    stage.reopen();
    stage.start().await;
    let ended = stage.engine().ended();
    // Its news never arrive, because the index panics over them.
    stage.accept(&key("acme", "a", 0));
    let end = tokio::time::timeout(HOUR * 2, ended).await.unwrap();
    assert!(matches!(end, End::IndexLost(_)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn why_names_the_hold_the_last_answer_and_the_next_try() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 2);
    stage.script(|_| Reply::fail(C::Forbidden, Some(403)));
    stage.start().await;
    pass(MINUTE).await;
    let why = stage.engine().why(&acme(), None).unwrap();
    assert_eq!(why.gate.state, GateState::Blocked);
    assert_eq!(why.gate.holds[0].kind, "blocked");
    let last = why.last_failure.unwrap();
    assert_eq!(
        (last.status, last.correlation_id.as_deref()),
        (Some(403), Some("c-1"))
    );
    assert!(why.next_at.is_some() && last.next_try_at.is_some());
    assert_eq!(why.remedy, "worker tenants resume acme");
    assert_eq!(stage.engine().why(&"nobody".parse().unwrap(), None), None);
}

#[tokio::test(start_paused = true)]
async fn lanes_show_when_they_delivered_last_and_how_fast() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 30);
    stage.requests_take(Duration::from_secs(2));
    stage.start().await;
    pass(Duration::from_secs(59)).await;
    let lane = stage.engine().lanes().remove(&acme()).unwrap();
    assert!(lane.last_delivery_s.unwrap() <= 2);
    let rate = lane.bytes_per_second.unwrap();
    let size = "acme/a/10".len() as f64;
    assert!((rate - size / 2.0).abs() < 1.0, "{rate}");
    assert_eq!(lane.token.unwrap().state, "valid");
    assert_eq!(stage.engine().workers().busy, 1);
}

#[tokio::test(start_paused = true)]
async fn days_of_faults_of_every_kind_loses_nothing_and_doubles_nothing() {
    let given = std::env::var("REELAY_SEED").ok();
    let given = given.map(|text| text.parse().expect("REELAY_SEED is a number"));
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("REELAY_SEED={seed}");
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.seed = seed;
    let sessions = ["a", "b", "c"];
    let mut random = fastrand::Rng::with_seed(seed);
    // Weather that changes by the hour, the same for everyone; at the end it is fine.
    let weather: Vec<u8> = (0..HOURS).map(|_| random.u8(0..8)).collect();
    stage.script(move |seen| {
        let hour = (seen.at.as_secs() / 3600) as usize;
        match weather.get(hour).copied().unwrap_or(0) {
            1 => Reply::fail(C::Transient, None),
            2 => Reply::fail(C::Transient, Some(503)),
            3 => Reply::fail(C::Forbidden, Some(403)),
            4 => Reply::fail(C::Unauthorized, Some(401)),
            5 => Reply::throttle(MINUTE),
            6 if random.bool() => Reply::fail(C::InDoubt, None),
            _ => Reply::Store,
        }
    });
    stage.start().await;
    for sequence in 0..HOURS {
        for tenant in ["acme", "globex"] {
            for session in sessions {
                stage.put(tenant, session, sequence);
            }
        }
        pass(HOUR).await;
        if sequence % 25 == 24 {
            stage.restart().await;
        }
    }
    pass(DAY).await;
    for tenant in ["acme", "globex"] {
        for session in sessions {
            let wanted: Vec<u64> = (0..HOURS).collect();
            assert_eq!(stage.stored(tenant, session), wanted, "{tenant} {session}");
        }
    }
    assert_eq!(stage.dead(), []);
    assert_eq!(stage.left().chunks, 0);
    assert!(
        stage
            .requests()
            .iter()
            .all(|seen| !seen.late && seen.gaps.is_empty())
    );
}
