//! Several chunks in one request: which may go together now, taking them from the store, and what a refusal of all of them
//! does. `policy::grouping` decides.

use std::time::Duration;

use super::facts::Case;
use super::hold::HoldKind;
use super::judge::{Judgement, reopen_route};
use super::lane::{Kind, Lane};
use super::scheduler::{Scheduler, Turn};
use super::session::{Session, Work};
use crate::clock::Instant;
use crate::model::{ChunkMeta, FailureClass, FailureRecord};
use crate::policy::grouping::{Group, Limits, Member, Refused};
use crate::policy::retry::Settle;
use crate::store::{Head, Lease, StoreError};

impl Scheduler {
    /// The turn has taken more than its first chunk.
    pub fn grew(&mut self, turn: &Turn, by: u64) {
        self.fairness.charge_more(turn.lane, by);
    }
}

/// What a turn of the session may take. A chunk whose own fate is in question goes alone: a verdict on several would be
/// evidence against none.
pub fn most(lane: &Lane, session: &Session, work: &Work, kind: Kind, now: Instant) -> Limits {
    let suspect = session
        .refusals
        .as_ref()
        .is_some_and(|r| r.suspect.is_some());
    let alone = kind == Kind::Probe
        || work.late
        || work.counted > 0
        || work.crashes > 0
        || suspect
        || work.owed <= 1;
    if alone {
        return Limits::ALONE;
    }
    let rules = lane.rules.group;
    // Without a verdict the same group goes again.
    let undecided = match session.tries.parts {
        0 => u32::MAX,
        parts => parts,
    };
    let halved = session.halving.most(work.sequence);
    Limits {
        max_chunks: rules.max_chunks.min(undecided).min(halved),
        max_bytes: rules
            .max_bytes
            .min(lane.learned.limit(now.0).unwrap_or(u64::MAX)),
        ..rules
    }
}

/// The chunks behind the first that come along. Blocks.
pub fn company(first: &Lease, most: Limits) -> Result<Vec<Lease>, StoreError> {
    let mut company: Vec<Lease> = Vec::new();
    let mut group = Group::of(most, &member(first.head(), first.meta()));
    while !group.is_full() {
        let last = company.last().unwrap_or(first);
        let next = last.following(|head, meta| group.admits(&member(head, meta)))?;
        match next {
            Some(next) => company.push(next),
            None => break,
        }
    }
    Ok(company)
}

fn member<'a>(head: &Head, meta: &'a ChunkMeta) -> Member<'a> {
    Member {
        bytes: meta.bytes,
        duration: Duration::from_millis(meta.duration_ms),
        host: meta.host.as_str(),
        media_type: &meta.media_type,
        last: meta.last,
        failures: head.failures,
        crashes: head.crashes,
        waits: !head.ready_in.is_zero(),
    }
}

/// The whole group was refused, which is evidence against none of its chunks: a smaller one goes next, down to one chunk,
/// which is then judged by itself.
pub fn break_up(lane: &mut Lane, case: &Case, refused: Refused) -> Judgement {
    let (turn, record) = (case.turn, &case.failure.record);
    if record.class != FailureClass::Damaged {
        reopen_route(lane, HoldKind::Outage, case.failure.route, case);
    }
    if refused == Refused::TooLarge {
        lane.learned.too_large(turn.bytes, case.at.now.0);
    }
    if let Some(session) = lane.sessions.get_mut(&turn.session) {
        session.tries.sequence = turn.sequence;
        session.tries.sent = session.tries.sent.saturating_add(1);
        session.tries.in_doubt = false;
        session.tries.parts = 0;
        if refused == Refused::OneOfThem {
            session.halving.refused(turn.sequence, turn.parts);
        }
    }
    let record = FailureRecord {
        next_try_at: Some(case.at.wall),
        ..record.clone()
    };
    lane.last_failure = Some((turn.chunk_key(), record.clone()));
    Judgement {
        settle: Settle::Release,
        record,
    }
}

/// The decision for a group would have used up a retry: it goes again by halves.
pub fn halve(lane: &mut Lane, turn: &Turn) {
    if let Some(session) = lane.sessions.get_mut(&turn.session) {
        session.tries.parts = 0;
        session.halving.refused(turn.sequence, turn.parts);
    }
}
