//! The scheduler and the judge together, without a shell: a test plays platform and store.

use std::time::Duration;

use super::*;
use crate::engine::facts::Failure;
use crate::engine::gate::Passage;
use crate::engine::hold::{HoldKind, Words};
use crate::engine::judge::Judgement;
use crate::engine::lane::ROUTE;
use crate::model::{FailureClass as C, FailureRecord, Timestamp};
use crate::platform::Limits;
use crate::policy::retry::{self, Settle};

const RULES: LaneRules = LaneRules {
    concurrency: 4,
    ..LaneRules::UNKNOWN
};

/// A scheduler, a clock, and the next sequence of every session.
struct Table {
    scheduler: Scheduler,
    now: Instant,
    crashes: HashMap<SessionId, u32>,
    next: HashMap<SessionId, u64>,
}

fn id(name: &str) -> SessionId {
    name.parse().unwrap()
}

fn record(class: C) -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class,
        status: None,
        code: None,
        correlation_id: None,
        fields: vec![],
        missing: None,
        message: String::new(),
        body: String::new(),
        token_generation: None,
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}

impl Table {
    /// Lanes with sessions that never run out of chunks.
    fn new(workers: usize, lanes: &[(&str, &[&str])]) -> Self {
        let mut table = Self {
            scheduler: Scheduler::new(workers, u64::MAX),
            now: Instant(Duration::from_secs(10_000)),
            crashes: HashMap::new(),
            next: HashMap::new(),
        };
        for (tenant, sessions) in lanes {
            let lane = table.scheduler.add_lane(tenant.parse().unwrap(), RULES);
            for session in *sessions {
                table.look(lane, &id(session));
            }
        }
        table
    }

    fn at(&self) -> Moment {
        let wall = Timestamp(i64::try_from(self.now.0.as_millis()).unwrap());
        Moment::new(self.now, wall)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
    }

    fn head(&self, session: &SessionId) -> Head {
        let sequence = self.next.get(session).copied().unwrap_or(0);
        Head {
            sequence,
            number: sequence,
            bytes: 1000,
            accepted_at: self.at().wall,
            ready_in: Duration::ZERO,
            failures: 0,
            crashes: self.crashes.get(session).copied().unwrap_or(0),
            late: false,
            promoted: false,
            gaps: vec![],
            owed: 1,
        }
    }

    fn look(&mut self, lane: usize, session: &SessionId) {
        let head = self.head(session);
        self.scheduler.look(lane, session, Some(&head), self.at());
    }

    fn turn(&mut self) -> Option<Turn> {
        match self.scheduler.pick(self.now) {
            Pick::Turn(turn) => {
                self.scheduler.begin(&turn);
                Some(turn)
            }
            Pick::Wait(_) => None,
        }
    }

    /// Every turn that can be had now.
    fn turns(&mut self) -> Vec<Turn> {
        std::iter::from_fn(|| self.turn()).collect()
    }

    fn finish(&mut self, turn: &Turn) {
        let head = self.head(&turn.session);
        self.scheduler.finish(turn, Ok(Some(&head)), self.at());
    }

    fn deliver(&mut self, turn: &Turn) {
        *self.next.entry(turn.session.clone()).or_default() += 1;
        self.scheduler
            .delivered(turn, &Limits::default(), self.at(), 0.0);
        self.finish(turn);
    }

    fn fail_with(&mut self, turn: &Turn, record: FailureRecord) -> Judgement {
        let failure = Failure {
            route: ROUTE,
            record,
            hint: None,
            credential: None,
            intact: true,
            failing_for: None,
            words: Words::default(),
        };
        let at = self.at();
        let judgement = self
            .scheduler
            .failed(turn, failure, &Limits::default(), at, 0.0);
        if let Settle::Bury { unproven, .. } = judgement.settle {
            *self.next.entry(turn.session.clone()).or_default() += 1;
            self.scheduler.buried(turn, unproven);
        }
        self.finish(turn);
        judgement
    }

    fn fail(&mut self, turn: &Turn, class: C) -> Judgement {
        self.fail_with(turn, record(class))
    }

    fn has(&self, kind: HoldKind) -> bool {
        self.scheduler.lanes[0].gate.get(kind, ROUTE).is_some()
    }
}

fn names(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| turn.session.as_str()).collect()
}

#[test]
fn a_session_has_one_request_in_flight_and_sessions_come_in_turn() {
    let mut table = Table::new(16, &[("acme", &["a", "b", "c"])]);
    let mut turns = table.turns();
    assert_eq!(names(&turns), ["a", "b", "c"]);
    table.deliver(&turns.remove(1));
    table.deliver(&turns.remove(0));
    let again = table.turns();
    assert_eq!(names(&again), ["b", "a"]);
    assert!(again.iter().all(|turn| turn.sequence == 1));
}

#[test]
fn neither_the_lanes_concurrency_nor_the_pool_is_exceeded() {
    let sessions = ["a", "b", "c", "d", "e", "f"];
    let mut table = Table::new(6, &[("acme", &sessions), ("globex", &sessions)]);
    let turns = table.turns();
    let of_acme = turns.iter().filter(|turn| turn.lane == 0).count();
    assert_eq!((turns.len(), of_acme), (6, 4));
}

#[test]
fn a_chunk_that_once_ended_the_process_goes_last_and_alone_of_its_kind() {
    let mut table = Table::new(16, &[("acme", &["a", "b", "c"])]);
    for crashed in ["a", "b"] {
        table.crashes.insert(id(crashed), 1);
        table.look(0, &id(crashed));
    }
    let turns = table.turns();
    assert_eq!(names(&turns), ["c", "a"]);
    assert_eq!(names(&table.turns()), [] as [&str; 0]);
    table.finish(&turns[1]);
    assert_eq!(names(&table.turns()), ["b"]);
}

#[test]
fn two_refused_sessions_hold_the_route_and_each_probe_is_another_session() {
    let mut table = Table::new(1, &[("acme", &["a", "b", "c"])]);
    for _ in 0..2 {
        let turn = table.turn().unwrap();
        assert_eq!(table.fail(&turn, C::Forbidden).settle, Settle::Release);
    }
    assert!(table.has(HoldKind::Blocked));
    assert_eq!(table.turn(), None, "c waits for the probe");
    let mut probed = Vec::new();
    for wait in [2, 10, 30] {
        table.pass(wait);
        let turn = table.turn().unwrap();
        assert_eq!(turn.kind, Kind::Probe);
        assert_eq!(table.turn(), None, "one probe at a time");
        probed.push(turn.session.as_str().to_owned());
        table.fail(&turn, C::Forbidden);
    }
    probed.sort();
    assert_eq!(probed, ["a", "b", "c"]);
    table.pass(60);
    let turn = table.turn().unwrap();
    table.deliver(&turn);
    assert!(!table.has(HoldKind::Blocked));
}

#[test]
fn a_delivery_sent_before_the_hold_does_not_end_it() {
    let mut table = Table::new(16, &[("acme", &["a", "b", "c"])]);
    let turns = table.turns();
    table.pass(1);
    table.fail(&turns[0], C::Forbidden);
    table.fail(&turns[1], C::Forbidden);
    table.deliver(&turns[2]);
    assert!(table.has(HoldKind::Blocked));
    assert_eq!(table.turn(), None);
}

#[test]
fn one_refused_session_does_not_delay_the_others() {
    let mut table = Table::new(1, &[("acme", &["a", "b", "c"])]);
    let mut delivered = 0;
    for _ in 0..300 {
        table.pass(1);
        let turn = table.turn().expect("something can be sent every second");
        if turn.session == id("b") {
            table.fail(&turn, C::Forbidden);
        } else {
            table.deliver(&turn);
            delivered += 1;
        }
    }
    assert!(!table.has(HoldKind::Blocked));
    assert!(delivered > 285, "{delivered}");
}

#[test]
fn a_suspect_is_condemned_by_a_later_delivery_and_not_by_an_earlier_one() {
    let mut table = Table::new(16, &[("acme", &["a", "b", "c"])]);
    let turns = table.turns();
    table.pass(1);
    let judgement = table.fail(&turns[0], C::Rejected);
    assert_eq!(judgement.settle, Settle::Release);
    table.deliver(&turns[1]);
    let sent_later = table.turn().unwrap();
    assert_eq!(table.turn(), None, "b was sent before the refusal");
    table.deliver(&sent_later);
    let again = table.turns().into_iter().find(|t| t.session == id("a"));
    let again = again.expect("the suspect is tried at once");
    let Settle::Bury { unproven, .. } = table.fail(&again, C::Rejected).settle else {
        panic!("refused although its route works");
    };
    assert!(!unproven);
}

#[test]
fn suspects_in_three_sessions_hold_the_route_and_bury_nothing() {
    let mut table = Table::new(1, &[("acme", &["a", "b", "c", "d"])]);
    for _ in 0..3 {
        let turn = table.turn().unwrap();
        assert_eq!(table.fail(&turn, C::Rejected).settle, Settle::Release);
    }
    assert!(table.has(HoldKind::Blocked));
    for _ in 0..50 {
        table.pass(900);
        let turn = table.turn().unwrap();
        assert_eq!(table.fail(&turn, C::Rejected).settle, Settle::Release);
    }
}

#[test]
fn a_poisoned_chunk_in_a_single_session_is_buried_and_a_second_is_not() {
    let mut table = Table::new(1, &[("acme", &["a"])]);
    let mut settled = Vec::new();
    for _ in 0..20 {
        table.pass(900);
        let turn = table.turn().unwrap();
        let buried = matches!(table.fail(&turn, C::Rejected).settle, Settle::Bury { .. });
        settled.push(buried);
    }
    assert_eq!(settled.iter().filter(|buried| **buried).count(), 1);
    assert!(settled[3], "after three refusals and three retries");
    assert!(table.has(HoldKind::Blocked));
    table.pass(900);
    let turn = table.turn().unwrap();
    table.deliver(&turn);
    assert!(!table.has(HoldKind::Blocked));
}

#[test]
fn an_outage_is_ended_by_any_definite_answer() {
    for class in [C::Forbidden, C::Throttled, C::Unauthorized, C::Rejected] {
        let mut table = Table::new(1, &[("acme", &["a"])]);
        let turn = table.turn().unwrap();
        table.fail(&turn, C::Transient);
        assert!(table.has(HoldKind::Outage));
        table.pass(2);
        let turn = table.turn().unwrap();
        table.fail(&turn, class);
        assert!(!table.has(HoldKind::Outage), "{class}");
    }
}

#[test]
fn a_block_is_not_ended_by_an_answer_that_is_no_delivery() {
    for class in [C::Transient, C::Throttled, C::Unauthorized, C::Endpoint] {
        let mut table = Table::new(1, &[("acme", &["a"])]);
        let turn = table.turn().unwrap();
        table.fail(&turn, C::Forbidden);
        table.pass(2);
        let turn = table.turn().unwrap();
        table.fail(&turn, class);
        assert!(table.has(HoldKind::Blocked), "{class}");
        let Passage::Closed(Some(until)) = table.scheduler.lanes[0].passage(table.now) else {
            panic!("{class}: the next probe comes later");
        };
        assert!(until > table.now);
    }
}

#[test]
fn after_a_throttle_one_request_goes_and_then_the_limit_doubles() {
    let sessions = ["a", "b", "c", "d", "e"];
    let mut table = Table::new(16, &[("acme", &sessions)]);
    let turns = table.turns();
    for turn in &turns {
        table.fail(turn, C::Throttled);
    }
    assert_eq!(table.turns().len(), 0);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        table.pass(1);
        let turns = table.turns();
        sizes.push(turns.len());
        for turn in &turns {
            table.deliver(turn);
        }
    }
    assert_eq!(sizes, [1, 2, 4]);
}

#[test]
fn an_exhausted_budget_holds_the_lane_before_a_throttle_comes() {
    let mut table = Table::new(1, &[("acme", &["a", "b"])]);
    let turn = table.turn().unwrap();
    let limits = Limits {
        allowed: Some(300),
        remaining: Some(0),
        reset_in: Some(Duration::from_secs(40)),
    };
    let at = table.at();
    table.scheduler.delivered(&turn, &limits, at, 0.0);
    table.finish(&turn);
    table.pass(39);
    assert_eq!(table.turn(), None);
    table.pass(1);
    assert!(table.turn().is_some());
}

#[test]
fn a_request_in_doubt_is_repeated_before_others_are_sent() {
    let mut table = Table::new(1, &[("acme", &["a", "b", "c"])]);
    let turn = table.turn().unwrap();
    table.fail(&turn, C::InDoubt);
    assert_eq!(table.turn().unwrap().session, turn.session);
}

#[test]
fn tenants_share_the_pool_by_bytes() {
    let sessions = ["a", "b", "c", "d"];
    let mut table = Table::new(1, &[("acme", &sessions), ("globex", &["z"])]);
    let mut sent = [0; 2];
    for _ in 0..400 {
        let turn = table.turn().unwrap();
        sent[turn.lane] += 1;
        table.deliver(&turn);
    }
    assert!(u32::abs_diff(sent[0], sent[1]) <= 8, "{sent:?}");
}

#[test]
fn a_tenant_that_nobody_configured_waits_and_is_named() {
    let mut table = Table::new(1, &[]);
    let tenant: TenantId = "ghost".parse().unwrap();
    let session = id("s");
    let key = SessionKey { tenant, session };
    table.scheduler.arrived(key, table.at());
    let unread = table.scheduler.take_unread(8);
    assert_eq!(unread.len(), 1);
    table.look(unread[0].0, &unread[0].1.session);
    assert_eq!(table.turn(), None);
    assert!(table.has(HoldKind::NotConfigured));
}

#[test]
fn news_of_a_session_in_flight_are_read_when_it_ends() {
    let mut table = Table::new(1, &[("acme", &["a"])]);
    let turn = table.turn().unwrap();
    table.scheduler.arrived(turn.session_key(), table.at());
    assert_eq!(table.scheduler.take_unread(8), []);
    let at = table.at();
    table.scheduler.finish(&turn, Ok(None), at);
    assert_eq!(table.scheduler.take_unread(8).len(), 1);
}

#[test]
fn counted_retries_need_deliveries_of_others_between_two_tries() {
    let mut table = Table::new(1, &[("acme", &["a", "b"])]);
    let mut counted = 0;
    for _ in 0..40 {
        table.pass(1000);
        for turn in std::iter::from_fn(|| table.turn()).collect::<Vec<_>>() {
            if turn.session == id("a") {
                let settle = table.fail(&turn, C::Transient).settle;
                counted += u32::from(matches!(settle, Settle::Nack { counted: true, .. }));
            } else {
                table.deliver(&turn);
            }
        }
    }
    assert!(counted >= 15, "{counted}");

    let mut table = Table::new(1, &[("acme", &["a", "b"])]);
    for _ in 0..200 {
        table.pass(1000);
        let Some(turn) = table.turn() else { continue };
        let settle = table.fail(&turn, C::Transient).settle;
        assert!(matches!(settle, Settle::Nack { counted: false, .. }));
    }
}

#[test]
fn the_same_pick_is_given_until_it_is_begun() {
    let mut table = Table::new(4, &[("acme", &["a"]), ("globex", &["b"])]);
    let first = table.scheduler.pick(table.now);
    assert_eq!(table.scheduler.pick(table.now), first);
}

#[test]
fn a_turn_is_not_begun_if_its_gate_closed_since_it_was_picked() {
    let mut table = Table::new(4, &[("acme", &["a"])]);
    let Pick::Turn(turn) = table.scheduler.pick(table.now) else {
        panic!("a turn can be had");
    };
    let at = table.at();
    table.scheduler.pause(0, at);
    assert!(!table.scheduler.begin_if_unchanged(&turn));
    assert_eq!(table.scheduler.in_flight(), 0);
    table.scheduler.resume(0, table.now);
    assert!(table.scheduler.begin_if_unchanged(&turn));
}

#[test]
fn throttles_grow_the_own_pause_once_a_round() {
    assert_eq!(
        retry::pause(None, 1, 1.0),
        Duration::from_secs(1),
        "the first pause"
    );
    let mut table = Table::new(16, &[("acme", &["a", "b", "c", "d"])]);
    for turn in table.turns() {
        table.fail(&turn, C::Throttled);
    }
    let Passage::Closed(Some(until)) = table.scheduler.lanes[0].passage(table.now) else {
        panic!("the lane is throttled");
    };
    assert!(until.since(table.now) <= Duration::from_secs(1));
}

#[test]
fn large_requests_wait_for_the_byte_budget_and_none_overtakes_them() {
    let mut table = Table::new(16, &[("acme", &["a", "b", "c", "d"])]);
    table.scheduler.bytes = ByteBudget::new(2500);
    let turns = table.turns();
    assert_eq!(turns.len(), 2, "1000 bytes each");
    table.deliver(&turns[0]);
    assert_eq!(table.turns().len(), 1);
}
