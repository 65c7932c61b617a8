//! What an answer does to its lane: facts are gathered, `policy::retry` decides, and the decision is applied to
//! session, gate, limit and evidence. What it means for the lease goes back to the shell.

use std::time::Duration;

use super::facts::{self, Case, Failure};
use super::gate::{Moment, Trial};
use super::group;
use super::hold::HoldKind;
use super::lane::{Lane, ROUTE, ROUTES};
use super::pace::SOON;
use super::scheduler::{Scheduler, Turn};
use super::session::{Refusals, Tries};
use super::words;
use crate::clock::Instant;
use crate::model::{FailureClass, FailureRecord, Route, Timestamp};
use crate::platform::Limits;
use crate::policy::grouping;
use crate::policy::retry::{self, Disposition, RouteHold, Settle};

/// What happens to the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub settle: Settle,
    /// With the next try filled in.
    pub record: FailureRecord,
}

impl Scheduler {
    /// A receipt came.
    pub fn delivered(&mut self, turn: &Turn, limits: &Limits, at: Moment, draw: f64) {
        let lane = &mut self.lanes[turn.lane];
        lane.evidence.delivered(&turn.session, turn.number);
        if let Some(session) = lane.sessions.get_mut(&turn.session) {
            session.refusals = None;
            session.tries = Tries::default();
        }
        let kinds = [HoldKind::Outage, HoldKind::Blocked];
        reopen(lane, &kinds, turn.number, at.now);
        lane.limit.delivered(lane.in_flight);
        retry_suspects(lane, turn.number, at.now);
        lane.tally.delivered.chunks += u64::from(turn.parts);
        lane.tally.delivered.bytes += turn.bytes;
        lane.tally.last_delivery = Some((at.now, at.wall));
        lane.rate.add(turn.bytes, at.now);
        self.heard(turn, limits, at);
        self.heed_budget(turn, limits, at, draw);
        self.collect_changes(turn.lane);
    }

    /// No receipt came.
    pub fn failed(
        &mut self,
        turn: &Turn,
        failure: Failure,
        limits: &Limits,
        at: Moment,
        draw: f64,
    ) -> Judgement {
        let case = Case {
            turn,
            failure: &failure,
            youngest: self.youngest,
            at,
            draw,
        };
        let record = &failure.record;
        let refused = grouping::refused(record.class, record.status).filter(|_| turn.parts > 1);
        if let Some(refused) = refused {
            let judgement = group::break_up(&mut self.lanes[turn.lane], &case, refused);
            self.heard(turn, limits, at);
            self.collect_changes(turn.lane);
            return judgement;
        }
        let lane = &mut self.lanes[turn.lane];
        note(lane, &case);
        let facts = facts::gather(lane, &case);
        let mut disposition = retry::decide(&facts, draw);
        if turn.parts > 1 {
            let (shared, halve) = grouping::shared_out(disposition);
            disposition = shared;
            if halve {
                group::halve(lane, turn);
            }
        }
        apply(lane, &case, disposition);
        hold_route(lane, &case, disposition.route);
        self.heard(turn, limits, at);
        // A storage host has a budget of its own.
        let of_domain = failure.route != Route::StoreHost;
        if let Some(RouteHold::Throttle(wait)) = disposition.route.filter(|_| of_domain) {
            self.throttle_domain(wait, &trial(&case), turn, at);
        }
        self.heed_budget(turn, limits, at, draw);
        let lane = &mut self.lanes[turn.lane];
        let record = FailureRecord {
            next_try_at: next_try(lane, disposition, at),
            ..failure.record
        };
        lane.last_failure = Some((turn.chunk_key(), record.clone()));
        self.collect_changes(turn.lane);
        Judgement {
            settle: disposition.settle,
            record,
        }
    }

    /// Whoever spends the same budget waits too.
    fn throttle_domain(&mut self, wait: Duration, trial: &Trial, turn: &Turn, at: Moment) {
        let domain = self.lanes[turn.lane].domain;
        self.pacers.pause(domain, at.now.saturating_add(wait));
        for lane in self.lanes_of(domain) {
            self.lanes[lane].gate.throttle(ROUTE, wait, trial, at);
            self.collect_changes(lane);
        }
    }

    /// Nothing is left of a budget that is not given again soon, such as a day's: the lane says so and waits, also over a
    /// restart. What comes back within minutes is the pacer's business.
    fn heed_budget(&mut self, turn: &Turn, limits: &Limits, at: Moment, draw: f64) {
        let (Some(0), Some(reset_in)) = (limits.remaining, limits.reset_in) else {
            return;
        };
        if reset_in <= SOON {
            return;
        }
        let trial = Trial {
            number: turn.number,
            youngest: self.youngest,
            words: words::budget_used_up(limits.allowed),
            record: None,
            draw,
        };
        let wait = retry::pause(Some(reset_in), 1, draw);
        self.throttle_domain(wait, &trial, turn, at);
    }

    /// The store has set the turn's chunk aside.
    pub fn buried(&mut self, turn: &Turn, unproven: bool) {
        let lane = &mut self.lanes[turn.lane];
        lane.evidence.condemned_one |= unproven;
        lane.tally.dead.chunks += 1;
        lane.tally.dead.bytes += turn.bytes;
        if let Some(session) = lane.sessions.get_mut(&turn.session) {
            session.refusals = None;
        }
    }
}

/// What the failure shows by itself, before anything is decided.
fn note(lane: &mut Lane, case: &Case) {
    let (turn, record) = (case.turn, &case.failure.record);
    if case.failure.is_silence() {
        lane.evidence.failed(&turn.session);
        if matches!(record.status, None | Some(502..=504)) {
            lane.limit.overwhelmed(turn.number, case.youngest);
        }
    } else {
        reopen_route(lane, HoldKind::Outage, case.failure.route, case);
    }
    if case.failure.route == Route::StoreHost {
        // The platform answered before the storage host was asked.
        reopen_route(lane, HoldKind::Outage, ROUTE, case);
    }
    let Some(session) = lane.sessions.get_mut(&turn.session) else {
        return;
    };
    let tries = &mut session.tries;
    tries.sequence = turn.sequence;
    tries.sent = tries.sent.saturating_add(1);
    tries.parts = turn.parts;
    tries.in_doubt = record.class == FailureClass::InDoubt;
    if !matches!(
        record.class,
        FailureClass::Throttled | FailureClass::Unauthorized
    ) {
        tries.failed = tries.failed.saturating_add(1);
    }
    if let Some(before) = case.failure.failing_for {
        let first = Instant(case.at.now.0.saturating_sub(before));
        tries.first_counted_at.get_or_insert(first);
    }
    if case.failure.is_refusal() {
        let refusals = session.refusals.get_or_insert(Refusals {
            class: record.class,
            in_a_row: 0,
            first_after: case.youngest,
            last_after: 0,
            until: case.at.now,
            suspect: None,
            record: None,
        });
        refusals.class = record.class;
        refusals.in_a_row = refusals.in_a_row.saturating_add(1);
        refusals.last_after = case.youngest;
        refusals.record = Some(record.clone());
        lane.note_refused(&turn.session);
    }
}

fn apply(lane: &mut Lane, case: &Case, disposition: Disposition) {
    let now = case.at.now;
    let Some(session) = lane.sessions.get_mut(&case.turn.session) else {
        return;
    };
    session.tries.last_after = Some(case.youngest);
    if matches!(disposition.settle, Settle::Nack { counted: true, .. }) {
        session.tries.last_counted_at = Some(now);
        session.tries.first_counted_at.get_or_insert(now);
    }
    if let Some(hold) = disposition.session {
        let until = now.saturating_add(hold.wait);
        match &mut session.refusals {
            Some(refusals) if case.failure.is_refusal() => refusals.until = until,
            _ => session.rest_until = Some(until),
        }
    }
    if case.failure.record.class == FailureClass::Rejected
        && let Some(refusals) = &mut session.refusals
    {
        refusals.suspect = Some(case.turn.sequence);
    }
}

fn trial(case: &Case) -> Trial {
    Trial {
        number: case.turn.number,
        youngest: case.youngest,
        words: case.failure.words.clone(),
        record: Some(case.failure.record.clone()),
        draw: case.draw,
    }
}

fn hold_route(lane: &mut Lane, case: &Case, hold: Option<RouteHold>) {
    let record = &case.failure.record;
    let trial = trial(case);
    let (gate, route) = (&mut lane.gate, case.failure.route);
    match hold {
        Some(RouteHold::Throttle(wait)) => gate.throttle(route, wait, &trial, case.at),
        Some(RouteHold::Outage) => {
            gate.hold_until_probe(HoldKind::Outage, route, &trial, case.at);
        }
        Some(RouteHold::Block) => {
            gate.hold_until_probe(HoldKind::Blocked, route, &trial, case.at);
        }
        None => {}
    }
    if hold != Some(RouteHold::Block) {
        if record.class == FailureClass::Rejected {
            // The refusal that blocked the route is not given any more: what is wrong is the chunk.
            reopen(lane, &[HoldKind::Blocked], case.turn.number, case.at.now);
        } else {
            for route in ROUTES {
                gate.probe_again(HoldKind::Blocked, route, &trial, case.at.now);
            }
        }
    }
    lane.put_all_in_place(case.at.now);
}

/// Holds that request `number` has disproved go; sessions that waited under them may be tried at once.
fn reopen(lane: &mut Lane, kinds: &[HoldKind], number: u64, now: Instant) {
    let mut reopened = false;
    for kind in kinds {
        for route in ROUTES {
            reopened |= lane.gate.disproved(*kind, route, number);
        }
    }
    if reopened {
        try_again(lane, now);
    }
}

/// The same of one route.
pub fn reopen_route(lane: &mut Lane, kind: HoldKind, route: Route, case: &Case) {
    if lane.gate.disproved(kind, route, case.turn.number) {
        try_again(lane, case.at.now);
    }
}

fn try_again(lane: &mut Lane, now: Instant) {
    lane.limit.start_again();
    for id in lane.refused_sessions() {
        let refusals = lane
            .sessions
            .get_mut(&id)
            .and_then(|session| session.refusals.as_mut());
        if let Some(refusals) = refusals.filter(|refusals| refusals.suspect.is_none()) {
            refusals.until = refusals.until.min(now);
        }
    }
    lane.put_all_in_place(now);
}

/// A delivery of a request sent after a suspect's refusal shows that its route works: tried once more, the chunk
/// is delivered or condemned. Not condemned unheard, because the platform may have refused everything when
/// it refused this one.
fn retry_suspects(lane: &mut Lane, number: u64, now: Instant) {
    for id in lane.refused_sessions() {
        let refusals = lane
            .sessions
            .get_mut(&id)
            .and_then(|session| session.refusals.as_mut());
        let suspect = refusals.filter(|r| r.suspect.is_some() && number > r.first_after);
        if let Some(refusals) = suspect {
            refusals.until = refusals.until.min(now);
            lane.put_in_place(&id, now);
        }
    }
}

/// When the chunk is tried again, as far as it can be said.
fn next_try(lane: &Lane, disposition: Disposition, at: Moment) -> Option<Timestamp> {
    let delay = match disposition.settle {
        Settle::Bury { .. } => return None,
        Settle::Nack { delay, .. } => delay,
        Settle::Release => Duration::ZERO,
    };
    let session = disposition.session.map_or(Duration::ZERO, |hold| hold.wait);
    let gate = lane
        .gate
        .holds()
        .filter_map(|(_, hold)| hold.until)
        .map(|until| until.since(at.now))
        .max()
        .unwrap_or_default();
    Some(at.wall.saturating_add(delay.max(session).max(gate)))
}
