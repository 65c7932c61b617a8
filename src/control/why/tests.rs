//! What is said of what waits, as sentences.

use super::*;
use crate::model::GateState;

fn hold(kind: &str, until: Option<&str>) -> HoldView {
    HoldView {
        kind: kind.into(),
        route: None,
        reason: "r".into(),
        until: until.map(str::to_owned),
        since: None,
        last: None,
    }
}

fn look(holds: Vec<HoldView>, backlog: u64, running: bool) -> Outlook {
    look_at(holds, backlog, running, None)
}

fn look_at(
    holds: Vec<HoldView>,
    backlog: u64,
    running: bool,
    session: Option<&SessionWhy>,
) -> Outlook {
    look_paced(holds, backlog, running, session, None)
}

fn look_paced(
    holds: Vec<HoldView>,
    backlog: u64,
    running: bool,
    session: Option<&SessionWhy>,
    pace: Option<&PaceView>,
) -> Outlook {
    let gate = GateView {
        state: GateState::Open,
        holds,
    };
    outlook(&Facts {
        tenant: &"acme".parse().unwrap(),
        gate: &gate,
        backlog: Count {
            chunks: backlog,
            bytes: 0,
        },
        confirming: Count::default(),
        dead: Count::default(),
        session,
        mismatch: None,
        pace,
        running,
        now: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
    })
}

#[test]
fn a_paused_tenant_is_told_how_to_go_on() {
    let both = vec![hold("throttled", None), hold("operator", None)];
    assert_eq!(look(both, 5, true).remedy, "worker tenants resume acme");
}

#[test]
fn a_throttled_tenant_is_told_when_it_goes_on_and_needs_nobody() {
    let look = look(
        vec![hold("throttled", Some("2026-03-01T14:30:00Z"))],
        5,
        true,
    );
    assert_eq!(look.next, "it goes on at 14:30Z");
    assert_eq!(look.remedy, "");
}

#[test]
fn a_blocked_tenant_is_told_who_tries_next_and_what_to_cure() {
    let outlook = look(vec![hold("blocked", None)], 5, true);
    assert_eq!(outlook.next, "the next try is soon, by itself");
    assert!(outlook.remedy.ends_with("worker tenants resume acme"));
}

#[test]
fn where_nobody_works_every_hold_says_so_and_how_to_start() {
    for (kind, until, then) in [
        ("blocked", None, "the next one tries at once"),
        ("outage", None, "the next one tries at once"),
        (
            "throttled",
            Some("2026-03-01T14:30:00Z"),
            "the next one waits until 14:30Z",
        ),
    ] {
        let outlook = look(vec![hold(kind, until)], 5, false);
        assert_eq!(
            outlook.next,
            format!("nobody delivers now: no worker runs on this store; {then}")
        );
        assert!(
            outlook
                .remedy
                .ends_with("worker run, or once: worker drain"),
            "{kind}"
        );
    }
    let blocked = look(vec![hold("blocked", None)], 5, false);
    assert!(blocked.remedy.starts_with("cure what the reason names"));
}

/// Seen: a session that owed nothing was told to start a worker, and one that waited for a gap that it was being sent.
#[test]
fn a_session_is_told_what_it_waits_for_itself() {
    let mut session = SessionWhy {
        session: "s1".parse().unwrap(),
        sequence: Some(5),
        state: None,
        may_be: Vec::new(),
        dead: 0,
        failures: 0,
        crashes: 0,
        ready_in_s: 0,
        gap_wait_s: 90,
        missing: Some((4, 4)),
        behind: None,
        lost: false,
    };
    let next = |session: &SessionWhy| look_at(vec![], 5, true, Some(session)).next;
    let gap = "sequence 4 before it is missing, and waited for, 90 s at most";
    assert_eq!(next(&session), gap);
    session.missing = Some((2, 4));
    let gap = "sequences 2 to 4 before it are missing, and waited for, 90 s at most";
    assert_eq!(next(&session), gap);
    session.sequence = None;
    let nothing = "nothing of this session waits to be delivered";
    assert_eq!(next(&session), nothing);
}

/// Seen: nothing was left of the budget for 8 s, and it was said to be being sent.
#[test]
fn a_budget_that_is_used_up_is_told_with_when_it_is_given_again() {
    let mut pace = PaceView {
        allowed: Some(300),
        remaining: Some(0),
        reset_in_s: Some(41),
        ..PaceView::default()
    };
    let next = |pace: &PaceView| look_paced(vec![], 5, true, None, Some(pace)).next;
    assert_eq!(
        next(&pace),
        "its request budget is used up (0 of 300 left): it goes on in 41 s"
    );
    (pace.remaining, pace.in_flight) = (Some(1), 1);
    assert_eq!(next(&pace), "it is being sent");
}

/// Seen: three of five requests were left for 16 s, nothing was on the wire, and it was said to be being sent.
#[test]
fn what_waits_for_its_turn_in_the_budget_is_not_said_to_be_being_sent() {
    let mut pace = PaceView {
        allowed: Some(5),
        remaining: Some(3),
        reset_in_s: Some(16),
        ..PaceView::default()
    };
    let next = |pace: &PaceView| look_paced(vec![], 6, true, None, Some(pace)).next;
    assert_eq!(next(&pace), "it is paced: 3 of 5 requests left for 16 s");
    for wire in [(1, Some(16)), (0, Some(0)), (0, None)] {
        (pace.in_flight, pace.reset_in_s) = wire;
        assert_eq!(next(&pace), "it is being sent", "{wire:?}");
    }
}

#[test]
fn a_backlog_without_a_worker_is_told_to_start_one() {
    assert!(look(vec![], 5, false).remedy.contains("worker run"));
    assert_eq!(look(vec![], 0, false).next, "nothing waits to be delivered");
}

/// Seen: chunks that were stored and waited to be taken in were said to be being sent.
#[test]
fn what_is_stored_there_and_not_taken_in_is_not_said_to_be_being_sent() {
    let gate = GateView {
        state: GateState::Open,
        holds: Vec::new(),
    };
    let count = |chunks| Count { chunks, bytes: 0 };
    let next = |confirming: u64| {
        let facts = Facts {
            tenant: &"acme".parse().unwrap(),
            gate: &gate,
            backlog: count(3),
            confirming: count(confirming),
            dead: Count::default(),
            session: None,
            mismatch: None,
            pace: None,
            running: true,
            now: Timestamp(0),
        };
        outlook(&facts).next
    };
    assert_eq!(
        next(3),
        "3 chunks of acme stored there and not yet taken in, which the platform is asked about again and again"
    );
    assert_eq!(next(2), "it is being sent");
}
