//! What a failed request means for its chunk, its session and its route: the table of design section 8 as
//! a function. Two rules stand above the rows. Nothing is condemned except against evidence that its
//! route works; nothing holds a route except evidence from more than one session, or from the only one
//! that has work.

use std::time::Duration;

use super::backoff::{Backoff, full_jitter, half_jitter};
use super::probe;
use crate::model::{DeadReason, FailureClass};

/// Between the tries of one chunk that fails while its route works.
const CHUNK_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(15 * 60));

/// Own pause after a throttle, where the hint is shorter or missing; a platform that throttles without
/// a hint usually counts by the minute.
const THROTTLE_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10 * 60));

/// No server is believed beyond this.
pub const LONGEST_THROTTLE: Duration = Duration::from_secs(24 * 3600);

/// A lone chunk's server errors use a retry no more often than this: there is no other session whose
/// deliveries would tell the chunk's fault from the platform's.
const LONE_COUNT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Requests in a row that fail, from more than one session, before the route is held. Fewer would
/// turn a platform that loses every other request into an outage.
const OUTAGE_REQUESTS: u32 = 5;

/// A suspect is tried again after 2, 10 and 30 s before it may be condemned alone.
const SUSPECT_RETRIES: u32 = 3;

/// Sessions with a suspect and no delivery: it is the route.
const SUSPECT_SESSIONS: usize = 3;

/// Counted failures are kept in six bits.
const COUNTED_MAX: u32 = 60;

/// When a chunk's retries are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Counted failures, at most 60.
    pub max_retries: u32,
    /// And the least time that its failures must span.
    pub min_retry_span: Duration,
}

/// What the token slot said about a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A newer token is on its way.
    Retry,
    /// Other sessions are served with it.
    HoldSession,
    /// The slot holds every lane that uses it.
    Blocked,
}

/// The failure itself.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    pub class: FailureClass,
    pub status: Option<u16>,
    /// The server's wish.
    pub hint: Option<Duration>,
    /// For `Unauthorized`.
    pub credential: Option<Credential>,
    /// For `DigestMismatch`: whether the stored bytes still match their digest.
    pub intact: bool,
}

/// What happened to this chunk before.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Counted failures before this one.
    pub counted: u32,
    /// Failures in a row, counted or not, with this one.
    pub tries: u32,
    /// Since its first counted failure.
    pub failing_for: Duration,
    /// Since its last counted failure, if this process saw one.
    pub since_counted: Option<Duration>,
}

/// What happened to its session and to the others of the lane.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// Refusals in a row, with this one if it is one.
    pub refusals: u32,
    /// A request of another session, sent after this chunk's previous try, was delivered.
    pub others_delivered: bool,
    /// No other session of the lane has work that could be tried.
    pub alone: bool,
}

/// What is known of the route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// An outage hold is in force.
    pub outage: bool,
    /// A blocked hold is in force, with the class that caused it.
    pub blocked: Option<FailureClass>,
    /// Other sessions that were refused with the same class, and nothing was delivered since.
    pub refused_alike: usize,
    /// Other sessions with a suspect, and nothing was delivered since.
    pub suspects: usize,
    /// There are other sessions with work, and each was refused or is suspect since the last delivery.
    pub all_refused: bool,
    /// A request sent after this chunk's first refusal was delivered.
    pub works: bool,
    /// Transient failures in a row on this route, with this one if it is one.
    pub failing: u32,
    /// And they are of more than one session.
    pub failing_several: bool,
    /// Throttles in a row, with this one if it is one.
    pub throttles: u32,
    /// A chunk was condemned without evidence, and nothing was delivered since.
    pub condemned_one: bool,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub failed: Failed,
    pub chunk: Chunk,
    pub session: Session,
    pub route: Route,
    pub limits: Limits,
}

/// What happens to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Try again, at the earliest after `delay`; `counted` uses a retry.
    Nack { delay: Duration, counted: bool },
    /// Back as it was, nothing counted.
    Release,
    Bury {
        reason: DeadReason,
        /// Without evidence that the route works: allowed once between two deliveries.
        unproven: bool,
    },
}

/// The session alone waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHold {
    pub wait: Duration,
    /// Its chunk was refused and is not yet condemned.
    pub suspect: bool,
}

/// The whole route waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteHold {
    /// For this long.
    Throttle(Duration),
    /// Until a probe is answered.
    Outage,
    /// Until a probe is delivered.
    Block,
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposition {
    pub settle: Settle,
    pub session: Option<SessionHold>,
    pub route: Option<RouteHold>,
}

impl Disposition {
    const fn settle(settle: Settle) -> Self {
        Self {
            settle,
            session: None,
            route: None,
        }
    }

    const fn hold_route(settle: Settle, hold: RouteHold) -> Self {
        Self {
            settle,
            session: None,
            route: Some(hold),
        }
    }

    const fn hold_session(settle: Settle, wait: Duration, suspect: bool) -> Self {
        Self {
            settle,
            session: Some(SessionHold { wait, suspect }),
            route: None,
        }
    }
}

/// The table. `draw` is from `[0, 1)`.
pub fn decide(facts: &Facts, draw: f64) -> Disposition {
    match facts.failed.class {
        FailureClass::Unauthorized => unauthorized(facts, draw),
        FailureClass::UrlExpired => url_expired(facts),
        FailureClass::Unrecognised
        | FailureClass::Forbidden
        | FailureClass::Endpoint
        | FailureClass::PurviewPending => refused(facts, draw),
        FailureClass::Throttled => Disposition::hold_route(
            Settle::Release,
            RouteHold::Throttle(pause(facts.failed.hint, facts.route.throttles, draw)),
        ),
        FailureClass::InDoubt => in_doubt(facts, draw),
        FailureClass::Rejected => rejected(facts, draw),
        FailureClass::DigestMismatch if facts.failed.intact => counted_failure(facts, draw),
        FailureClass::DigestMismatch | FailureClass::Damaged => Disposition::settle(Settle::Bury {
            reason: DeadReason::Damaged,
            unproven: false,
        }),
        FailureClass::Transient => transient(facts, draw),
    }
}

/// How long a throttle holds its route: the larger of the server's wish and our own growing pause, never earlier.
pub fn pause(hint: Option<Duration>, throttles: u32, draw: f64) -> Duration {
    let own = half_jitter(THROTTLE_BACKOFF.interval(throttles), draw);
    let wish = hint.unwrap_or(Duration::ZERO);
    // A whole fleet is given the same hour; a little apart, its return is no second stampede.
    let apart = (wish / 20).min(Duration::from_secs(30)).mul_f64(draw);
    own.max(wish.saturating_add(apart)).min(LONGEST_THROTTLE)
}

fn unauthorized(facts: &Facts, draw: f64) -> Disposition {
    match facts.failed.credential {
        Some(Credential::HoldSession) => {
            Disposition::hold_session(Settle::Release, session_wait(facts, draw), false)
        }
        // The slot paces both: nothing is sent until it gives a token.
        Some(Credential::Retry | Credential::Blocked) | None => {
            Disposition::settle(Settle::Release)
        }
    }
}

/// A new URL is asked for at once; one that is always too late is asked for ever less often.
fn url_expired(facts: &Facts) -> Disposition {
    match facts.chunk.tries {
        0 | 1 => Disposition::settle(Settle::Release),
        tries => Disposition::hold_session(Settle::Release, CHUNK_BACKOFF.interval(tries), false),
    }
}

/// The rule for refusals: the first holds its session and the lane tries another; the same from a
/// second session, or from the only one, is the route's.
fn refused(facts: &Facts, draw: f64) -> Disposition {
    let route = &facts.route;
    if route.blocked.is_some()
        || facts.session.alone
        || route.refused_alike >= 1
        || route.all_refused
    {
        return Disposition::hold_route(Settle::Release, RouteHold::Block);
    }
    if !facts.session.others_delivered {
        return Disposition::hold_session(Settle::Release, session_wait(facts, draw), false);
    }
    // Others are served: this was a probe of a session held alone, and costs its chunk a retry.
    let mut disposition = counted_failure(facts, draw);
    if let Settle::Nack { delay, .. } = &mut disposition.settle {
        *delay = Duration::ZERO;
        disposition.session = Some(SessionHold {
            wait: session_wait(facts, draw),
            suspect: false,
        });
    }
    disposition
}

fn rejected(facts: &Facts, draw: f64) -> Disposition {
    let (session, route) = (&facts.session, &facts.route);
    let bury = |unproven| {
        Disposition::settle(Settle::Bury {
            reason: DeadReason::Rejected,
            unproven,
        })
    };
    if route.works {
        return bury(false);
    }
    if route.blocked == Some(FailureClass::Rejected)
        || route.suspects + 1 >= SUSPECT_SESSIONS
        || route.all_refused
    {
        return Disposition::hold_route(Settle::Release, RouteHold::Block);
    }
    if session.alone && session.refusals > SUSPECT_RETRIES {
        // One chunk may be condemned on its own word, so that a single poisoned one does not end a
        // recording; a second before any delivery would be the start of burying a backlog.
        return if route.condemned_one {
            Disposition::hold_route(Settle::Release, RouteHold::Block)
        } else {
            bury(true)
        };
    }
    Disposition::hold_session(Settle::Release, session_wait(facts, draw), true)
}

fn in_doubt(facts: &Facts, draw: f64) -> Disposition {
    // With a status it was a 409 "in progress": the platform is well, and still at work on it.
    let outage = facts.failed.status.is_none() && is_outage(facts);
    failure(facts, false, outage, draw)
}

/// Counted only if the route worked for another session since the chunk's previous try. Alone, a server
/// error counts now and then; an answer of a gateway never does, because it speaks of what is behind it.
fn transient(facts: &Facts, draw: f64) -> Disposition {
    let blames_the_chunk = match facts.failed.status {
        Some(502..=504) | None => false,
        Some(status) => status >= 500,
    };
    let rare_enough = facts
        .chunk
        .since_counted
        .is_none_or(|since| since >= LONE_COUNT_INTERVAL);
    let lone = facts.session.alone && blames_the_chunk && rare_enough;
    if facts.session.others_delivered || lone {
        let mut disposition = counted_failure(facts, draw);
        if let Settle::Nack { counted, .. } = disposition.settle
            && is_outage(facts)
        {
            disposition = failure(facts, counted, true, draw);
        }
        return disposition;
    }
    failure(facts, false, is_outage(facts), draw)
}

fn is_outage(facts: &Facts) -> bool {
    facts.route.outage
        || facts.session.alone
        || (facts.route.failing >= OUTAGE_REQUESTS && facts.route.failing_several)
}

fn failure(facts: &Facts, counted: bool, outage: bool, draw: f64) -> Disposition {
    if outage {
        // The hold sets the pace; a delay of the chunk's own would only keep it from being the probe.
        let delay = Duration::ZERO;
        return Disposition::hold_route(Settle::Nack { delay, counted }, RouteHold::Outage);
    }
    let delay = full_jitter(CHUNK_BACKOFF.interval(facts.chunk.tries), draw);
    Disposition::settle(Settle::Nack { delay, counted })
}

/// Uses a retry, or ends the chunk if that was the last, against evidence or once without.
fn counted_failure(facts: &Facts, draw: f64) -> Disposition {
    let (chunk, limits) = (&facts.chunk, &facts.limits);
    let used_up = chunk.counted + 1 >= limits.max_retries.min(COUNTED_MAX);
    let unproven = !facts.session.others_delivered;
    if used_up
        && chunk.failing_for >= limits.min_retry_span
        && !(unproven && facts.route.condemned_one)
    {
        return Disposition::settle(Settle::Bury {
            reason: DeadReason::RetriesExhausted,
            unproven,
        });
    }
    failure(facts, chunk.counted < COUNTED_MAX, false, draw)
}

fn session_wait(facts: &Facts, draw: f64) -> Duration {
    probe::wait(facts.session.refusals.saturating_sub(1), draw)
}

#[cfg(test)]
mod tests;
