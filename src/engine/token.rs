//! Waiting for a lane's token, so that nothing else is held meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::credential::Occasion;
use super::lane::Kind;
use super::scheduler::Turn;
use super::shared::Shared;
use crate::model::{Generation, Token};

/// How long a probe waits for a younger token before it goes with the one there is.
const RENEWAL_TIME: Duration = Duration::from_secs(30);

/// Whether a turn can have its token.
pub enum Tokens {
    Now(Token),
    /// Someone has to wait: for any token, or for a younger one.
    Later(Option<Generation>),
}

/// The token for a turn, if the slot has one now. A probe of a block asks for one that is minted for it: what was missing
/// may have been granted, and a token carries what it was minted with.
pub fn at_once(shared: &Shared, turn: &Turn) -> Tokens {
    let source = &shared.lanes[turn.lane].token;
    let Some(Ok(token)) = source.token().now_or_never() else {
        return Tokens::Later(None);
    };
    shared.credentials().gives(turn.lane);
    let renews = turn.kind == Kind::Probe && shared.core().take_renewal(turn.lane);
    if renews && source.renew(token.generation) {
        return Tokens::Later(Some(token.generation));
    }
    Tokens::Now(token)
}

/// Ends when the lane can have a token, or wants none any more. One for a lane at most.
pub async fn wait(shared: Arc<Shared>, lane: usize, younger_than: Option<Generation>) {
    if let Some(generation) = younger_than {
        await_renewal(&shared, lane, generation).await;
    }
    let source = &shared.lanes[lane].token;
    let mut had = false;
    while !had {
        let changed = source.changed();
        let until = match source.token().await {
            Ok(_) => {
                had = true;
                continue;
            }
            Err(hold) => {
                let until = hold.until;
                shared.slot_refuses(lane, &hold, Occasion::Refused);
                shared.core().token_held(lane, hold);
                shared.stir();
                until
            }
        };
        tokio::select! {
            () = changed => {}
            () = shared.clock.sleep_until(until) => {}
        }
        let now = shared.clock.now();
        if !shared.core().wants_token(lane, now) {
            break;
        }
    }
    shared.core().token_may_be_had(lane, had);
    shared.stir();
}

/// Ends with a younger token, with a slot that has none at all, or when it takes too long.
async fn await_renewal(shared: &Shared, lane: usize, generation: Generation) {
    let source = &shared.lanes[lane].token;
    let deadline = shared.clock.now().saturating_add(RENEWAL_TIME);
    loop {
        let changed = source.changed();
        match source.token().await {
            Ok(token) if token.generation == generation => {}
            Ok(_) | Err(_) => return,
        }
        tokio::select! {
            () = changed => {}
            () = shared.clock.sleep_until(deadline) => return,
        }
    }
}
