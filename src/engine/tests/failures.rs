//! What failures cost, whom they hold, and what they never do.

use std::time::Duration;

use super::stage::{DAY, HOUR, MINUTE, Reply, Seen, Stage, pass};
use crate::engine::DrainOutcome;
use crate::model::{DeadReason, FailureClass as C, GateState};
use crate::platform::Limits;
use crate::sabotage::Sabotaged;

const SESSIONS: [&str; 4] = ["a", "b", "c", "d"];

fn everything_was_delivered_in_order(stage: &Stage, sessions: &[&str], count: u64) {
    for session in sessions {
        let wanted: Vec<u64> = (0..count).collect();
        assert_eq!(stage.stored("acme", session), wanted, "{session}");
    }
    assert_eq!(stage.dead(), []);
}

async fn outage_of_a_day(sessions: &[&'static str], class: C, status: Option<u16>) {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", sessions, 5);
    stage.script(move |_| Reply::fail(class, status));
    stage.start().await;
    pass(DAY + HOUR * 2).await;
    for session in sessions {
        assert_eq!(stage.counted("acme", session), 0, "no retry is counted");
    }
    assert_eq!(stage.gate("acme"), GateState::Paused);
    let asked = stage.requests().len();
    assert!(asked < 150, "{asked} requests in a day of outage");
    stage.all_is_well();
    pass(MINUTE * 30).await;
    everything_was_delivered_in_order(&stage, sessions, 5);
    assert_eq!(stage.gate("acme"), GateState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_outage_costs_no_retry_and_everything_is_delivered_after_it() {
    outage_of_a_day(&SESSIONS, C::Transient, None).await;
}

#[tokio::test(start_paused = true)]
async fn a_day_of_server_errors_for_everything_is_an_outage_too() {
    outage_of_a_day(&SESSIONS, C::Transient, Some(503)).await;
}

#[tokio::test(start_paused = true)]
async fn a_day_of_requests_without_a_verdict_is_an_outage_too() {
    outage_of_a_day(&SESSIONS, C::InDoubt, None).await;
}

#[tokio::test(start_paused = true)]
async fn a_single_session_lives_through_a_day_of_outage() {
    outage_of_a_day(&["a"], C::Transient, None).await;
    outage_of_a_day(&["a"], C::Transient, Some(503)).await;
}

/// A platform that refuses everything in this way for two days, and then is cured.
async fn refuses_everything(sessions: &[&'static str], class: C, status: u16, state: GateState) {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", sessions, 5);
    stage.script(move |_| Reply::fail(class, Some(status)));
    stage.start().await;
    pass(DAY * 2).await;
    assert_eq!(stage.gate("acme"), state, "{class} {status}");
    assert_eq!(stage.dead(), [], "{class} {status}");
    for session in sessions {
        assert_eq!(stage.counted("acme", session), 0, "{class} {status}");
    }
    stage.all_is_well();
    pass(MINUTE * 16).await;
    everything_was_delivered_in_order(&stage, sessions, 5);
    assert_eq!(stage.gate("acme"), GateState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_refuses_everything_holds_the_route_and_buries_nothing() {
    for (class, status) in [
        (C::Unauthorized, 401),
        (C::Forbidden, 403),
        (C::Endpoint, 404),
        (C::Unrecognised, 200),
        (C::Unrecognised, 302),
        (C::PurviewPending, 422),
        (C::Rejected, 422),
    ] {
        refuses_everything(&SESSIONS, class, status, GateState::Blocked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_session_is_held_by_every_refusal_that_an_operator_can_repair() {
    for (class, status) in [
        (C::Unauthorized, 401),
        (C::Forbidden, 403),
        (C::Endpoint, 404),
    ] {
        refuses_everything(&["a"], class, status, GateState::Blocked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_rejects_everything_of_two_sessions_buries_nothing() {
    refuses_everything(&["a", "b"], C::Rejected, 422, GateState::Blocked).await;
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_rejects_everything_of_a_single_session_buries_one_chunk_and_no_more() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 20);
    stage.script(|_| Reply::fail(C::Rejected, Some(422)));
    stage.start().await;
    pass(DAY).await;
    stage.restart().await;
    pass(DAY).await;
    assert_eq!(stage.dead().len(), 1);
    assert_eq!(stage.gate("acme"), GateState::Blocked);
    stage.all_is_well();
    pass(MINUTE * 16).await;
    assert_eq!(stage.stored("acme", "a"), (1..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_single_poisoned_chunk_in_a_single_session_still_ends_dead() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 5);
    stage.script(|seen| match seen.sequence {
        2 => Reply::fail(C::Rejected, Some(422)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::DeadLeft);
    assert_eq!(stage.stored("acme", "a"), [0, 1, 3, 4]);
    let dead = stage.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, DeadReason::Rejected);
    assert_eq!(dead[0].history.len(), 4, "every refusal is kept");
    assert_eq!(dead[0].history[0].status, Some(422));
    let attempts: Vec<u32> = dead[0].history.iter().map(|r| r.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert!(dead[0].history[0].next_try_at.is_some());
    let sent = stage.requests().into_iter().filter(|s| s.sequence == 2);
    assert_eq!(sent.map(|s| s.attempt).collect::<Vec<_>>(), attempts);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_makes_the_server_fail_ends_dead_also_in_a_single_session() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.script(|seen| match seen.sequence {
        1 => Reply::fail(C::Transient, Some(500)),
        _ => Reply::Store,
    });
    stage.start().await;
    pass(HOUR * 23).await;
    assert_eq!(stage.dead(), [], "its failures do not yet span a day");
    pass(HOUR * 4).await;
    assert_eq!(stage.dead()[0].reason, DeadReason::RetriesExhausted);
    assert_eq!(stage.stored("acme", "a"), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn poisoned_chunks_end_dead_and_delay_nobody() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 25);
    let poisoned = |seen: &Seen| seen.session == "a" && seen.sequence % 5 == 2;
    stage.script(move |seen| match poisoned(seen) {
        true => Reply::fail(C::Rejected, Some(422)),
        false => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::DeadLeft);
    assert_eq!(report.tenants.values().next().unwrap().dead, 5);
    assert_eq!(stage.dead().len(), 5);
    for session in &SESSIONS[1..] {
        assert_eq!(stage.stored("acme", session).len(), 25);
    }
    let done = stage.requests().iter().rposition(|s| s.session == "b");
    assert!(stage.requests()[done.unwrap()].at < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn one_refused_session_does_not_delay_the_others() {
    for class in [C::Forbidden, C::Endpoint, C::InDoubt, C::Transient] {
        let mut stage = Stage::new(&["acme"]);
        stage.fill("acme", &SESSIONS, 20);
        stage.script(move |seen| match seen.session.as_str() {
            "a" => Reply::fail(class, None),
            _ => Reply::Store,
        });
        stage.start().await;
        pass(MINUTE).await;
        for session in &SESSIONS[1..] {
            assert_eq!(stage.stored("acme", session).len(), 20, "{class}");
        }
        assert_eq!(stage.dead(), [], "{class}");
        stage.all_is_well();
        pass(MINUTE * 20).await;
        everything_was_delivered_in_order(&stage, &SESSIONS, 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_brownout_that_loses_every_other_request_kills_nobody() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 60);
    let mut random = fastrand::Rng::with_seed(7);
    stage.script(move |_| match random.bool() {
        true => Reply::fail(C::Transient, Some(503)),
        false => Reply::Store,
    });
    stage.start().await;
    pass(HOUR).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 60);
    let ended = stage.requests().pop().unwrap().at;
    assert!(ended < MINUTE * 30, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_down_for_a_day_costs_nothing() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 5);
    *stage.grants[0].down.lock().unwrap() = true;
    stage.start().await;
    pass(DAY).await;
    assert_eq!(stage.requests().len(), 0);
    assert_eq!(stage.gate("acme"), GateState::Paused);
    *stage.grants[0].down.lock().unwrap() = false;
    pass(MINUTE * 10).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 5);
    assert_eq!(stage.gate("acme"), GateState::Open);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_live_five_seconds_and_die_early_delay_nothing_for_long() {
    let mut stage = Stage::new(&["acme"]);
    *stage.grants[0].life.lock().unwrap() = Duration::from_secs(60);
    stage.fill("acme", &SESSIONS, 40);
    stage.requests_take(Duration::from_secs(1));
    let mut first_seen = std::collections::HashMap::new();
    stage.script(move |seen| {
        let born = *first_seen.entry(seen.token.clone()).or_insert(seen.at);
        match seen.at - born > Duration::from_secs(5) {
            true => Reply::fail(C::Unauthorized, Some(401)),
            false => Reply::Store,
        }
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    everything_was_delivered_in_order(&stage, &SESSIONS, 40);
    let refused = stage.requests().len() - 160;
    assert!(refused > 0, "some tokens died under way");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_holds_its_tenant_only_and_is_never_undercut() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.fill("acme", &SESSIONS, 5);
    stage.fill("globex", &SESSIONS, 5);
    let mut throttled = false;
    stage.script(move |seen| {
        if seen.tenant == "acme" && !std::mem::replace(&mut throttled, true) {
            return Reply::throttle(MINUTE * 10);
        }
        Reply::Store
    });
    stage.requests_take(Duration::from_millis(10));
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(stage.stored("globex", "a").len(), 5);
    assert_eq!(stage.gate("acme"), GateState::Paused);
    pass(MINUTE * 15).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 5);
    let early = stage.requests().into_iter().filter(|seen| {
        seen.tenant == "acme" && seen.at > Duration::from_secs(1) && seen.at < MINUTE * 10
    });
    assert_eq!(early.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_of_an_hour_survives_a_restart() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.script(|_| Reply::throttle(HOUR));
    stage.start().await;
    pass(MINUTE).await;
    stage.all_is_well();
    stage.restart().await;
    pass(MINUTE * 58).await;
    assert_eq!(stage.requests().len(), 1);
    pass(MINUTE * 5).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2]);
    assert_eq!(
        stage.store().holds(),
        [],
        "the hold is forgotten with its end"
    );
}

#[tokio::test(start_paused = true)]
async fn a_block_survives_a_restart_and_is_probed_at_once_by_it() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 3);
    stage.script(|_| Reply::fail(C::Forbidden, Some(403)));
    stage.start().await;
    pass(HOUR).await;
    stage.restart().await;
    assert_eq!(stage.gate("acme"), GateState::Blocked);
    stage.all_is_well();
    pass(MINUTE).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 3);
    assert_eq!(stage.store().holds(), []);
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_granted_is_noticed_by_the_next_probe_although_the_old_token_lives_on() {
    let mut stage = Stage::new(&["acme"]);
    *stage.grants[0].life.lock().unwrap() = DAY * 2;
    stage.fill("acme", &SESSIONS, 3);
    let granted_from = std::sync::Arc::new(std::sync::Mutex::new(None::<String>));
    let granted = granted_from.clone();
    stage.script(move |seen| match granted.lock().unwrap().as_ref() {
        Some(last_without) if seen.token > *last_without => Reply::Store,
        _ => Reply::fail(C::Forbidden, Some(403)),
    });
    stage.start().await;
    pass(HOUR).await;
    let last = stage.requests().pop().unwrap().token;
    *granted_from.lock().unwrap() = Some(last);
    pass(MINUTE * 16).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 3);
}

#[tokio::test(start_paused = true)]
async fn a_probe_goes_with_the_token_there_is_while_the_endpoint_is_down() {
    let mut stage = Stage::new(&["acme"]);
    *stage.grants[0].life.lock().unwrap() = DAY * 2;
    stage.fill("acme", &SESSIONS, 3);
    stage.script(|_| Reply::fail(C::Endpoint, Some(404)));
    stage.start().await;
    pass(MINUTE).await;
    *stage.grants[0].down.lock().unwrap() = true;
    stage.all_is_well();
    pass(MINUTE * 5).await;
    everything_was_delivered_in_order(&stage, &SESSIONS, 3);
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_is_waited_for_without_a_throttle() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.limits_say(Limits {
        allowed: Some(300),
        remaining: Some(0),
        reset_in: Some(MINUTE),
    });
    stage.start().await;
    pass(Duration::from_secs(30)).await;
    assert_eq!(stage.stored("acme", "a"), [0]);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_a_brownout_has_the_history_of_its_failures() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 1);
    stage.script(|seen| match seen.session.as_str() {
        "a" => Reply::fail(C::Transient, Some(500)),
        _ => Reply::Store,
    });
    stage.start().await;
    for sequence in 0..200 {
        stage.put("acme", "b", sequence);
        pass(MINUTE * 10).await;
    }
    let dead = stage.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, DeadReason::RetriesExhausted);
    assert_eq!(dead[0].history.len(), 8);
    assert_eq!(stage.stored("acme", "b").len(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_tests_of_outages_and_tokens_would_notice_their_defects() {
    use crate::sabotage::Sabotage;
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 2);
    stage.script(|_| Reply::fail(C::Transient, None));
    let defect = Sabotaged::NONE.with(Sabotage::CountOutageAsFailure);
    stage.start_with(defect).await;
    pass(HOUR).await;
    assert!(SESSIONS.iter().any(|s| stage.counted("acme", s) > 0));
    let used = stage.engine().lanes()[&"acme".parse().unwrap()].retries_used;
    let counted = SESSIONS.map(|s| u64::from(stage.counted("acme", s)));
    assert_eq!(used, counted.into_iter().sum::<u64>());

    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &SESSIONS, 2);
    stage.script(|_| Reply::fail(C::Unauthorized, Some(401)));
    let defect = Sabotaged::NONE.with(Sabotage::DropOnUnauthorized);
    stage.start_with(defect).await;
    pass(HOUR).await;
    assert_eq!(stage.left().chunks, 0);
    assert!(stage.stored("acme", "a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_by_a_day_costs_no_retry_and_undercuts_no_throttle() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    for jump in [-DAY_MS, DAY_MS] {
        let mut stage = Stage::new(&["acme", "globex"]);
        stage.fill("acme", &SESSIONS, 5);
        stage.fill("globex", &["a"], 3);
        stage.script(|seen| match seen.tenant.as_str() {
            "acme" => Reply::fail(C::Transient, Some(503)),
            _ => Reply::throttle(HOUR),
        });
        stage.start().await;
        pass(MINUTE * 10).await;
        stage.clock.jump(jump);
        stage.restart().await;
        pass(MINUTE * 40).await;
        assert_eq!(SESSIONS.map(|s| stage.counted("acme", s)), [0; 4]);
        stage.all_is_well();
        pass(MINUTE * 9).await;
        assert!(stage.stored("globex", "a").is_empty(), "{jump}");
        pass(MINUTE * 20).await;
        assert_eq!(stage.stored("globex", "a"), [0, 1, 2], "{jump}");
        everything_was_delivered_in_order(&stage, &SESSIONS, 5);
    }
}
