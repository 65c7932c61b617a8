//! How a lane stands in a drain: done, at work, or stuck; decided purely.

use std::time::Duration;

use super::gate::Passage;
use super::hold::{Hold, HoldKind};
use super::lane::Lane;
use super::session::{Missing, Place, Session, Wait};
use crate::auth::{CredentialHold, CredentialHoldKind};
use crate::clock::Instant;
use crate::model::Timestamp;

/// How a drain, or a tenant's part of it, ended; the worse, the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainOutcome {
    Drained,
    /// Everything was tried, and something died in this drain.
    DeadLeft,
    /// Out of time or patience.
    Deadline,
    Throttled,
    Unreachable,
    /// Only a person can help.
    Blocked,
    /// The store cannot go on.
    Storage,
}

/// Failed probes that make a drain give up.
const BLOCKED_PROBES: u32 = 1;
const OUTAGE_PROBES: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Working,
    Done,
    Stuck(Reason),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub outcome: DrainOutcome,
    pub words: String,
    pub until: Option<Instant>,
}

/// Probes that had failed when the drain began, so that each drain tries for itself.
#[derive(Debug, Clone, Default)]
pub struct Before {
    holds: Vec<(HoldKind, Timestamp, u32)>,
    credential: Option<(CredentialHoldKind, Timestamp, u32)>,
}

impl Before {
    pub fn of(lane: &Lane, credential: Option<&CredentialHold>) -> Self {
        let holds = lane.gate.holds();
        Self {
            holds: holds
                .map(|(id, hold)| (id.kind, hold.since, hold.probes_failed))
                .collect(),
            credential: credential.map(|hold| (hold.kind, hold.since, hold.probes_failed)),
        }
    }

    fn failed_since(&self, kind: HoldKind, hold: &Hold) -> u32 {
        let same =
            |(of, since, _): &&(HoldKind, Timestamp, u32)| *of == kind && *since == hold.since;
        let before = self.holds.iter().find(same).map_or(0, |(_, _, n)| *n);
        hold.probes_failed.saturating_sub(before)
    }

    fn credential_failed_since(&self, hold: &CredentialHold) -> u32 {
        match self.credential {
            Some((kind, since, before)) if (kind, since) == (hold.kind, hold.since) => {
                hold.probes_failed.saturating_sub(before)
            }
            _ => hold.probes_failed,
        }
    }
}

/// Whether a lane that still owes something inside the fence is at work or stuck.
pub fn standing(
    lane: &Lane,
    credential: Option<&CredentialHold>,
    before: &Before,
    patience: Duration,
    now: Instant,
) -> Standing {
    let within = now.saturating_add(patience);
    if let Some(reason) = closed_by_a_person(lane) {
        return Standing::Stuck(reason);
    }
    if lane.in_flight > 0 {
        return Standing::Working;
    }
    let reason = given_up_probing(lane, before)
        .or_else(|| closed_beyond(lane, within, now))
        .or_else(|| credential.and_then(|hold| of_credential(hold, before, within)))
        .or_else(|| sessions_beyond(lane, within));
    reason.map_or(Standing::Working, Standing::Stuck)
}

/// What is left of a drain whose time is over: a lane that only waited for what is missing says for what.
pub fn out_of_time(lane: &Lane) -> Reason {
    let only_waits = |session: &Session| {
        let place = session.placed.unwrap_or(Place::Idle);
        matches!(place, Place::Idle | Place::Waiting(_, Wait::Gap))
    };
    let waits = lane.in_flight == 0 && lane.sessions.values().all(only_waits);
    let gap = lane.longest_gap().filter(|_| waits);
    Reason {
        outcome: DrainOutcome::Deadline,
        words: match gap {
            Some((id, missing, _)) if missing.first == missing.last => {
                let first = missing.first;
                format!("sequence {first} of session {id} is missing, and waited for")
            }
            Some((id, Missing { first, last, .. }, _)) => {
                format!("sequences {first} to {last} of session {id} are missing, and waited for")
            }
            None => "out of time".to_owned(),
        },
        until: None,
    }
}

fn closed_by_a_person(lane: &Lane) -> Option<Reason> {
    [HoldKind::Operator, HoldKind::NotConfigured]
        .into_iter()
        .find_map(|kind| lane.hold(kind))
        .map(|hold| of_hold(DrainOutcome::Blocked, hold))
}

fn given_up_probing(lane: &Lane, before: &Before) -> Option<Reason> {
    [
        (HoldKind::Blocked, BLOCKED_PROBES, DrainOutcome::Blocked),
        (HoldKind::Outage, OUTAGE_PROBES, DrainOutcome::Unreachable),
    ]
    .into_iter()
    .find_map(|(kind, enough, outcome)| {
        let hold = lane.hold(kind)?;
        (before.failed_since(kind, hold) >= enough).then(|| of_hold(outcome, hold))
    })
}

fn closed_beyond(lane: &Lane, within: Instant, now: Instant) -> Option<Reason> {
    match lane.passage(now) {
        Passage::Closed(Some(until)) if until > within => {}
        _ => return None,
    }
    [
        (HoldKind::Throttled, DrainOutcome::Throttled),
        (HoldKind::Outage, DrainOutcome::Unreachable),
        (HoldKind::Blocked, DrainOutcome::Blocked),
    ]
    .into_iter()
    .filter_map(|(kind, outcome)| Some((lane.hold(kind)?, outcome)))
    .find(|(hold, _)| hold.until.is_some_and(|until| until > within))
    .map(|(hold, outcome)| of_hold(outcome, hold))
}

fn of_hold(outcome: DrainOutcome, hold: &Hold) -> Reason {
    Reason {
        outcome,
        words: hold.words.line(),
        until: hold.until,
    }
}

fn of_credential(hold: &CredentialHold, before: &Before, within: Instant) -> Option<Reason> {
    let failed = before.credential_failed_since(hold);
    let (outcome, given_up) = match hold.kind {
        CredentialHoldKind::Blocked => (DrainOutcome::Blocked, failed >= BLOCKED_PROBES),
        CredentialHoldKind::Outage => (DrainOutcome::Unreachable, failed >= OUTAGE_PROBES),
        CredentialHoldKind::Throttled => (DrainOutcome::Throttled, false),
    };
    (given_up || hold.until > within).then(|| Reason {
        outcome,
        words: match hold.remedy.as_str() {
            "" => hold.reason.clone(),
            remedy => format!("{}. {remedy}", hold.reason),
        },
        until: Some(hold.until),
    })
}

/// Every session waits for longer than the drain's patience, or for a person. Gaps are waited out.
fn sessions_beyond(lane: &Lane, within: Instant) -> Option<Reason> {
    let mut stuck: Option<Reason> = None;
    for session in lane.sessions.values() {
        if session.has_news() {
            return None;
        }
        let reason = match session.placed.unwrap_or(Place::Idle) {
            Place::Idle => continue,
            Place::Waiting(until, wait) if wait != Wait::Gap && until > within => Reason {
                outcome: match wait {
                    Wait::Refused => DrainOutcome::Blocked,
                    _ => DrainOutcome::Deadline,
                },
                words: wait.sentence().to_owned(),
                until: Some(until),
            },
            Place::Stuck(why) => Reason {
                outcome: DrainOutcome::Blocked,
                words: why.sentence().to_owned(),
                until: None,
            },
            _ => return None,
        };
        let worse = stuck.as_ref().is_none_or(|s| reason.outcome > s.outcome);
        if worse {
            stuck = Some(reason);
        }
    }
    stuck
}
