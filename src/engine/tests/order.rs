//! Order, gaps, late chunks, fairness.

use std::time::Duration;

use super::stage::{HOUR, MINUTE, Reply, Stage, key, pass};
use crate::engine::scheduler::Pick;
use crate::engine::{DrainOutcome, OnDead, worker};
use crate::model::{FailureClass, Gap, GapReason, Generation, Token};
use crate::store::{Promotion, Redriven};

#[tokio::test(start_paused = true)]
async fn everything_is_delivered_in_order_with_one_request_a_session_at_a_time() {
    let mut stage = Stage::new(&["acme", "globex"]);
    let sessions = ["a", "b", "c", "d", "e", "f"];
    stage.fill("acme", &sessions, 20);
    stage.fill("globex", &sessions[..2], 20);
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert_eq!(report.delivered.chunks, 160);
    assert_eq!(report.left.chunks, 0);
    for session in sessions {
        assert_eq!(stage.stored("acme", session), (0..20).collect::<Vec<_>>());
    }
    assert!(stage.most_on_the_wire() <= 8);
    assert_eq!(stage.requests().len(), 160);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_running_is_delivered_without_being_asked_for() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    pass(HOUR).await;
    stage.put("acme", "a", 0);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0]);
    stage.put("acme", "a", 1);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_sequence_is_waited_for_and_then_declared() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    stage.put("acme", "a", 0);
    pass(MINUTE).await;
    stage.put("acme", "a", 3);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0], "2 min are not over");
    pass(MINUTE * 2).await;
    assert_eq!(stage.stored("acme", "a"), [0, 3]);
    let last = stage.requests().pop().unwrap();
    let gap = Gap {
        first: 1,
        last: 2,
        reason: GapReason::Missing,
    };
    assert_eq!(last.gaps, [gap]);
    assert!(!last.late);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_fills_in_time_is_no_gap() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    stage.put("acme", "a", 0);
    pass(MINUTE).await;
    stage.put("acme", "a", 2);
    pass(MINUTE).await;
    stage.put("acme", "a", 1);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2]);
    assert!(stage.requests().iter().all(|seen| seen.gaps.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_comes_after_its_gap_was_declared_goes_out_late_and_alone_is_marked() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    stage.put("acme", "a", 0);
    stage.put("acme", "a", 2);
    pass(MINUTE * 5).await;
    stage.put("acme", "a", 1);
    stage.put("acme", "a", 3);
    pass(MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 2, 1, 3]);
    let late: Vec<u64> = stage
        .requests()
        .iter()
        .filter(|seen| seen.late)
        .map(|seen| seen.sequence)
        .collect();
    assert_eq!(late, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_session_may_start_at_any_sequence() {
    let mut stage = Stage::new(&["acme"]);
    stage.put("acme", "a", 7);
    stage.start().await;
    pass(Duration::from_secs(10)).await;
    assert_eq!(stage.stored("acme", "a"), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_declared_as_a_gap_and_goes_out_late_when_redriven() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    stage.script(|seen| match (seen.session.as_str(), seen.sequence) {
        ("a", 1) => Reply::fail(FailureClass::Rejected, Some(422)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::DeadLeft);
    assert_eq!(stage.stored("acme", "a"), [0, 2]);
    let after = stage.requests();
    let after = after.iter().find(|s| s.session == "a" && s.sequence == 2);
    let gap = Gap {
        first: 1,
        last: 1,
        reason: GapReason::Dead,
    };
    assert_eq!(after.unwrap().gaps, [gap]);

    stage.all_is_well();
    let redriven = stage.store().redrive(&key("acme", "a", 1)).unwrap();
    assert_eq!(redriven, Redriven::Done);
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert_eq!(stage.stored("acme", "a"), [0, 2, 1]);
    assert!(stage.requests().pop().unwrap().late);
}

#[tokio::test(start_paused = true)]
async fn with_on_dead_hold_a_session_waits_behind_its_dead_letter_until_a_person_decides() {
    let mut stage = Stage::new(&["acme"]);
    stage.on_dead = OnDead::Hold;
    stage.fill("acme", &["a", "b"], 3);
    stage.script(|seen| match (seen.session.as_str(), seen.sequence) {
        ("a", 1) => Reply::fail(FailureClass::Rejected, Some(422)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Blocked);
    assert_eq!(stage.stored("acme", "a"), [0]);
    assert_eq!(stage.stored("acme", "b"), [0, 1, 2]);
    stage.all_is_well();
    stage.store().redrive(&key("acme", "a", 1)).unwrap();
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::Drained);
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_a_huge_backlog_does_not_keep_a_small_one_waiting() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.workers = 2;
    let sessions: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let sessions: Vec<&str> = sessions.iter().map(String::as_str).collect();
    stage.fill("acme", &sessions, 25);
    stage.fill("globex", &["z"], 10);
    stage.start().await;
    stage.drain().await;
    let requests = stage.requests();
    let last_of_globex = requests.iter().rposition(|s| s.tenant == "globex");
    assert!(last_of_globex.unwrap() < 30, "{last_of_globex:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_platform_stalls_leaves_workers_to_the_others() {
    let mut stage = Stage::new(&["acme", "globex"]);
    stage.workers = 4;
    stage.concurrency = 16;
    stage.fill("acme", &["a", "b", "c", "d", "e"], 2);
    stage.fill("globex", &["z"], 10);
    stage.script(|seen| match seen.tenant.as_str() {
        "acme" => Reply::Hang,
        _ => Reply::Store,
    });
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(stage.stored("globex", "z").len(), 10);
    stage.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lower_sequence_that_comes_in_the_last_moment_is_sent_first() {
    let mut stage = Stage::new(&["acme"]);
    stage.start().await;
    let shared = stage.engine().shared.clone();
    shared.core().set_asleep(0, true);
    stage.put("acme", "a", 5);
    pass(MINUTE).await;
    let turn = {
        let mut core = shared.core();
        core.set_asleep(0, false);
        let pick = core.pick(shared.clock.now());
        core.set_asleep(0, true);
        match pick {
            Pick::Turn(turn) => turn,
            Pick::Wait(_) => panic!("sequence 5 can be sent"),
        }
    };
    stage.put("acme", "a", 4);
    let token = Token::new("t".into(), Generation(1));
    let next = worker::send(&shared, &turn, token).await.unwrap().unwrap();
    assert_eq!(next.sequence, 4);
    assert_eq!(stage.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_promoted_session_is_sent_before_its_lanes_others_until_it_owes_nothing() {
    let mut stage = Stage::new(&["acme"]);
    let sessions = ["a", "b", "c", "d", "e", "f", "g", "h"];
    stage.fill("acme", &sessions, 10);
    let promote = |stage: &Stage, name| {
        let session = key("acme", name, 0).session_key();
        stage.store().promote(&session).unwrap()
    };
    assert_eq!(promote(&stage, "h"), Promotion::Promoted);
    stage.requests_take(Duration::from_secs(1));
    stage.start().await;
    // Eight sessions share four places: a session in turn gets ten of its chunks through in about 20 s.
    pass(Duration::from_secs(6)).await;
    assert_eq!(promote(&stage, "g"), Promotion::Promoted);
    pass(Duration::from_secs(5)).await;
    assert_eq!(stage.stored("acme", "h").len(), 10);
    pass(Duration::from_secs(6)).await;
    assert_eq!(stage.stored("acme", "g").len(), 10);
    let others = &sessions[..6];
    assert!(others.iter().all(|it| stage.stored("acme", it).len() < 10));
    assert_eq!(stage.drain().await.outcome, DrainOutcome::Drained);
    assert_eq!(promote(&stage, "h"), Promotion::NothingOwed);
}
