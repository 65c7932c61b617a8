//! The newest token of a slot, and what its age says when it is refused.

use std::time::Duration;

use crate::auth::claims::Claims;
use crate::auth::diagnosis::{Circumstance, SHORTEST_IDLE};
use crate::auth::grant::UNTIL_REFUSED;
use crate::clock::Instant;
use crate::model::Token;

/// The newest token.
#[derive(Debug)]
pub(super) struct Issue {
    pub(super) token: Token,
    pub(super) minted_at: Instant,
    pub(super) life: Duration,
    pub(super) refresh_at: Instant,
    /// Someone needs a younger one, whatever the policy says.
    pub(super) outdated: bool,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) claims: Claims,
    /// Some delivery used it.
    pub(super) proven: bool,
    /// It was asked for when a refusal was known already.
    pub(super) since_refusal: bool,
    /// It was refused after so long, and nobody has had another since: a file gives the same token again.
    pub(super) ended_after: Option<Duration>,
}

impl Issue {
    pub(super) fn expires_at(&self) -> Instant {
        self.minted_at.saturating_add(self.life)
    }

    /// What `token` takes over from this one, if it is the same.
    pub(super) fn ended_before(&self, token: &Token) -> Option<Duration> {
        self.ended_after
            .filter(|_| self.token.expose() == token.expose())
    }

    /// `None`: nobody stated its end.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        (self.life != UNTIL_REFUSED).then(|| self.expires_at().since(now))
    }

    pub(super) fn circumstance(&self, now: Instant) -> Circumstance {
        let age = now.since(self.minted_at);
        if let Some(age) = self.ended_after {
            return Circumstance::Ended { age };
        }
        if self.life == UNTIL_REFUSED {
            return if self.proven {
                Circumstance::Ended { age }
            } else {
                Circumstance::Fresh
            };
        }
        if age >= self.life {
            Circumstance::Expired
        } else if self.proven || age >= SHORTEST_IDLE {
            let life = self.life;
            Circumstance::RevokedEarly { age, life }
        } else {
            Circumstance::Fresh
        }
    }
}
