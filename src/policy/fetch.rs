//! What a failed fetch of metadata means: for the one recording, for the fetch route of its tenant, and for the token.
//! The rules above the rows are those of `retry`: nothing is given up except after long patience with an open route, and
//! nothing holds the route except two recordings, or the only one there is.

use std::time::Duration;

use super::backoff::{Backoff, full_jitter};
use super::probe;
use super::retry::{Credential, RouteHold, pause};
use crate::model::FailureClass;

/// Between two questions about a recording that the platform does not give yet.
const ITEM_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(5 * 60), Duration::from_secs(6 * 3600));
/// Up to this share is added to such a wait, so that a morning's recordings do not come back in one moment.
const ITEM_JITTER: f64 = 0.2;
/// Between two requests that got no answer.
const SILENCE_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(5 * 60));
/// A recording is given up after so long with an open route, and so many tries.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);
const TRIES: u32 = 8;
/// One whose request itself is refused, while others are given, is given up after so many.
const REJECTIONS: u32 = 3;
/// Requests in a row without an answer that make an outage.
const OUTAGE_REQUESTS: u32 = 3;

/// The failure itself.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    pub class: FailureClass,
    pub status: Option<u16>,
    /// The server's wish.
    pub hint: Option<Duration>,
    /// For `Unauthorized`.
    pub credential: Option<Credential>,
}

/// What is known of a token that was refused for what it is: by a 422 naming purview, or for not acting for a user.
#[derive(Debug, Clone, Copy, Default)]
pub struct Purview {
    /// The platform wants a token that acts for a user.
    pub needs_user: bool,
    /// It states its scopes, and lacks one that metadata needs.
    pub lacks_scope: bool,
    /// It names organisations, and the tenant's is not among them.
    pub other_organization: bool,
    /// Another kind of token can be had, and was not tried for this recording.
    pub fallback: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// A page of the platform's list rather than a recording: it is never given up.
    pub listing: bool,
    /// Answers that spoke of it, with this one if it is one.
    pub tries: u32,
    /// Refusals of the route in a row that it met, with this one.
    pub refusals: u32,
    /// Requests without an answer in a row, with this one.
    pub failures: u32,
    /// How long it waited between such answers with its route open.
    pub waited: Duration,
}

/// What is known of the fetch route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub outage: bool,
    pub blocked: bool,
    /// Another recording was refused with the same class, and none was given since.
    pub refused_alike: bool,
    /// Nothing else is to be fetched.
    pub alone: bool,
    /// A recording was given since this one was asked for first.
    pub works: bool,
    /// Requests in a row without an answer, with this one.
    pub failing: u32,
    /// Throttles in a row, with this one.
    pub throttles: u32,
}

/// Whom a failure speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The one recording.
    Item,
    /// The route, or its token's rights.
    Route,
    /// Nobody answered.
    Silence,
    /// The token, or the budget.
    Neither,
}

/// What happens to the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is asked for again, at the earliest after this.
    Again(Duration),
    /// It is asked for at once with the other kind of token.
    Fallback,
    /// The platform does not give it.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub next: Next,
    pub route: Option<RouteHold>,
}

pub fn about(failed: &Failed, purview: Purview, listing: bool) -> About {
    use FailureClass as Class;
    match failed.class {
        Class::PurviewPending if purview.lacks_scope || purview.other_organization => About::Route,
        Class::PurviewPending | Class::Rejected | Class::DigestMismatch => About::Item,
        // The route is open to the other kind.
        Class::Forbidden if purview.needs_user && purview.fallback => About::Item,
        // It may not be visible yet: a new one takes up to two days.
        Class::Endpoint if failed.status == Some(404) && !listing => About::Item,
        Class::Endpoint | Class::Forbidden | Class::Unrecognised | Class::UrlExpired => {
            About::Route
        }
        Class::Transient | Class::InDoubt | Class::Damaged => About::Silence,
        Class::Unauthorized | Class::Throttled => About::Neither,
    }
}

pub fn decide(
    failed: &Failed,
    purview: Purview,
    item: &Item,
    route: &Route,
    draw: f64,
) -> Decision {
    match about(failed, purview, item.listing) {
        About::Item => again(of_item(failed, purview, item, route, draw)),
        About::Route => refused(item, route, draw),
        About::Silence => silence(item, route, draw),
        About::Neither if failed.class == FailureClass::Throttled => Decision {
            next: Next::Again(Duration::ZERO),
            route: Some(RouteHold::Throttle(pause(
                failed.hint,
                route.throttles,
                draw,
            ))),
        },
        About::Neither => again(Next::Again(match failed.credential {
            Some(Credential::HoldSession) => probe::wait(item.refusals.saturating_sub(1), draw),
            // The slot paces both: nothing is sent until it gives a token.
            _ => Duration::ZERO,
        })),
    }
}

fn again(next: Next) -> Decision {
    Decision { next, route: None }
}

fn of_item(failed: &Failed, purview: Purview, item: &Item, route: &Route, draw: f64) -> Next {
    let is_purview = failed.class == FailureClass::PurviewPending;
    if (is_purview || purview.needs_user) && purview.fallback {
        return Next::Fallback;
    }
    let rejected = failed.class == FailureClass::Rejected;
    let given_up = item.waited >= PATIENCE && item.tries >= TRIES
        || rejected && route.works && item.tries >= REJECTIONS;
    if given_up && !item.listing {
        return Next::Dead;
    }
    let wait = ITEM_BACKOFF.interval(item.tries);
    let longer = wait.mul_f64(1.0 + ITEM_JITTER * draw.clamp(0.0, 1.0));
    Next::Again(longer.min(ITEM_BACKOFF.interval(u32::MAX)))
}

fn refused(item: &Item, route: &Route, draw: f64) -> Decision {
    if route.blocked || route.alone || route.refused_alike {
        return Decision {
            next: Next::Again(Duration::ZERO),
            route: Some(RouteHold::Block),
        };
    }
    again(Next::Again(probe::wait(
        item.refusals.saturating_sub(1),
        draw,
    )))
}

fn silence(item: &Item, route: &Route, draw: f64) -> Decision {
    if route.outage || route.alone || route.failing >= OUTAGE_REQUESTS {
        return Decision {
            next: Next::Again(Duration::ZERO),
            route: Some(RouteHold::Outage),
        };
    }
    let wait = SILENCE_BACKOFF.interval(item.failures);
    again(Next::Again(full_jitter(wait, draw)))
}

#[cfg(test)]
mod tests;
