//! What is known when a request has failed, in the form that `policy::retry` decides by.

use std::time::Duration;

use super::gate::Moment;
use super::hold::{HoldKind, Words};
use super::lane::Lane;
use super::scheduler::Turn;
use super::session::Refusals;
use crate::model::{FailureClass, FailureRecord, Route};
use crate::policy::retry::{self, Chunk, Credential, Facts, Failed, Session};

/// A failed request, with what only the shell could find out.
#[derive(Debug, Clone)]
pub struct Failure {
    pub record: FailureRecord,
    pub hint: Option<Duration>,
    /// What the token slot said about a 401.
    pub credential: Option<Credential>,
    /// The stored bytes still match their digest.
    pub intact: bool,
    /// How long ago the chunk's stored history begins, where it has counted failures of an earlier process.
    pub failing_for: Option<Duration>,
    /// What a hold that it causes says.
    pub words: Words,
    /// Who failed, or was not reached.
    pub route: Route,
}

impl Failure {
    /// The platform refused this session's chunk; a 401 is that only where the slot says so.
    pub fn is_refusal(&self) -> bool {
        match self.record.class {
            FailureClass::Unrecognised
            | FailureClass::Forbidden
            | FailureClass::Endpoint
            | FailureClass::PurviewPending
            | FailureClass::Rejected => true,
            FailureClass::Unauthorized => self.credential == Some(Credential::HoldSession),
            _ => false,
        }
    }

    /// No definite answer came from what is behind the route.
    pub fn is_silence(&self) -> bool {
        match self.record.class {
            FailureClass::Transient => true,
            FailureClass::InDoubt => self.record.status.is_none(),
            _ => false,
        }
    }
}

/// One failure to judge.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub turn: &'a Turn,
    pub failure: &'a Failure,
    /// The number of the youngest request sent so far.
    pub youngest: u64,
    pub at: Moment,
    pub draw: f64,
}

pub fn gather(lane: &mut Lane, case: &Case) -> Facts {
    let route = route(lane, case);
    let session = &lane.sessions[&case.turn.session];
    let (tries, record, now) = (&session.tries, &case.failure.record, case.at.now);
    let delivered_by_others = lane.evidence.delivered_by_others(&case.turn.session);
    Facts {
        failed: Failed {
            class: record.class,
            status: record.status,
            hint: case.failure.hint,
            credential: case.failure.credential,
            intact: case.failure.intact,
        },
        chunk: Chunk {
            counted: session.work.as_ref().map_or(0, |work| work.counted),
            tries: tries.failed,
            failing_for: tries
                .first_counted_at
                .map_or(Duration::ZERO, |at| now.since(at)),
            since_counted: tries.last_counted_at.map(|at| now.since(at)),
        },
        session: Session {
            refusals: session.refusals.as_ref().map_or(1, |r| r.in_a_row),
            others_delivered: tries
                .last_after
                .is_some_and(|last| delivered_by_others > last),
            alone: others_with_work(lane, case) == 0,
        },
        route,
        limits: lane.rules.limits,
    }
}

fn route(lane: &mut Lane, case: &Case) -> retry::Route {
    let record = &case.failure.record;
    let delivered = lane.evidence.delivered_youngest();
    let (mut refused, mut alike, mut suspects) = (0, 0, 0);
    for id in lane.refused_sessions() {
        let session = &lane.sessions[&id];
        let refused_since = |refusals: &&Refusals| refusals.last_after >= delivered;
        let Some(refusals) = session.refusals.as_ref().filter(refused_since) else {
            continue;
        };
        if id != case.turn.session && session.can_be_tried() {
            refused += 1;
            alike += usize::from(refusals.class == record.class);
            suspects += usize::from(refusals.suspect.is_some());
        }
    }
    let mine = lane.sessions[&case.turn.session].refusals.as_ref();
    let first_refused_after = mine.map_or(case.youngest, |refusals| refusals.first_after);
    let (failing, failing_several) = lane.evidence.failing();
    let throttles = match record.class {
        FailureClass::Throttled => lane.evidence.throttled(case.turn.number, case.youngest),
        _ => 0,
    };
    retry::Route {
        outage: lane
            .gate
            .get(HoldKind::Outage, case.failure.route)
            .is_some(),
        blocked: lane.gate.blocked_by(case.failure.route),
        refused_alike: alike,
        suspects,
        all_refused: refused > 0 && refused == others_with_work(lane, case),
        works: delivered > first_refused_after,
        failing,
        failing_several,
        throttles,
        condemned_one: lane.evidence.condemned_one,
    }
}

fn others_with_work(lane: &Lane, case: &Case) -> usize {
    lane.sessions
        .iter()
        .filter(|(other, session)| **other != case.turn.session && session.can_be_tried())
        .count()
}
