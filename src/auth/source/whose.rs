//! Whose a token is that does not show it: asks, and heeds what was found out elsewhere.

use super::Inner;
use crate::auth::CredentialHold;
use crate::auth::grant::Minted;
use crate::auth::witness::{self, Told};
use crate::model::{Generation, Token};

impl Inner {
    pub(super) fn told(
        &self,
        generation: Generation,
        organization: &str,
    ) -> Option<CredentialHold> {
        let at = self.moment();
        let mut state = self.lock();
        let closes = state.slot.told(generation, organization, at);
        let request = state.request.take_if(|_| closes);
        let hold = state.slot.hold(at.now).filter(|_| closes);
        drop(state);
        if let Some(request) = request {
            request.abort();
        }
        if let Some(hold) = &hold {
            tracing::error!(remedy = %hold.remedy, "token slot blocked: {}", hold.reason);
            self.announce();
        }
        hold
    }

    /// With what the platform says of a token that does not show whose it is. A question that fails costs its patience and
    /// nothing else.
    pub(super) async fn asked_whose(&self, mut minted: Minted) -> Minted {
        let Some(witness) = &self.witness else {
            return minted;
        };
        let generation = {
            let state = self.lock();
            if !state.slot.asks_whose(&minted.claims) {
                return minted;
            }
            Generation(state.slot.generation().0 + 1)
        };
        let token = Token::from_secret(minted.access_token.clone(), generation);
        let deadline = self.clock.now().saturating_add(witness::PATIENCE);
        let told = tokio::select! {
            told = witness.whose(&token) => told,
            () = self.clock.sleep_until(deadline) => Told::Nothing,
        };
        match told {
            Told::Organization(name) => minted.claims.tell(&name),
            Told::Nothing => tracing::debug!("the platform did not say whose the new token is"),
            Told::Silent => self.lock().slot.never_told(),
        }
        minted
    }
}
