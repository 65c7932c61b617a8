//! The newest token of a slot, and what its age says when it is refused.

use std::time::Duration;

use crate::auth::claims::Claims;
use crate::auth::diagnosis::Circumstance;
use crate::auth::grant::UNTIL_REFUSED;
use crate::clock::Instant;
use crate::model::Token;

/// The shortest idle timeout in the field is 5 min: an unused token older than that may have died of it.
const FRESH_FOR: Duration = Duration::from_secs(5 * 60);

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
}

impl Issue {
    pub(super) fn expires_at(&self) -> Instant {
        self.minted_at.saturating_add(self.life)
    }

    /// `None`: nobody stated its end.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        (self.life != UNTIL_REFUSED).then(|| self.expires_at().since(now))
    }

    pub(super) fn circumstance(&self, now: Instant) -> Circumstance {
        let age = now.since(self.minted_at);
        if self.life == UNTIL_REFUSED {
            return if self.proven {
                Circumstance::Ended { age }
            } else {
                Circumstance::Fresh
            };
        }
        if age >= self.life {
            Circumstance::Expired
        } else if self.proven || age >= FRESH_FOR {
            let life = self.life;
            Circumstance::RevokedEarly { age, life }
        } else {
            Circumstance::Fresh
        }
    }
}
