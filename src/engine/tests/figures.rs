//! What the engine makes of a platform's quota, measured in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::meter::{Meter, Window};
use super::stage::{DAY, HOUR, MINUTE, Stage, pass};
use crate::policy::grouping::Limits;

/// Whole minutes of a run; the first and the last are left out.
const MINUTES: u64 = 22;
const ALLOWED: u64 = 300;

fn meter(window: Window) -> Arc<Mutex<Meter>> {
    Arc::new(Mutex::new(Meter::new(window, ALLOWED)))
}

async fn two_tenants(window: Window) {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.concurrency = 8;
    stage.requests_take(Duration::from_millis(400));
    let meters = ["acme", "globex"].map(|tenant| {
        let meter = meter(window);
        stage.meter(tenant, &meter);
        stage.accept_all(tenant, 200, 0..34, 16);
        meter
    });
    stage.start().await;
    pass(MINUTE * (MINUTES as u32)).await;
    assert_eq!(stage.inside_forbidden(), 0);
    for meter in meters {
        let meter = meter.lock().unwrap();
        let (used, refused) = (meter.used(1, MINUTES - 1), meter.refused_part());
        println!("{window:?}: used {used:.4}, refused {refused:.4}");
        assert!(used >= 0.97, "{window:?}: {used}");
        assert!(refused <= 0.005, "{window:?}: {refused}");
    }
    stage.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_by_fixed_windows_is_used_to_97_percent_and_hardly_ever_exceeded() {
    two_tenants(Window::Fixed).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_by_a_sliding_window_is_used_to_97_percent_and_hardly_ever_exceeded() {
    two_tenants(Window::Sliding).await;
}

/// Two tenants of 640 recordings each, a chunk of 64 KiB every 20 s, one quota by each kind of window: 1,920 chunks a minute
/// have to fit 300 requests.
#[tokio::test(start_paused = true)]
async fn a_quota_is_used_as_fully_by_groups_of_64_kib_chunks_and_the_ledger_is_exact() {
    two_under_a_quota(Limits::default()).await;
}

/// The control of the figure above.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "Fixed: 1 chunks a request")]
async fn without_groups_a_request_is_seen_to_carry_one_chunk() {
    two_under_a_quota(Limits::ALONE).await;
}

async fn two_under_a_quota(group: Limits) {
    const SESSIONS: u64 = 640;
    const CHUNK: u64 = 64 * 1024;
    // What a session has waiting when its turn comes, from the beginning on.
    const AHEAD: u64 = 7;
    let tenants = [("acme", Window::Fixed), ("globex", Window::Sliding)];
    let mut stage = Stage::in_memory(&tenants.map(|(tenant, _)| tenant));
    stage.group = group;
    stage.concurrency = 8;
    stage.requests_take(Duration::from_millis(400));
    let meters = tenants.map(|(tenant, window)| {
        let meter = meter(window);
        stage.meter(tenant, &meter);
        stage.accept_all(tenant, SESSIONS, 0..AHEAD, CHUNK as usize);
        meter
    });
    stage.start().await;
    let chunks = AHEAD + 3 * MINUTES;
    for sequence in AHEAD..chunks {
        for (tenant, _) in tenants {
            stage.accept_all(tenant, SESSIONS, sequence..sequence + 1, CHUNK as usize);
        }
        pass(MINUTE / 3).await;
    }
    stage.stop(Duration::from_secs(5)).await;
    assert_eq!(stage.inside_forbidden(), 0);
    assert_eq!(stage.duplicates(), 0);
    let mut stored = 0;
    for ((tenant, window), meter) in tenants.iter().zip(meters) {
        let meter = meter.lock().unwrap();
        let (used, refused) = (meter.used(1, MINUTES - 1), meter.refused_part());
        let arrived = stage.prefixes(tenant, SESSIONS);
        stored += arrived;
        // An ungrouped request has one.
        let group = arrived as f64 / meter.accepted.len() as f64;
        println!("{window:?}: used {used:.4}, refused {refused:.4}, {group:.2} chunks a request");
        assert!(used >= 0.97, "{window:?}: {used}");
        assert!(refused <= 0.005, "{window:?}: {refused}");
        assert!(group >= 6.0, "{window:?}: {group} chunks a request");
    }
    let left = stage.left();
    assert_eq!(stored + left.chunks, 2 * SESSIONS * chunks);
    assert_eq!(left.bytes, left.chunks * CHUNK);
}

#[tokio::test(start_paused = true)]
async fn groups_carry_six_times_the_bytes_of_a_request_and_the_ledger_is_exact() {
    let mut requests = Vec::new();
    for group in [Limits::ALONE, Limits::default()] {
        let mut stage = Stage::new(&["acme"]);
        stage.group = group;
        stage.meter("acme", &meter(Window::Fixed));
        stage.accept_all("acme", 40, 0..24, 64 * 1024);
        stage.start().await;
        pass(MINUTE * 5).await;
        for session in 0..40 {
            let stored = stage.stored("acme", &format!("s{session}"));
            assert_eq!(stored, (0..24).collect::<Vec<_>>());
        }
        let seen = stage.requests();
        let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
        assert_eq!(bytes, 40 * 24 * 64 * 1024, "nothing was sent twice");
        requests.push(seen.len());
        stage.stop(Duration::ZERO).await;
    }
    println!("{requests:?} requests");
    assert!(requests[0] >= 6 * requests[1], "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn four_engines_that_know_nothing_of_each_other_share_one_clients_fixed_windows() {
    four_engines(Window::Fixed).await;
}

#[tokio::test(start_paused = true)]
async fn four_engines_that_know_nothing_of_each_other_share_one_clients_sliding_window() {
    four_engines(Window::Sliding).await;
}

async fn four_engines(window: Window) {
    let shared = meter(window);
    let mut stages = Vec::new();
    for seed in 1..=4 {
        let mut stage = Stage::new(&["acme"]);
        stage.seed = seed;
        stage.requests_take(Duration::from_millis(400));
        stage.meter("acme", &shared);
        stage.accept_all("acme", 60, 0..42, 16);
        stages.push(stage);
    }
    for stage in &mut stages {
        stage.start().await;
    }
    pass(MINUTE * (MINUTES as u32)).await;
    for stage in &mut stages {
        assert_eq!(stage.inside_forbidden(), 0);
        stage.stop(Duration::ZERO).await;
    }
    let meter = shared.lock().unwrap();
    let (used, refused) = (meter.used(1, MINUTES - 1), meter.refused_part());
    let parts: Vec<f64> = (1..=4)
        .map(|engine| {
            let own = meter.accepted.iter().filter(|(_, of)| *of == engine);
            own.count() as f64 / meter.accepted.len() as f64
        })
        .collect();
    println!("{window:?}: used {used:.4}, refused {refused:.4}, {parts:.3?}");
    assert!(used >= 0.90, "{used}");
    assert!(refused <= 0.01, "{refused}");
    assert!(
        parts.iter().all(|part| (0.125..=0.375).contains(part)),
        "{parts:?}"
    );
}

/// Recordings that go on for ever, a chunk each half minute; the backlog at the end of every minute.
async fn recordings(tenants: &[&str], sessions: u64, allowed: u64, minutes: u64) -> Vec<u64> {
    recordings_with(Limits::default(), tenants, sessions, allowed, minutes).await
}

async fn recordings_with(
    group: Limits,
    tenants: &[&str],
    sessions: u64,
    allowed: u64,
    minutes: u64,
) -> Vec<u64> {
    let mut stage = Stage::in_memory(tenants);
    stage.group = group;
    stage.workers = 64;
    stage.concurrency = 16;
    for tenant in tenants {
        let meter = Meter::new(Window::Fixed, allowed);
        stage.meter(tenant, &Arc::new(Mutex::new(meter)));
    }
    stage.start().await;
    let mut backlog = Vec::new();
    for half in 0..minutes * 2 {
        for tenant in tenants {
            stage.accept_all(tenant, sessions, half..half + 1, 4);
        }
        pass(Duration::from_secs(30)).await;
        if half % 2 == 1 {
            backlog.push(stage.left().chunks);
        }
    }
    stage.stop(Duration::ZERO).await;
    backlog
}

/// Sessions outnumber a minute's requests by 20 to 3: each is served every 6.7 min, with what came meanwhile.
fn does_not_grow(backlog: &[u64]) {
    println!("{backlog:?}");
    let (early, late) = (backlog[6] as f64, backlog[backlog.len() - 1] as f64);
    assert!(late <= 1.02 * early, "it grows: {backlog:?}");
}

/// The load that this was built for, whole: 216,000 chunks in nine minutes. The next test is its control.
#[tokio::test(start_paused = true)]
async fn two_thousand_recordings_of_six_organisations_at_30_seconds_fit_300_requests_a_minute_each()
{
    let tenants = ["a1", "b2", "c3", "d4", "e5", "f6"];
    does_not_grow(&recordings(&tenants, 2000, ALLOWED, 9).await);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "it grows")]
async fn a_budget_of_too_few_requests_makes_the_backlog_grow() {
    let group = Limits {
        max_chunks: 8,
        ..Limits::default()
    };
    does_not_grow(&recordings_with(group, &["acme"], 200, ALLOWED / 10, 20).await);
}

#[tokio::test(start_paused = true)]
async fn lanes_that_are_backlogged_throughout_get_the_same_bytes() {
    let tenants = ["acme", "globex", "initech", "umbrella"];
    for group in [
        Limits::ALONE,
        Limits {
            max_bytes: 512 * 1024,
            ..Limits::default()
        },
    ] {
        let mut stage = Stage::new(&tenants);
        stage.group = group;
        stage.workers = 4;
        for (tenant, chunk) in tenants.iter().zip([64, 96, 128, 256]) {
            let chunks = 16 * 1024 / chunk;
            stage.accept_all(tenant, 16, 0..chunks / 16, chunk as usize * 1024);
        }
        stage.start().await;
        stage.drain().await;
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        let half = stage.requests().iter().map(|seen| seen.bytes).sum::<u64>() / 2;
        for seen in stage.requests() {
            if sent.values().sum::<u64>() < half {
                *sent.entry(seen.tenant).or_default() += seen.bytes;
            }
        }
        let (sum, squares) = sent.values().fold((0.0, 0.0), |(sum, squares), bytes| {
            let bytes = *bytes as f64;
            (sum + bytes, squares + bytes * bytes)
        });
        let jain = sum * sum / (tenants.len() as f64 * squares);
        println!("{sent:?}: {jain:.4}");
        assert!(jain >= 0.99, "{sent:?}: {jain}");
        stage.stop(Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_without_a_token_endpoint_uses_no_retry_drops_nothing_and_asks_rarely() {
    let mut stage = Stage::new(&["acme"]);
    stage.group = Limits::default();
    *stage.grants[0].down.lock().unwrap() = true;
    stage.accept_all("acme", 20, 0..10, 16);
    stage.start().await;
    pass(DAY).await;
    assert_eq!(stage.requests().len(), 0);
    for session in 0..20 {
        assert_eq!(stage.counted("acme", &format!("s{session}")), 0);
    }
    let asked = *stage.grants[0].asked.lock().unwrap();
    // The slot's steps grow to 5 min, less their jitter.
    assert!(asked <= 580, "{asked} in a day: one a backoff step");
    *stage.grants[0].down.lock().unwrap() = false;
    pass(HOUR).await;
    for session in 0..20 {
        let stored = stage.stored("acme", &format!("s{session}"));
        assert_eq!(stored, (0..10).collect::<Vec<_>>());
    }
    assert_eq!(stage.dead(), []);
}
