//! What the trouble of some tenants costs the others, and what becomes of the chunks that are its cause, at the size of an
//! installation of 200 tenants and in virtual time.

use std::time::Duration;

use super::stage::{HOUR, Reply, Stage, key, pass};
use crate::model::{ChunkKey, FailureClass as C};
use crate::store::Redriven;

const TENANTS: usize = 200;
const SESSIONS: u64 = 5;
const ROUNDS: u64 = 4;

const fn is_blocked(tenant: usize) -> bool {
    tenant % 20 == 7
}

/// One session in a hundred, in tenants of their own.
fn is_poisoned(tenant: usize, session: &str) -> bool {
    tenant % 20 == 3 && session == "s2"
}

const fn is_healthy(tenant: usize) -> bool {
    !is_blocked(tenant) && tenant % 20 != 3
}

fn number(tenant: &str) -> usize {
    tenant[1..].parse().unwrap()
}

/// The wait of the hundredth part that waits longest in lanes without trouble, of chunks that come by every half minute,
/// and the stage, still running. Without trouble the tenants and sessions that make it send nothing at all: whatever they cost
/// others is seen.
async fn healthy_wait(trouble: Option<Reply>) -> (Duration, Stage) {
    let names: Vec<String> = (0..TENANTS).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::in_memory(&names);
    stage.on_dead = crate::engine::OnDead::Skip;
    let is_clean = trouble.is_none();
    stage.script(move |seen| match &trouble {
        Some(trouble) if is_blocked(number(&seen.tenant)) => trouble.clone(),
        Some(_) if is_poisoned(number(&seen.tenant), &seen.session) => {
            Reply::fail(C::Rejected, Some(422))
        }
        _ => Reply::Store,
    });
    stage.start().await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        for (tenant, name) in names.iter().enumerate() {
            for session in 0..SESSIONS {
                let session = format!("s{session}");
                if !is_clean || !(is_blocked(tenant) || is_poisoned(tenant, &session)) {
                    stage.accept(&key(name, &session, round));
                }
            }
        }
        let last = key(names[0], "s0", 0).session_key();
        stage.store().head(&last).unwrap();
        let offered = stage.platform_time();
        let before = stage.requests().len();
        pass(Duration::from_secs(30)).await;
        for seen in &stage.requests()[before..] {
            if is_healthy(number(&seen.tenant)) && seen.sequence == round {
                waits.push(seen.at.saturating_sub(offered));
            }
        }
    }
    let healthy = ROUNDS * SESSIONS * TENANTS as u64 * 9 / 10;
    let missing = healthy - waits.len() as u64;
    assert_eq!(missing, 0, "healthy chunks were not delivered");
    waits.sort_unstable();
    (waits[waits.len() * 99 / 100], stage)
}

fn poisoned_chunks() -> Vec<ChunkKey> {
    let tenants = (0..TENANTS).filter(|tenant| is_poisoned(*tenant, "s2"));
    let chunks = tenants.flat_map(|tenant| {
        (0..ROUNDS).map(move |sequence| key(&format!("t{tenant}"), "s2", sequence))
    });
    let mut chunks: Vec<ChunkKey> = chunks.collect();
    chunks.sort();
    chunks
}

/// The poisoned chunks and no others, each with what was said of it.
fn all_poison_is_dead(stage: &Stage) {
    let dead = stage.dead();
    for letter in &dead {
        assert!(!letter.history.is_empty(), "{}: no history", letter.key);
        for failure in &letter.history {
            assert_eq!(failure.class, C::Rejected, "{}", letter.key);
            assert_eq!(failure.status, Some(422), "{}", letter.key);
        }
    }
    let mut dead: Vec<ChunkKey> = dead.into_iter().map(|letter| letter.key).collect();
    dead.sort();
    assert_eq!(dead, poisoned_chunks());
}

#[tokio::test(start_paused = true)]
async fn poison_and_blocked_tenants_delay_no_healthy_one_and_every_chunk_is_redriven() {
    let refused = Reply::fail(C::Forbidden, Some(403));
    let (clean, _) = healthy_wait(None).await;
    let (troubled, mut stage) = healthy_wait(Some(refused)).await;
    println!("p99 {clean:?}, with trouble {troubled:?}");
    assert!(troubled.as_secs_f64() <= clean.as_secs_f64() * 1.05);

    // The last ones meet a session that is held.
    pass(HOUR).await;
    all_poison_is_dead(&stage);
    stage.all_is_well();
    for chunk in poisoned_chunks() {
        assert_eq!(stage.store().redrive(&chunk).unwrap(), Redriven::Done);
    }
    // The longest time between two looks at a blocked tenant is a quarter of it.
    pass(HOUR).await;
    assert_eq!(stage.dead(), []);
    assert_eq!(stage.left().chunks, 0);
    for tenant in 0..TENANTS {
        let stored = stage.prefixes(&format!("t{tenant}"), SESSIONS);
        assert_eq!(stored, SESSIONS * ROUNDS, "t{tenant}");
    }
    assert_eq!(stage.duplicates(), 0);
    stage.stop(Duration::ZERO).await;
}

/// The control of the figure above: tenants whose requests are never answered keep all the workers.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "healthy chunks were not delivered")]
async fn ten_tenants_that_keep_the_workers_delay_everybody() {
    healthy_wait(Some(Reply::Hang)).await;
}
