//! `worker why`: what a tenant, session or chunk waits for, what happens next and what a person can do; pure.

use std::time::Duration;

use crate::model::{ChunkState, Count, GateView, HoldView, PaceView, TenantId, Timestamp};

use super::wire::{Mismatch, SessionWhy};
use super::words;

/// What the sentences are made from.
pub struct Facts<'a> {
    pub tenant: &'a TenantId,
    pub gate: &'a GateView,
    pub backlog: Count,
    /// The part of the backlog that the platform stored and did not yet take in.
    pub confirming: Count,
    pub dead: Count,
    pub session: Option<&'a SessionWhy>,
    pub mismatch: Option<&'a Mismatch>,
    pub pace: Option<&'a PaceView>,
    /// An engine works on this store now.
    pub running: bool,
    pub now: Timestamp,
}

/// The two sentences that end every answer: what happens next, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    pub next: String,
    /// Empty if there is nothing to do.
    pub remedy: String,
}

/// The hold that keeps a lane closed longest decides: configuration, then a person, then what blocks, then waits.
const STRONGEST_FIRST: [&str; 5] = [
    "not_configured",
    "operator",
    "blocked",
    "outage",
    "throttled",
];

/// The hold that has to go first.
pub fn strongest(gate: &GateView) -> Option<&HoldView> {
    let rank = |hold: &HoldView| {
        let known = STRONGEST_FIRST.iter().position(|kind| *kind == hold.kind);
        known.unwrap_or(STRONGEST_FIRST.len())
    };
    gate.holds.iter().min_by_key(|hold| rank(hold))
}

pub fn outlook(facts: &Facts<'_>) -> Outlook {
    let outlook = |next: String, remedy: String| Outlook { next, remedy };
    let tenant = facts.tenant;
    let running = facts.running;
    if let Some(settled) = (facts.session).and_then(|session| settled(session, tenant, running)) {
        return settled;
    }
    if let Some(hold) = strongest(facts.gate) {
        return of_hold(hold, facts);
    }
    let delivered =
        facts.backlog.chunks == 0 || facts.session.is_some_and(|it| it.sequence.is_none());
    if let (Some(mismatch), true) = (facts.mismatch, delivered) {
        let text = "nothing by itself: what was delivered is not what the platform has";
        let remedy = format!("worker recordings show {}", mismatch.recording);
        return outlook(text.to_owned(), remedy);
    }
    if facts.backlog.chunks == 0 {
        let text = "nothing waits to be delivered";
        return outlook(text.to_owned(), look_at_dead(facts));
    }
    if facts.session.is_some_and(|it| it.sequence.is_none()) {
        let text = match facts.confirming.chunks {
            0 => "nothing of this session waits to be delivered".to_owned(),
            _ => format!(
                "nothing of this session waits to be sent; {}",
                taken_in(facts)
            ),
        };
        return outlook(text, look_at_dead(facts));
    }
    if facts.confirming.chunks == facts.backlog.chunks && facts.running {
        return outlook(taken_in(facts), look_at_dead(facts));
    }
    if !facts.running {
        return outlook(
            "nothing is sent: no worker runs on this store".to_owned(),
            "worker run, or once: worker drain".to_owned(),
        );
    }
    if let Some(session) = facts.session {
        if let (Some(head), Some(sequence)) = (session.behind, session.sequence) {
            let text = format!("sequence {sequence} goes out after sequence {head} of its session");
            let remedy = format!("worker why {tenant} {} {head}", session.session);
            return outlook(text, remedy);
        }
        if session.ready_in_s > 0 {
            let wait = words::span(Duration::from_secs(session.ready_in_s));
            return outlook(format!("it is sent again in {wait}"), String::new());
        }
        if session.gap_wait_s > 0 {
            let wait = words::span(Duration::from_secs(session.gap_wait_s));
            let what = match session.missing {
                Some((first, last)) if first == last => format!("sequence {first} before it is"),
                Some((first, last)) => format!("sequences {first} to {last} before it are"),
                // A holder of before tells only how long.
                None => "a sequence before it is".to_owned(),
            };
            let text = format!("{what} missing, and waited for, {wait} at most");
            return outlook(text, String::new());
        }
    }
    let next = facts
        .pace
        .and_then(|pace| budget_used_up(pace).or_else(|| paced(pace)));
    outlook(
        next.unwrap_or_else(|| "it is being sent".to_owned()),
        String::new(),
    )
}

/// What no hold changes anything about: a chunk that is dead, lost or done.
fn settled(session: &SessionWhy, tenant: &TenantId, running: bool) -> Option<Outlook> {
    let sequence = session.sequence?;
    let id = &session.session;
    let (next, remedy) = match session.state {
        Some(ChunkState::Dead) => (
            "nothing by itself: it was set aside, for a person to look at",
            format!("worker dead show {tenant} {id} {sequence}"),
        ),
        Some(ChunkState::Confirming) if running => (
            "the platform has it, and is asked until it says that it took it in",
            String::new(),
        ),
        Some(ChunkState::Confirming) => (
            "the platform has it, and nobody asks whether it took it in: no worker runs on this store",
            "worker run".to_owned(),
        ),
        Some(ChunkState::Delivered | ChunkState::Purged) => {
            ("nothing: it waits no more", String::new())
        }
        None if session.lost => (
            "nothing by itself: only its source can give it again",
            format!("worker enqueue --tenant {tenant} --session {id} --sequence {sequence} FILE"),
        ),
        None if !session.may_be.is_empty() => ("nothing: it waits no more", String::new()),
        _ => return None,
    };
    let next = next.to_owned();
    Some(Outlook { next, remedy })
}

/// Stored there, and the platform is asked what became of it.
fn taken_in(facts: &Facts<'_>) -> String {
    format!(
        "{} of {} stored there and not yet taken in, which the platform is asked about again and again",
        words::chunks(facts.confirming.chunks),
        facts.tenant,
    )
}

/// The dead letters of what was asked about, if there are any; else what else will not go out by itself.
fn look_at_dead(facts: &Facts<'_>) -> String {
    let tenant = facts.tenant;
    match facts.session {
        Some(session) if session.dead > 0 => {
            format!("worker dead list {tenant} {}", session.session)
        }
        Some(session) if session.lost => "worker fsck".to_owned(),
        None if facts.dead.chunks > 0 => format!("worker dead list {tenant}"),
        _ => String::new(),
    }
}

/// Nothing holds the lane, and nothing is left of what the platform allows.
fn budget_used_up(pace: &PaceView) -> Option<String> {
    let (Some(0), Some(allowed), Some(reset)) = (pace.remaining, pace.allowed, pace.reset_in_s)
    else {
        return None;
    };
    Some(format!(
        "its request budget is used up (0 of {} left): it goes on in {}",
        words::count(allowed),
        words::span(Duration::from_secs(reset.max(1)))
    ))
}

/// Nothing is on the wire though something is left: what is left is spread over the time until more is given.
fn paced(pace: &PaceView) -> Option<String> {
    let (Some(remaining), Some(allowed), Some(reset)) =
        (pace.remaining, pace.allowed, pace.reset_in_s)
    else {
        return None;
    };
    if pace.in_flight > 0 || reset == 0 {
        return None;
    }
    Some(format!(
        "it is paced: {} of {} requests left for {}",
        words::count(remaining),
        words::count(allowed),
        words::span(Duration::from_secs(reset))
    ))
}

fn of_hold(hold: &HoldView, facts: &Facts<'_>) -> Outlook {
    let tenant = facts.tenant;
    if !facts.running && matches!(hold.kind.as_str(), "blocked" | "outage" | "throttled") {
        return with_nobody(hold, facts);
    }
    let resume = format!("worker tenants resume {tenant}");
    let when = hold
        .until
        .as_deref()
        .map(|until| words::moment_of(until, facts.now));
    let at = |verb: &str| match &when {
        Some(when) => format!("{verb} at {when}"),
        None => format!("{verb} soon, by itself"),
    };
    let (next, remedy) = match hold.kind.as_str() {
        "not_configured" => (
            "its chunks are kept until it is configured".to_owned(),
            format!("add [tenants.{tenant}] to the configuration and start the worker again"),
        ),
        "operator" => (
            "nothing is sent until an operator resumes it".to_owned(),
            resume,
        ),
        "blocked" => (
            at("the next try is"),
            format!("cure what the reason names; then, to go on at once: {resume}"),
        ),
        "throttled" => (at("it goes on"), String::new()),
        _ => (at("the next try is"), String::new()),
    };
    Outlook { next, remedy }
}

/// No hold ends by itself where nobody works on the store.
fn with_nobody(hold: &HoldView, facts: &Facts<'_>) -> Outlook {
    let nobody = "nobody delivers now: no worker runs on this store";
    let start = "worker run, or once: worker drain";
    let until = hold.until.as_deref();
    let (then, remedy) = match (hold.kind.as_str(), until) {
        ("blocked", _) => (
            "the next one tries at once".to_owned(),
            format!("cure what the reason names; then: {start}"),
        ),
        ("throttled", Some(until)) => (
            format!(
                "the next one waits until {}",
                words::moment_of(until, facts.now)
            ),
            start.to_owned(),
        ),
        _ => ("the next one tries at once".to_owned(), start.to_owned()),
    };
    Outlook {
        next: format!("{nobody}; {then}"),
        remedy,
    }
}

#[cfg(test)]
mod tests;
