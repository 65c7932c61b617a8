//! Waiting for a lane's token, so that nothing else is held meanwhile.

use std::sync::Arc;

use futures_util::FutureExt;

use super::lane::Kind;
use super::scheduler::Turn;
use super::shared::Shared;
use crate::model::Token;

/// The token for a turn, if the slot has one now. A probe of a block is given one that was minted after the
/// last refusal: what was missing may have been granted, and a token carries what it was minted with.
pub fn at_once(shared: &Shared, turn: &Turn) -> Option<Token> {
    let source = &shared.lanes[turn.lane].token;
    let token = source.token().now_or_never()?.ok()?;
    if turn.kind != Kind::Probe || !shared.core().take_renewal(turn.lane) {
        return Some(token);
    }
    source.renew(token.generation);
    source.token().now_or_never()?.ok()
}

/// Ends when the lane can have a token, or wants none any more. One for a lane at most.
pub async fn wait(shared: Arc<Shared>, lane: usize) {
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
