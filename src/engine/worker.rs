//! One turn: lease, send, settle. A turn that ends in any other way, by a panic or an abort, drops its lease,
//! which gives the chunk back with nothing counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::scheduler::{Rest, Turn};
use super::settle;
use super::shared::Shared;
use crate::disk::Payload;
use crate::model::{DeadReason, Token};
use crate::platform::{Delivery, Part, Verdict};
use crate::sabotage::stop_at;
use crate::store::{Head, Lease, StoreError};

/// A session whose chunk the store could not hand out or settle is left alone so long.
const STORE_REST: Duration = Duration::from_secs(5);

/// What the store says is next for the session, or how long it rests.
pub type Next = Result<Option<Head>, Rest>;

/// A chunk in hand.
pub struct Ready {
    pub lease: Lease,
    payload: Box<dyn Payload>,
    /// How long ago its stored history begins, where it has counted failures.
    pub failing_for: Option<Duration>,
}

enum Taken {
    Ready(Box<Ready>),
    Over(Next),
}

/// Ends when the chunk is settled.
///
/// # Cancel safety
/// Dropping it gives the chunk back; the request is then in doubt.
pub async fn send(shared: &Arc<Shared>, turn: &Turn, token: Token) -> Next {
    let taking = turn.clone();
    let taken = shared.blocking(move |shared| take(shared, &taking)).await;
    let mut ready = match taken {
        Taken::Ready(ready) => ready,
        Taken::Over(next) => return next,
    };
    let delivery = delivery(shared, turn, &token, &mut ready);
    // An answer that is there counts, even if the abort came with it.
    let answer = tokio::select! {
        biased;
        answer = shared.lanes[turn.lane].platform.deliver(delivery) => answer,
        () = shared.abort.cancelled() => return give_back(shared, turn, ready.lease).await,
    };
    match answer.verdict {
        Verdict::Delivered { duplicate } => {
            tracing::debug!(chunk.id = %turn.chunk_key(), duplicate, "delivered");
            settle::delivered(shared, turn, &token, ready.lease, answer.limits).await
        }
        Verdict::Failed(failure) => {
            settle::failed(shared, turn, &token, *ready, failure, answer.limits).await
        }
    }
}

/// What the store says is next. Blocks.
pub fn next(shared: &Shared, turn: &Turn) -> Next {
    match shared.store.head(&turn.session_key()) {
        Ok(head) => Ok(head),
        Err(error) => trouble(shared, turn, &error),
    }
}

/// A call of the store failed: the session rests, and the engine ends if the index is lost.
pub fn trouble(shared: &Shared, turn: &Turn, error: &StoreError) -> Next {
    tracing::error!(
        chunk.id = %turn.chunk_key(),
        error = error as &dyn std::error::Error,
        "chunk not leased or not settled; it stays owed"
    );
    shared.heed(error);
    Err(Rest(STORE_REST))
}

fn take(shared: &Shared, turn: &Turn) -> Taken {
    match try_take(shared, turn) {
        Ok(Some(ready)) => Taken::Ready(Box::new(ready)),
        Ok(None) => Taken::Over(next(shared, turn)),
        Err(error) => Taken::Over(trouble(shared, turn, &error)),
    }
}

fn try_take(shared: &Shared, turn: &Turn) -> Result<Option<Ready>, StoreError> {
    let Some(mut lease) = lease(shared, turn)? else {
        return Ok(None);
    };
    let payload = match lease.payload() {
        Ok(payload) => payload,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            set_aside(shared, turn, lease)?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let failing_for = match lease.head().failures {
        0 => None,
        _ => {
            let history = shared.store.history(&lease.meta().key)?;
            history
                .first()
                .map(|first| shared.clock.wall().since(first.at))
        }
    };
    lease.sending()?;
    stop_at("on_the_wire");
    Ok(Some(Ready {
        lease,
        payload,
        failing_for,
    }))
}

/// The lease of exactly the turn's chunk. `None`: a lower sequence came meanwhile, or nothing is owed.
fn lease(shared: &Shared, turn: &Turn) -> Result<Option<Lease>, StoreError> {
    let Some(lease) = shared.store.lease(&turn.session_key())? else {
        return Ok(None);
    };
    if lease.head().sequence != turn.sequence {
        lease.release()?;
        return Ok(None);
    }
    Ok(Some(lease))
}

fn set_aside(shared: &Shared, turn: &Turn, lease: Lease) -> Result<(), StoreError> {
    lease.bury(DeadReason::Damaged, None)?;
    tracing::warn!(chunk.id = %turn.chunk_key(), "stored chunk is damaged: it is a dead letter");
    shared.core().buried(turn, false);
    Ok(())
}

fn delivery(shared: &Shared, turn: &Turn, token: &Token, ready: &mut Ready) -> Delivery {
    let head = ready.lease.head();
    Delivery {
        target: Arc::clone(&shared.lanes[turn.lane].target),
        token: token.clone(),
        gaps: head.gaps.clone(),
        late: head.late,
        attempt: turn.attempt,
        at: shared.clock.wall(),
        parts: vec![Part {
            meta: ready.lease.meta().clone(),
            payload: std::mem::replace(&mut ready.payload, Box::new(io::empty())),
        }],
    }
}

async fn give_back(shared: &Arc<Shared>, turn: &Turn, lease: Lease) -> Next {
    let turn = turn.clone();
    shared
        .blocking(move |shared| match lease.release() {
            Ok(()) => next(shared, &turn),
            Err(error) => trouble(shared, &turn, &error),
        })
        .await
}
