//! From an answer to a settled lease: the one place where failures are logged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::facts::Failure;
use super::judge::Judgement;
use super::scheduler::Turn;
use super::shared::Shared;
use super::words::{self, Client};
use super::worker::{Next, Ready, next, trouble};
use crate::auth::{AfterRejection, Rejection, TokenSource};
use crate::model::{FailureClass, FailureRecord, Route, Token};
use crate::platform::{self, Limits};
use crate::policy::retry::{Credential, Settle};
use crate::sabotage::Sabotage;
use crate::store::{Lease, StoreError};

pub async fn delivered(
    shared: &Arc<Shared>,
    turn: &Turn,
    token: &Token,
    lease: Lease,
    limits: Limits,
) -> Next {
    let source = &shared.lanes[turn.lane].token;
    source.accepted(token.generation, &turn.session_key());
    let turn = turn.clone();
    shared
        .blocking(move |shared| {
            let acked = lease.ack();
            let (at, draw) = (shared.moment(), shared.chance.draw());
            shared.core().delivered(&turn, &limits, at, draw);
            tell_holds(shared);
            match acked {
                Ok(()) => next(shared, &turn),
                Err(error) => trouble(shared, &turn, &error),
            }
        })
        .await
}

pub async fn failed(
    shared: &Arc<Shared>,
    turn: &Turn,
    token: &Token,
    ready: Ready,
    failure: platform::Failure,
    limits: Limits,
) -> Next {
    let class = failure.record.class;
    if class == FailureClass::Unauthorized
        && shared.settings.sabotaged.is(Sabotage::DropOnUnauthorized)
    {
        return delivered(shared, turn, token, ready.lease, limits).await;
    }
    let credential =
        (class == FailureClass::Unauthorized).then(|| reject(shared, turn, token, &failure.record));
    let source = Arc::clone(&shared.lanes[turn.lane].token);
    let turn = turn.clone();
    shared
        .blocking(move |shared| {
            let failure = Failure {
                intact: class != FailureClass::DigestMismatch || is_intact(&ready.lease),
                words: match failure.route {
                    Route::StoreHost => words::of_store_host(&failure.record),
                    _ => words::of(&failure.record, &client(source.as_ref())),
                },
                hint: failure.retry_after,
                route: failure.route,
                failing_for: ready.failing_for,
                record: failure.record,
                credential,
            };
            let judgement = judge(shared, &turn, failure, &limits);
            // A hold is stored before the chunk that shows its need is given back.
            tell_holds(shared);
            match settle(shared, &turn, ready.lease, judgement) {
                Ok(()) => next(shared, &turn),
                Err(error) => trouble(shared, &turn, &error),
            }
        })
        .await
}

/// Tells the slot of a 401, and brings its answer back.
fn reject(shared: &Shared, turn: &Turn, token: &Token, record: &FailureRecord) -> Credential {
    let only_session = shared.core().is_alone(turn);
    let after = shared.lanes[turn.lane].token.reject(Rejection {
        generation: token.generation,
        session: turn.session_key(),
        only_session,
        record: record.clone(),
    });
    match after {
        AfterRejection::Retry => Credential::Retry,
        AfterRejection::HoldSession => Credential::HoldSession,
        AfterRejection::Blocked => Credential::Blocked,
    }
}

fn client(source: &dyn TokenSource) -> Client {
    Client {
        id: source.client_id(),
        granted: source.granted_scopes(),
    }
}

fn judge(shared: &Shared, turn: &Turn, failure: Failure, limits: &Limits) -> Judgement {
    let (at, draw) = (shared.moment(), shared.chance.draw());
    let class = failure.record.class;
    let mut judgement = shared.core().failed(turn, failure, limits, at, draw);
    if let Settle::Nack { counted, .. } = &mut judgement.settle {
        let outage = class == FailureClass::Transient;
        *counted |= outage && shared.settings.sabotaged.is(Sabotage::CountOutageAsFailure);
    }
    judgement
}

fn settle(
    shared: &Shared,
    turn: &Turn,
    lease: Lease,
    judgement: Judgement,
) -> Result<(), StoreError> {
    let Judgement { settle, record } = judgement;
    tracing::debug!(
        chunk.id = %turn.chunk_key(),
        failure.class = %record.class,
        status = record.status,
        code = record.code,
        correlation.id = record.correlation_id,
        attempt = record.attempt,
        settle = ?settle,
        "not delivered: {}",
        record.message
    );
    match settle {
        Settle::Nack { delay, counted } => lease.nack(delay, counted, Some(record)),
        Settle::Release if speaks_of_the_chunk(record.class) => {
            // Given back as it was, and its history says why.
            lease.nack(Duration::ZERO, false, Some(record))
        }
        Settle::Release => lease.release(),
        Settle::Bury { reason, unproven } => {
            let (class, message) = (record.class, record.message.clone());
            lease.bury(reason, Some(record))?;
            tracing::warn!(
                chunk.id = %turn.chunk_key(),
                reason = reason.word(),
                failure.class = %class,
                "chunk is a dead letter: {message}"
            );
            shared.core().buried(turn, unproven);
            Ok(())
        }
    }
}

/// Throttles and rejected tokens say nothing of a chunk; the hold or the slot remembers them.
fn speaks_of_the_chunk(class: FailureClass) -> bool {
    !matches!(
        class,
        FailureClass::Throttled | FailureClass::Unauthorized | FailureClass::UrlExpired
    )
}

/// The platform received other bytes than the digest names: the disk's fault, or the way's?
fn is_intact(lease: &Lease) -> bool {
    let read = lease
        .payload()
        .and_then(|mut payload| io::copy(&mut payload, &mut io::sink()));
    match read {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::InvalidData,
    }
}

fn tell_holds(shared: &Shared) {
    // A hold that is not stored is in force all the same, and was logged.
    let _stored = shared.tell_holds();
}
