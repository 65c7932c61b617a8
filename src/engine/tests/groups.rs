//! Several chunks in one request: what goes together, what a refusal of them costs, and that nothing is lost by it.

use std::time::Duration;

use super::stage::{DAY, HOUR, MINUTE, Reply, Stage, key, pass};
use crate::engine::DrainOutcome;
use crate::model::{DeadReason, FailureClass as C, GateState};
use crate::policy::grouping::Limits;

fn grouping(tenants: &[&str]) -> Stage {
    let mut stage = Stage::new(tenants);
    stage.group = Limits::default();
    stage
}

/// First sequence and number of parts of every request for a session.
fn requests(stage: &Stage, session: &str) -> Vec<(u64, u64)> {
    let of = stage.requests().into_iter();
    of.filter(|seen| seen.session == session)
        .map(|seen| (seen.sequence, seen.parts))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_backlog_goes_out_in_groups_and_a_session_that_is_not_behind_chunk_by_chunk() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 70);
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(
        requests(&stage, "a"),
        [(0, 30), (30, 30), (60, 10)],
        "15 min of 30 s each"
    );
    for sequence in 70..75 {
        stage.put("acme", "a", sequence);
        pass(Duration::from_secs(30)).await;
    }
    assert_eq!(
        requests(&stage, "a")[3..],
        [70, 71, 72, 73, 74].map(|s| (s, 1))
    );
    assert_eq!(stage.stored("acme", "a"), (0..75).collect::<Vec<_>>());
    assert_eq!(stage.left().chunks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_ends_at_its_limits_and_off_means_one_by_one() {
    for (limits, wanted) in [
        (
            Limits {
                max_chunks: 4,
                ..Limits::default()
            },
            4,
        ),
        (
            Limits {
                max_bytes: 30,
                ..Limits::default()
            },
            3,
        ),
        (
            Limits {
                max_interval: MINUTE,
                ..Limits::default()
            },
            2,
        ),
        (Limits::ALONE, 1),
    ] {
        let mut stage = grouping(&["acme"]);
        stage.group = limits;
        stage.fill("acme", &["a"], 8);
        stage.start().await;
        pass(MINUTE).await;
        assert_eq!(requests(&stage, "a")[0], (0, wanted), "{limits:?}");
        assert_eq!(stage.stored("acme", "a"), (0..8).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_a_late_chunk_and_one_that_waits_split_a_group() {
    let mut stage = grouping(&["acme"]);
    for sequence in [0, 1, 4, 5] {
        stage.put("acme", "a", sequence);
    }
    stage.start().await;
    pass(MINUTE * 5).await;
    assert_eq!(requests(&stage, "a"), [(0, 2), (4, 2)]);
    for sequence in [2, 3, 6, 7] {
        stage.put("acme", "a", sequence);
    }
    pass(MINUTE * 5).await;
    let late: Vec<_> = stage.requests().into_iter().filter(|s| s.late).collect();
    assert!(late.iter().all(|seen| seen.parts == 1) && late.len() == 2);
    assert_eq!(stage.left().chunks, 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_group_goes_again_until_there_is_a_verdict() {
    for class in [C::InDoubt, C::Transient, C::Throttled, C::Unauthorized] {
        let mut stage = grouping(&["acme"]);
        stage.fill("acme", &["a"], 5);
        let mut failures = 3;
        stage.script(move |_| match failures {
            0 => Reply::Store,
            _ => {
                failures -= 1;
                Reply::fail(class, None)
            }
        });
        stage.requests_take(Duration::from_secs(1));
        stage.start().await;
        pass(Duration::from_millis(500)).await;
        stage.put("acme", "a", 5);
        pass(HOUR).await;
        let sent = requests(&stage, "a");
        let mut of_group = sent.iter().filter(|(first, _)| *first == 0);
        // Where it is an outage the probe is one chunk.
        let probed = matches!(class, C::InDoubt | C::Transient);
        assert!(
            of_group.all(|(_, parts)| *parts == 5 || (probed && *parts == 1)),
            "{class}: {sent:?}"
        );
        assert_eq!(stage.stored("acme", "a"), [0, 1, 2, 3, 4, 5], "{class}");
        assert_eq!(stage.dead(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_chunk_is_found_by_halving_and_dies_alone_with_its_own_history() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 30);
    stage.fill("acme", &["b"], 1);
    stage.script(|seen| match seen.session.as_str() {
        "a" if seen.sequences().contains(&17) => Reply::fail(C::Rejected, Some(422)),
        _ => Reply::Store,
    });
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::DeadLeft);
    let wanted: Vec<u64> = (0..30).filter(|sequence| *sequence != 17).collect();
    assert_eq!(stage.stored("acme", "a"), wanted);
    let dead = stage.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].key.sequence, dead[0].reason),
        (17, DeadReason::Rejected)
    );
    let history = &dead[0].history;
    assert!(history.iter().all(|record| record.status == Some(422)));
    let alone = requests(&stage, "a").into_iter().filter(|r| *r == (17, 1));
    assert_eq!(
        alone.count(),
        history.len(),
        "its own refusals and no others"
    );
    assert!(stage.requests().len() <= 18, "{:?}", requests(&stage, "a"));
    let later = requests(&stage, "a")
        .into_iter()
        .rfind(|(first, _)| *first > 17);
    assert!(later.unwrap().1 > 1, "behind it groups go again");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_refuses_every_group_holds_the_route_and_buries_nothing() {
    let mut stage = grouping(&["acme"]);
    let sessions = ["a", "b", "c", "d"];
    stage.fill("acme", &sessions, 20);
    stage.script(|_| Reply::fail(C::Rejected, Some(422)));
    stage.start().await;
    pass(DAY).await;
    assert_eq!(stage.gate("acme"), GateState::Blocked);
    assert_eq!(stage.dead(), []);
    assert!(stage.requests().len() < 160, "{}", stage.requests().len());
    stage.all_is_well();
    pass(MINUTE * 16).await;
    for session in sessions {
        assert_eq!(stage.stored("acme", session), (0..20).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_too_large_makes_the_lanes_groups_smaller_and_condemns_nobody() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a", "b"], 30);
    stage.script(|seen| match seen.bytes > 40 {
        true => Reply::fail(C::Rejected, Some(413)),
        false => Reply::Store,
    });
    stage.start().await;
    pass(MINUTE * 10).await;
    for session in ["a", "b"] {
        assert_eq!(stage.stored("acme", session), (0..30).collect::<Vec<_>>());
    }
    assert_eq!(stage.dead(), []);
    let refused = stage.requests().into_iter().filter(|s| s.bytes > 40);
    assert!(refused.count() <= 8, "it is learned once, for all sessions");
    assert_eq!(stage.gate("acme"), GateState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_would_cost_a_retry_costs_no_chunk_of_a_group_one_but_the_guilty() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 16);
    // Another session is served all the time: what fails is not the route.
    stage.script(|seen| match seen.session.as_str() {
        "a" if seen.sequences().contains(&5) => Reply::fail(C::Transient, Some(500)),
        _ => Reply::Store,
    });
    stage.start().await;
    for sequence in 0..600 {
        stage.put("acme", "b", sequence);
        pass(MINUTE).await;
    }
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2, 3, 4]);
    assert!(stage.counted("acme", "a") > 0, "chunk 5, alone");
    stage.all_is_well();
    pass(HOUR).await;
    assert_eq!(stage.stored("acme", "a"), (0..16).collect::<Vec<_>>());
    assert_eq!(stage.dead(), []);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_were_on_the_wire_together_when_the_process_ended_go_alone() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 6);
    let session = key("acme", "a", 0).session_key();
    let mut first = stage.store().lease(&session).unwrap().unwrap();
    let mut second = first.following(|_, _| true).unwrap().unwrap();
    first.sending().unwrap();
    second.sending().unwrap();
    std::mem::forget((first, second));
    stage.reopen();
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(requests(&stage, "a"), [(0, 1), (1, 1), (2, 4)]);
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_every_chunk_of_a_group_back_with_nothing_counted() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 6);
    stage.script(|_| Reply::Hang);
    stage.start().await;
    pass(Duration::from_secs(5)).await;
    let counts = stage.store().view().tenants.remove(0).1;
    assert_eq!(counts.leased.chunks, 6);
    stage.stop(Duration::from_secs(2)).await;
    stage.reopen();
    let head = stage.store().head(&key("acme", "a", 0).session_key());
    let head = head.unwrap().unwrap();
    assert_eq!((head.sequence, head.owed), (0, 6));
    assert_eq!((head.failures, head.crashes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn days_of_faults_of_every_kind_lose_and_double_nothing_in_groups_either() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut stage = grouping(&["acme"]);
    stage.seed = seed;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut weather = random.clone();
    stage.script(move |seen| match weather.u8(0..12) {
        _ if seen.at > DAY => Reply::Store,
        0 => Reply::fail(C::Transient, None),
        1 => Reply::fail(C::Transient, Some(500)),
        2 => Reply::fail(C::InDoubt, None),
        3 => Reply::throttle(MINUTE),
        4 => Reply::fail(C::Unauthorized, Some(401)),
        5 if seen.parts > 1 => Reply::fail(C::Rejected, Some(422)),
        6 if seen.parts > 1 => Reply::fail(C::Rejected, Some(413)),
        7 if seen.parts > 1 => Reply::fail(C::DigestMismatch, Some(460)),
        _ => Reply::Store,
    });
    stage.start().await;
    let sessions = ["a", "b", "c"];
    let mut next = [0; 3];
    for hour in 0..24 {
        for (session, next) in sessions.iter().zip(&mut next) {
            for _ in 0..random.u64(0..6) {
                stage.put("acme", session, *next);
                *next += 1;
            }
        }
        pass(HOUR).await;
        if hour % 8 == 7 {
            stage.restart().await;
        }
    }
    pass(DAY).await;
    for (session, next) in sessions.iter().zip(next) {
        assert_eq!(stage.stored("acme", session), (0..next).collect::<Vec<_>>());
    }
    assert_eq!(stage.dead(), []);
    assert_eq!(stage.left().chunks, 0);
    assert!(stage.requests().iter().any(|seen| seen.parts > 1));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_part_is_set_aside_and_the_others_of_its_group_are_delivered() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 9);
    stage.damage(&key("acme", "a", 4));
    stage.start().await;
    let report = stage.drain().await;
    assert_eq!(report.outcome, DrainOutcome::DeadLeft);
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2, 3, 5, 6, 7, 8]);
    let dead = stage.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].key.sequence, dead[0].reason),
        (4, DeadReason::Damaged)
    );
    assert_eq!(requests(&stage, "a"), [(0, 9), (0, 4), (5, 4)]);
}

#[tokio::test(start_paused = true)]
async fn tenants_of_one_client_wait_together_and_others_do_not() {
    let mut stage = grouping(&["acme", "globex", "initech"]);
    for (tenant, client) in [(0, "one"), (1, "one"), (2, "two")] {
        *stage.grants[tenant].client.lock().unwrap() = client.to_owned();
    }
    let mut throttled = false;
    stage.script(move |seen| {
        if seen.tenant == "acme" && !std::mem::replace(&mut throttled, true) {
            return Reply::throttle(HOUR);
        }
        Reply::Store
    });
    stage.put("acme", "a", 0);
    stage.start().await;
    pass(MINUTE).await;
    stage.put("globex", "a", 0);
    stage.put("initech", "a", 0);
    pass(MINUTE * 58).await;
    assert_eq!(stage.gate("globex"), GateState::Paused);
    assert!(stage.stored("globex", "a").is_empty());
    assert_eq!(stage.stored("initech", "a"), [0]);
    stage.restart().await;
    assert!(
        stage.stored("globex", "a").is_empty(),
        "also after a restart"
    );
    pass(MINUTE * 5).await;
    assert_eq!(stage.stored("globex", "a"), [0]);
    assert_eq!(stage.stored("acme", "a"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_days_budget_that_is_used_up_is_waited_for_over_a_restart() {
    let mut stage = grouping(&["acme"]);
    stage.fill("acme", &["a"], 1);
    stage.limits_say(crate::platform::Limits {
        allowed: Some(10_000),
        remaining: Some(0),
        reset_in: Some(HOUR * 3),
    });
    stage.start().await;
    pass(MINUTE).await;
    stage.limits_say(crate::platform::Limits::default());
    stage.put("acme", "a", 1);
    pass(HOUR).await;
    stage.restart().await;
    pass(HOUR).await;
    assert_eq!(stage.gate("acme"), GateState::Paused);
    assert_eq!(stage.stored("acme", "a"), [0]);
    pass(HOUR + MINUTE).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1]);
}
