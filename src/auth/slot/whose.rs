//! Whose the slot's tokens are, by what they show or by what the platform says of them.

use super::{Moment, Origin, Phase, SlotState};
use crate::auth::claims::Claims;
use crate::auth::diagnosis::Diagnosis;
use crate::model::Generation;

impl SlotState {
    /// What is wrong with a token for this slot whatever it opens: it belongs to another organisation. The first one that is
    /// shown is held to from then on. `unused`: nothing was sent with it.
    pub fn stranger(&mut self, claims: &Claims, unused: bool) -> Option<Diagnosis> {
        let Some(wanted) = &self.rules.organization else {
            self.rules.organization.clone_from(&claims.organization);
            return None;
        };
        let excluded = claims.excludes(wanted);
        excluded.then(|| Diagnosis::of_organization(&claims.shown(), wanted, unused, &self.about))
    }

    /// The platform says whose the token of `generation` is. Whether that closes the slot.
    pub fn told(&mut self, generation: Generation, organization: &str, at: Moment) -> bool {
        self.rules.asks_whose = true;
        let usable = matches!(self.phase, Phase::Valid | Phase::Refreshing(_));
        let Some(issue) = &mut self.newest else {
            return false;
        };
        if !usable || issue.token.generation != generation {
            return false;
        }
        issue.claims.tell(organization);
        let claims = issue.claims.clone();
        let Some(diagnosis) = self.stranger(&claims, false) else {
            return false;
        };
        self.worsen(Origin::Mint, diagnosis, at);
        self.phase = Phase::Blocked;
        true
    }

    /// Whether the platform is to be asked whose such a token is.
    pub fn asks_whose(&self, claims: &Claims) -> bool {
        self.rules.asks_whose && !claims.show_whose()
    }

    /// The platform does not tell.
    pub fn never_told(&mut self) {
        self.rules.asks_whose = false;
    }
}
