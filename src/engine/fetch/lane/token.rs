//! Waiting for the lane's token, with nothing else in hand.

use super::{Lane, RENEWAL_TIME, ROUTE};
use crate::engine::fetch::Shared;
use crate::engine::hold::HoldKind;
use crate::model::{Generation, Token};

impl Lane {
    /// A token, or `None` after a wait that may have changed something.
    pub async fn token(&self, shared: &Shared, probe: bool) -> Option<Token> {
        let source = &self.about.token;
        let changed = source.changed();
        let token = tokio::select! {
            () = shared.stop.cancelled() => return None,
            token = source.token() => token,
        };
        match token {
            Ok(token) => {
                self.state().credential = None;
                let renews = probe && self.take_renewal() && source.renew(token.generation);
                if renews {
                    return self.younger(shared, token.generation).await;
                }
                Some(token)
            }
            Err(hold) => {
                let until = hold.until;
                self.state().credential = Some(hold);
                self.changed.notify_waiters();
                tokio::select! {
                    () = shared.stop.cancelled() => {}
                    () = changed => {}
                    () = shared.clock.sleep_until(until) => {}
                }
                None
            }
        }
    }

    /// Whether the probe that is due should have a token that was minted for it: once a probe.
    fn take_renewal(&self) -> bool {
        let mut state = self.state();
        let hold = state.gate.get(HoldKind::Blocked, ROUTE);
        let due = hold.and_then(|hold| hold.until);
        let wanted = due.is_some() && due != state.renewed_for;
        state.renewed_for = due;
        wanted
    }

    /// A token that is younger than this one, or what there is when it takes too long.
    async fn younger(&self, shared: &Shared, than: Generation) -> Option<Token> {
        let source = &self.about.token;
        let deadline = shared.clock.now().saturating_add(RENEWAL_TIME);
        loop {
            let changed = source.changed();
            match source.token().await {
                Ok(token) if token.generation == than && shared.clock.now() < deadline => {}
                Ok(token) => return Some(token),
                Err(_) => return None,
            }
            tokio::select! {
                () = shared.stop.cancelled() => return None,
                () = changed => {}
                () = shared.clock.sleep_until(deadline) => {}
            }
        }
    }
}
