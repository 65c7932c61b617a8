//! The rules of holds, one by one.

use super::*;

const ROUTE: Route = Route::Deliver;

fn gate() -> Gate {
    Gate::new("acme".parse().unwrap())
}

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

fn moment(seconds: u64) -> Moment {
    Moment {
        now: at(seconds),
        wall: Timestamp(i64::try_from(seconds).unwrap() * 1000),
    }
}

/// A failed request; the youngest sent so far has the number `youngest`.
fn trial(number: u64, youngest: u64) -> Trial {
    Trial {
        number,
        youngest,
        words: Words::new("wrong", "cure it"),
        record: None,
        draw: 0.0,
    }
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_gate_is_open_iff_it_has_no_hold() {
    let mut gate = gate();
    assert_eq!(gate.passage(ROUTE, at(1)), Passage::Open);
    gate.pause(moment(1));
    assert_eq!(gate.passage(ROUTE, at(9999)), Passage::Closed(None));
    assert!(gate.unpause());
    assert_eq!(gate.passage(ROUTE, at(2)), Passage::Open);
    assert_eq!(gate.holds().count(), 0);
}

#[test]
fn deadlines_merge_by_the_later_one() {
    let mut gate = gate();
    gate.throttle(ROUTE, secs(100), &trial(1, 4), moment(10));
    gate.throttle(ROUTE, secs(5), &trial(1, 4), moment(11));
    assert_eq!(gate.passage(ROUTE, at(50)), Passage::Closed(Some(at(110))));
    gate.throttle(ROUTE, secs(100), &trial(1, 4), moment(20));
    assert_eq!(gate.passage(ROUTE, at(50)), Passage::Closed(Some(at(120))));
    assert_eq!(gate.passage(ROUTE, at(120)), Passage::Open);
    assert!(gate.expire(at(120)));
}

#[test]
fn a_throttle_closes_its_route_only() {
    let mut gate = gate();
    gate.throttle(ROUTE, secs(100), &trial(1, 4), moment(10));
    assert_eq!(gate.passage(Route::Fetch, at(11)), Passage::Open);
}

#[test]
fn nobody_but_time_ends_a_throttle() {
    let mut gate = gate();
    gate.throttle(ROUTE, secs(100), &trial(1, 4), moment(10));
    assert!(!gate.unpause());
    assert_eq!(gate.probe_now(at(11)), 0);
    assert!(!gate.disproved(HoldKind::Outage, ROUTE, 11));
    assert_eq!(gate.passage(ROUTE, at(12)), Passage::Closed(Some(at(110))));
}

#[test]
fn a_block_lets_one_probe_through_when_it_is_due() {
    let mut gate = gate();
    gate.hold_until_probe(HoldKind::Blocked, ROUTE, &trial(9, 9), moment(10));
    assert_eq!(gate.passage(ROUTE, at(11)), Passage::Closed(Some(at(12))));
    assert_eq!(gate.passage(ROUTE, at(12)), Passage::Probe);
    gate.probe_begins();
    assert_eq!(gate.passage(ROUTE, at(13)), Passage::Closed(None));
    gate.probe_ends();
    gate.hold_until_probe(HoldKind::Blocked, ROUTE, &trial(12, 12), moment(14));
    assert_eq!(gate.passage(ROUTE, at(15)), Passage::Closed(Some(at(24))));
    assert!(gate.disproved(HoldKind::Blocked, ROUTE, 24));
    assert_eq!(gate.passage(ROUTE, at(24)), Passage::Open);
}

#[test]
fn results_of_requests_sent_before_a_hold_neither_end_nor_shorten_nor_lengthen_it() {
    for kind in [HoldKind::Blocked, HoldKind::Outage] {
        let mut gate = gate();
        gate.hold_until_probe(kind, ROUTE, &trial(9, 9), moment(10));
        for _ in 0..8 {
            gate.hold_until_probe(kind, ROUTE, &trial(9, 9), moment(11));
        }
        assert!(!gate.disproved(kind, ROUTE, 9));
        assert_eq!(gate.passage(ROUTE, at(11)), Passage::Closed(Some(at(12))));
    }
}

#[test]
fn a_due_probe_waits_for_every_other_hold() {
    let mut gate = gate();
    gate.hold_until_probe(HoldKind::Blocked, ROUTE, &trial(9, 9), moment(10));
    gate.throttle(ROUTE, secs(60), &trial(9, 9), moment(10));
    assert_eq!(gate.passage(ROUTE, at(20)), Passage::Closed(Some(at(70))));
    assert_eq!(gate.passage(ROUTE, at(70)), Passage::Probe);
    gate.pause(moment(71));
    assert_eq!(gate.passage(ROUTE, at(72)), Passage::Closed(None));
}

#[test]
fn an_operator_who_resumes_probes_what_is_blocked_now() {
    let mut gate = gate();
    for sent in [9, 10, 12, 30] {
        gate.hold_until_probe(
            HoldKind::Blocked,
            ROUTE,
            &trial(sent, sent),
            moment(sent + 1),
        );
    }
    assert!(matches!(gate.passage(ROUTE, at(32)), Passage::Closed(_)));
    assert_eq!(gate.probe_now(at(32)), 1);
    assert_eq!(gate.passage(ROUTE, at(32)), Passage::Probe);
}

#[test]
fn holds_of_five_seconds_or_more_are_kept_and_forgotten_when_they_end() {
    let mut gate = gate();
    gate.throttle(ROUTE, secs(4), &trial(1, 4), moment(1));
    gate.hold_until_probe(HoldKind::Outage, ROUTE, &trial(1, 1), moment(1));
    assert_eq!(gate.take_changes(), []);
    gate.throttle(ROUTE, secs(60), &trial(1, 4), moment(2));
    gate.hold_until_probe(HoldKind::Outage, ROUTE, &trial(3, 3), moment(3));
    gate.pause(moment(4));
    gate.pause(moment(5));
    let put: Vec<String> = gate
        .take_changes()
        .into_iter()
        .map(|change| match change {
            HoldChange::Put(stored) => stored.key.name,
            HoldChange::Remove(key) => panic!("{key:?} is in force"),
        })
        .collect();
    assert_eq!(put, ["throttled:deliver", "outage:deliver", "operator:all"]);
    gate.expire(at(100));
    gate.disproved(HoldKind::Outage, ROUTE, 100);
    gate.unpause();
    let gone = gate.take_changes();
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert!(gone.iter().all(|c| matches!(c, HoldChange::Remove(_))));
}

#[test]
fn a_gate_needs_a_person_if_any_hold_does() {
    let mut gate = gate();
    assert_eq!(gate_view(gate.views(moment(1))).state, GateState::Open);
    gate.throttle(ROUTE, secs(60), &trial(1, 4), moment(1));
    assert_eq!(gate_view(gate.views(moment(1))).state, GateState::Paused);
    gate.hold_until_probe(HoldKind::Blocked, ROUTE, &trial(1, 1), moment(1));
    let view = gate_view(gate.views(moment(1)));
    assert_eq!(view.state, GateState::Blocked);
    assert_eq!(
        view.holds[0].until.as_deref(),
        Some("1970-01-01T00:01:01.000Z")
    );
}
