//! What goes into a slot's state machine and what comes out.

use std::time::Duration;

use crate::auth::diagnosis::Circumstance;
use crate::auth::{AfterRejection, CredentialHold};
use crate::clock::Instant;
use crate::model::{Timestamp, Token};

/// When a token is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefreshPolicy {
    /// Before its end, while it is still used.
    #[default]
    Ahead,
    /// When the platform refuses it; its stated end is ignored.
    On401,
}

/// What an operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub refresh: RefreshPolicy,
    /// `false`: the first 401 blocks the slot instead of minting another token at once.
    pub retry_on_401: bool,
    /// The first request waits up to this long, so that many slots do not start in one moment.
    pub start_spread: Duration,
    /// The organisation that tokens must belong to if they show one: configured, or pinned earlier.
    pub organization: Option<String>,
    /// Whoever gives the tokens out asks the platform whose one is that does not show it.
    pub asks_whose: bool,
    /// Asking again gives the same token: a refused one blocks the slot until its file changes.
    pub is_static: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            refresh: RefreshPolicy::default(),
            retry_on_401: true,
            start_spread: Duration::ZERO,
            organization: None,
            asks_whose: false,
            is_static: false,
        }
    }
}

/// When something happens, and its draw from `[0, 1)`.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    pub wall: Timestamp,
    pub draw: f64,
}

/// The number of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight(pub u64);

/// What the slot does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No usable token, no request, no hold. Ends by a caller.
    Empty,
    /// Callers wait for the request. Ends by its result, or by a block.
    Fetching(Flight),
    /// Callers get the newest token. Ends by its refresh, its end or its refusal.
    Valid,
    /// Callers get the newest token while another is fetched. Ends as `Valid` and `Fetching` do.
    Refreshing(Flight),
    /// The endpoint is down or throttles. Ends by a caller after the deadline.
    Waiting,
    /// Only a person can help, or a probe finds that one did. Ends by a caller after the deadline.
    Blocked,
}

/// The order to begin a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mint {
    pub flight: Flight,
    pub not_before: Instant,
    /// How long to keep the token before it counts as minted; see [`Mint::ripening_of`].
    pub ripening: Duration,
}

impl Mint {
    /// Never so long that the token would age much by it.
    pub fn ripening_of(&self, life: Duration) -> Duration {
        self.ripening.min(life / 4)
    }
}

/// Whether a caller has just come, or has waited for a request that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Learns of the failure that it waited for, even where the next try is already due.
    Waited,
}

#[derive(Debug)]
pub enum Answer {
    Use(Token),
    Wait,
    Held(Box<CredentialHold>),
}

/// An answer to a caller, and the request that it sets off.
#[derive(Debug)]
pub struct Wanted {
    pub answer: Answer,
    pub mint: Option<Mint>,
}

/// What a 401 led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub after: AfterRejection,
    /// `None`: the refused generation is not the newest.
    pub seen: Option<Circumstance>,
    /// The request under way no longer counts.
    pub abandon: bool,
}

impl Wanted {
    pub(super) fn only(answer: Answer) -> Self {
        Self { answer, mint: None }
    }
}
