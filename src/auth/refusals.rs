//! What the platform's 401s prove, purely. One session's refusals say nothing of the others; a token that
//! has worked and stops working has merely ended, and one that was never used may have ended unseen, with all that were
//! given before it. Only a token that was asked for after a refusal, and that two sessions, or the only one, cannot use
//! is evidence against the slot: whatever ended its predecessors did not end it.

use std::collections::BTreeMap;

use super::diagnosis::Circumstance;
use crate::model::{Generation, SessionKey};

/// A session refused with this many generations, without a delivery of its own between, is held alone.
const STRIKES_MAX: u32 = 3;
/// After this many generations in a row that no delivery used, age and expiry excuse no refusal any more.
const BARREN_MAX: u32 = 3;
/// Sessions that are remembered; the one refused longest ago is forgotten first.
const SESSIONS_MAX: usize = 1024;

/// One 401 for the slot's newest generation.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub session: &'a SessionKey,
    /// No other session has work.
    pub only_session: bool,
    pub generation: Generation,
    /// Some delivery used this generation.
    pub proven: bool,
    /// It was asked for when a refusal was known already, or there is no other token to ask for.
    pub since_refusal: bool,
    /// The generation was minted as the probe of a block.
    pub on_trial: bool,
    pub seen: Circumstance,
}

/// What follows from a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The token has ended, or may have: try another.
    Mint,
    /// Only this session is refused; the token serves the others.
    HoldSession,
    /// Another token would be refused too.
    Block,
}

#[derive(Debug, Clone, Copy)]
struct Strikes {
    count: u32,
    last: Generation,
}

/// The 401s that no delivery has answered yet.
#[derive(Debug, Default)]
pub struct Refusals {
    strikes: BTreeMap<SessionKey, Strikes>,
    /// The first session that a generation which is evidence was refused for; a second one is proof enough.
    witness: Option<SessionKey>,
    /// No delivery with the newest generation has come since the last refusal.
    unanswered: bool,
    barren: u32,
    last_barren: Option<Generation>,
}

impl Refusals {
    pub fn judge(&mut self, refused: Refused<'_>) -> Finding {
        if !refused.proven && self.last_barren != Some(refused.generation) {
            self.last_barren = Some(refused.generation);
            self.barren = self.barren.saturating_add(1);
        }
        self.unanswered = true;
        let excused = refused.proven || self.barren < BARREN_MAX;
        let informed = refused.since_refusal || refused.on_trial;
        let ended = excused && (refused.seen != Circumstance::Fresh || !informed);
        if ended && refused.seen == Circumstance::Expired {
            return Finding::Mint;
        }
        let strikes = self.strike(refused.session, refused.generation);
        if !ended {
            let other = self.witness.get_or_insert_with(|| refused.session.clone());
            if refused.only_session || refused.on_trial || other != refused.session {
                self.witness = None;
                return Finding::Block;
            }
        }
        if strikes >= STRIKES_MAX && !refused.only_session {
            return Finding::HoldSession;
        }
        Finding::Mint
    }

    /// A delivery of `session` succeeded.
    pub fn forgive(&mut self, session: &SessionKey) {
        self.strikes.remove(session);
    }

    /// A delivery succeeded with the newest generation.
    pub fn prove(&mut self) {
        self.witness = None;
        self.unanswered = false;
        self.barren = 0;
    }

    /// A token that is asked for now is asked for after a refusal.
    pub fn are_unanswered(&self) -> bool {
        self.unanswered
    }

    /// An operator says that the cause is cured.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Generations in a row that were refused before any delivery.
    pub fn barren(&self) -> u32 {
        self.barren
    }

    fn strike(&mut self, session: &SessionKey, generation: Generation) -> u32 {
        if let Some(strikes) = self.strikes.get_mut(session) {
            if strikes.last != generation {
                strikes.last = generation;
                strikes.count = strikes.count.saturating_add(1);
            }
            return strikes.count;
        }
        if self.strikes.len() >= SESSIONS_MAX {
            let oldest = self.strikes.iter().min_by_key(|(_, strikes)| strikes.last);
            if let Some(oldest) = oldest.map(|(session, _)| session.clone()) {
                self.strikes.remove(&oldest);
            }
        }
        let first = Strikes {
            count: 1,
            last: generation,
        };
        self.strikes.insert(session.clone(), first);
        1
    }
}
