//! How a drain ends, and when it gives up.

use std::time::Duration;

use super::stage::{DAY, HOUR, MINUTE, Reply, Stage, pass};
use crate::engine::{DrainOutcome, DrainProgress, DrainReport, DrainSettings, DrainedTenant};
use crate::model::FailureClass as C;

fn of<'a>(report: &'a DrainReport, tenant: &str) -> &'a DrainedTenant {
    &report.tenants[&tenant.parse().unwrap()]
}

/// A drain of `acme` under this script, and how long it took.
async fn drained_under(
    sessions: &[&str],
    script: impl FnMut(&super::stage::Seen) -> Reply + Send + 'static,
) -> (DrainReport, Duration) {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", sessions, 3);
    stage.script(script);
    stage.start().await;
    let began = tokio::time::Instant::now();
    let report = stage.drain().await;
    (report, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_is_drained_at_once() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert_eq!(of(&report, "acme").delivered.chunks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_scope_ends_a_drain_as_blocked_after_one_probe() {
    for sessions in [&["a"][..], &["a", "b", "c"]] {
        let (report, took) =
            drained_under(sessions, |_| Reply::fail(C::Forbidden, Some(403))).await;
        assert_eq!(report.outcome, DrainOutcome::Blocked);
        let acme = of(&report, "acme");
        assert_eq!(acme.left.chunks, 3 * sessions.len() as u64);
        assert!(acme.reason.contains("403"), "{}", acme.reason);
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_the_platform_refuses_end_a_drain_as_blocked() {
    let (report, took) =
        drained_under(&["a", "b"], |_| Reply::fail(C::Unauthorized, Some(401))).await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert!(took < MINUTE * 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_does_not_answer_ends_a_drain_as_unreachable_after_three_probes() {
    for sessions in [&["a"][..], &["a", "b", "c"]] {
        let (report, took) = drained_under(sessions, |_| Reply::fail(C::Transient, None)).await;
        assert_eq!(report.outcome, DrainOutcome::Unreachable);
        assert!(took > Duration::from_secs(30), "{took:?}");
        assert!(took < MINUTE * 2, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_down_ends_a_drain_as_unreachable() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    *stage.grants[0].down.lock().unwrap() = true;
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Unreachable);
    assert!(of(&report, "acme").reason.contains("login.test"));
    assert_eq!(report.left.chunks, 3);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_beyond_the_patience_ends_a_drain_and_says_when_to_run_again() {
    let (report, took) = drained_under(&["a", "b"], |_| Reply::throttle(HOUR)).await;
    assert_eq!(report.outcome, DrainOutcome::Throttled);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let until = of(&report, "acme").until.unwrap().to_string();
    assert!(until.starts_with("2026-03-01T11:00:"), "{until}");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_within_the_patience_is_waited_for() {
    let mut throttled = 0;
    let (report, took) = drained_under(&["a"], move |_| {
        throttled += 1;
        match throttled {
            1 => Reply::throttle(Duration::from_secs(50)),
            _ => Reply::Store,
        }
    })
    .await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert!(took >= Duration::from_secs(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_a_drain_whatever_is_left() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 30);
    stage.requests_take(MINUTE);
    stage.start().await;
    let began = tokio::time::Instant::now();
    let report = stage
        .drain_with(Some(MINUTE * 10), DrainSettings::PATIENCE)
        .await;
    assert_eq!(report.outcome, DrainOutcome::Deadline);
    assert!(report.delivered.chunks >= 9, "{report:?}");
    assert_eq!(report.delivered.chunks + report.left.chunks, 30);
    assert!(began.elapsed() < MINUTE * 11);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_stuck_does_not_keep_a_drain_from_emptying_another() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.fill("acme", &["a"], 2);
    stage.fill("globex", &["a"], 40);
    stage.requests_take(Duration::from_secs(5));
    stage.script(|seen| match seen.tenant.as_str() {
        "acme" => Reply::fail(C::Endpoint, Some(404)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert_eq!(of(&report, "globex").outcome, DrainOutcome::Drained);
    assert_eq!(of(&report, "globex").delivered.chunks, 40);
    assert_eq!(of(&report, "globex").left.chunks, 0);
    assert_eq!(of(&report, "acme").left.chunks, 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_tenant_ends_a_drain_as_blocked() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 2);
    stage.start().await;
    stage.engine().pause(&"acme".parse().unwrap()).unwrap();
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert!(of(&report, "acme").reason.contains("paused"));
    assert_eq!(stage.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_arrive_after_its_start_are_not_waited_for() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 5);
    stage.requests_take(MINUTE);
    stage.start().await;
    let engine = stage.engine.take().unwrap();
    let progress = tokio::sync::watch::Sender::new(DrainProgress::default());
    let settings = DrainSettings {
        tenants: None,
        timeout: None,
        patience: DrainSettings::PATIENCE,
    };
    let (report, ()) = tokio::join!(engine.drain(settings, &progress), async {
        pass(MINUTE).await;
        for sequence in 5..50 {
            stage.put("acme", "a", sequence);
        }
    });
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert!(report.delivered.chunks < 10, "{report:?}");
    engine.stop(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_time_ends_in_a_gap_names_what_is_missing() {
    let mut stage = Stage::new(&["acme"]);
    for sequence in [0, 4] {
        stage.put("acme", "a", sequence);
    }
    stage.start().await;
    let report = stage
        .drain_with(Some(MINUTE), DrainSettings::PATIENCE)
        .await;
    assert_eq!(report.outcome, DrainOutcome::Deadline);
    assert_eq!(
        of(&report, "acme").reason,
        "sequences 1 to 3 of session a are missing, and waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_waited_out_although_it_takes_longer_than_the_patience() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    stage.put("acme", "a", 0);
    pass(MINUTE).await;
    stage.put("acme", "a", 5);
    let report = stage.drain_with(None, Duration::from_secs(10)).await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert_eq!(stage.stored("acme", "a"), [0, 5]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_from_before_are_named_and_do_not_spoil_a_drain() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    stage.script(|seen| match (seen.session.as_str(), seen.sequence) {
        ("a", 0) => Reply::fail(C::Rejected, Some(422)),
        _ => Reply::Store,
    });
    stage.start().await;
    let first = stage.drain().await;
    assert_eq!(first.outcome, DrainOutcome::DeadLeft);
    assert_eq!(
        (of(&first, "acme").dead, of(&first, "acme").dead_before),
        (1, 0)
    );
    stage.put("acme", "a", 3);
    let second = stage.drain().await;
    assert_eq!(second.outcome, DrainOutcome::Drained);
    assert_eq!(
        (of(&second, "acme").dead, of(&second, "acme").dead_before),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_probes_a_block_at_once_however_far_its_next_probe_is() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    stage.script(|_| Reply::fail(C::Endpoint, Some(404)));
    stage.start().await;
    pass(HOUR * 3).await;
    let asked = stage.requests().len();
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert_eq!(stage.requests().len(), asked + 1);
    stage.all_is_well();
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_hurry_a_throttle() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.script(|_| Reply::throttle(HOUR));
    stage.start().await;
    pass(MINUTE).await;
    stage.all_is_well();
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Throttled);
    assert_eq!(stage.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_refused_alone_ends_a_drain_as_blocked_with_the_rest_delivered() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b", "c"], 30);
    stage.requests_take(Duration::from_secs(2));
    stage.script(|seen| match seen.session.as_str() {
        "a" => Reply::fail(C::Endpoint, Some(404)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert_eq!(report.delivered.chunks, 60);
    assert_eq!(report.left.chunks, 30);
}

#[tokio::test(start_paused = true)]
async fn chunks_of_a_tenant_that_nobody_configured_end_a_drain_as_blocked() {
    let mut stage = Stage::new(&["acme", "ghost"]);
    stage.fill("acme", &["a"], 2);
    stage.fill("ghost", &["a"], 2);
    stage.forget_tenant("ghost");
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert_eq!(of(&report, "acme").outcome, DrainOutcome::Drained);
    assert!(of(&report, "ghost").reason.contains("[tenants.ghost]"));
    assert_eq!(of(&report, "ghost").left.chunks, 2);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_while_a_drain_works() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 10);
    stage.requests_take(MINUTE);
    stage.start().await;
    let progress = tokio::sync::watch::Sender::new(DrainProgress::default());
    let mut told = progress.subscribe();
    let settings = DrainSettings {
        tenants: None,
        timeout: None,
        patience: DAY,
    };
    let watching = async {
        let mut seen = Vec::new();
        while seen.last() != Some(&(10, 0)) {
            told.changed().await.unwrap();
            let shown = *told.borrow_and_update();
            seen.push((shown.delivered.chunks, shown.left.chunks));
        }
        seen
    };
    let (report, seen) = tokio::join!(stage.engine().drain(settings, &progress), watching);
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert!(seen.contains(&(4, 6)), "{seen:?}");
}
