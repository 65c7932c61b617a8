//! From an answer to a settled lease: the one place where failures are logged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::facts::Failure;
use super::judge::Judgement;
use super::scheduler::Turn;
use super::shared::Shared;
use super::words::{self, Client};
use super::worker::{Next, Ready, each, next, trouble};
use crate::auth::{AfterRejection, Rejection, TokenSource};
use crate::model::{DeadReason, FailureClass, FailureRecord, Route, Token};
use crate::platform::{self, Limits};
use crate::policy::grouping;
use crate::policy::retry::{Credential, Settle};
use crate::sabotage::Sabotage;
use crate::store::{Lease, StoreError};

pub async fn delivered(
    shared: &Arc<Shared>,
    turn: &Turn,
    token: &Token,
    leases: Vec<Lease>,
    limits: Limits,
) -> Next {
    let source = &shared.lanes[turn.lane].token;
    source.accepted(token.generation, &turn.session_key());
    let turn = turn.clone();
    shared
        .blocking(move |shared| {
            pin(shared, &turn);
            let acked = match shared.lanes[turn.lane].platform.confirms() {
                Some(_) => each(leases, Lease::confirm),
                None => each(leases, Lease::ack),
            };
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

/// A token that delivered shows whose it is: the tenant's next tokens must be of the same organisation. Tried once a
/// process: a disk that is full would fail, and be complained of, at every delivery.
fn pin(shared: &Shared, turn: &Turn) {
    let lane = &shared.lanes[turn.lane];
    if lane.pinned.load(Ordering::Relaxed) {
        return;
    }
    let is_known = shared.store.organisation(&turn.tenant).is_some();
    let shown = lane.token.organization();
    if let Some(organization) = shown.as_ref().filter(|_| !is_known)
        && let Err(error) = shared.store.pin_organisation(&turn.tenant, organization)
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(tenant = %turn.tenant, error, "whose the tokens are is not remembered");
    }
    lane.pinned
        .store(is_known || shown.is_some(), Ordering::Relaxed);
}

pub async fn failed(
    shared: &Arc<Shared>,
    turn: &Turn,
    token: &Token,
    mut ready: Ready,
    mut failure: platform::Failure,
    limits: Limits,
) -> Next {
    let class = failure.record.class;
    if class == FailureClass::Unauthorized
        && shared.settings.sabotaged.is(Sabotage::DropOnUnauthorized)
    {
        return delivered(shared, turn, token, ready.leases, limits).await;
    }
    let source = Arc::clone(&shared.lanes[turn.lane].token);
    let credential = (class == FailureClass::Unauthorized).then(|| {
        let fate = source.fate(token.generation);
        let credential = reject(shared, turn, token, &failure.record);
        words::add_fate(&mut failure.record, fate);
        credential
    });
    let turn = turn.clone();
    shared
        .blocking(move |shared| {
            if turn.parts > 1
                && matches!(class, FailureClass::DigestMismatch | FailureClass::Damaged)
            {
                match sort_out(shared, &turn, ready.leases, &failure.record) {
                    Ok(Sorted::AllIntact(leases)) => ready.leases = leases,
                    Ok(Sorted::SetAside) => {
                        let at = shared.moment();
                        shared.core().heard(&turn, &limits, at);
                        return next(shared, &turn);
                    }
                    Err(error) => return trouble(shared, &turn, &error),
                }
            }
            let mismatch = class == FailureClass::DigestMismatch;
            let failure = Failure {
                intact: !mismatch || turn.parts > 1 || is_intact(&ready.leases[0]),
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
            match settle(shared, &turn, ready.leases, judgement) {
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
        shared.core().lanes[turn.lane].tally.retries_used += u64::from(*counted);
    }
    judgement
}

fn settle(
    shared: &Shared,
    turn: &Turn,
    mut leases: Vec<Lease>,
    judgement: Judgement,
) -> Result<(), StoreError> {
    let Judgement { settle, record } = judgement;
    let grouped = turn.parts > 1;
    // What is said of several is written down for the first of them, which holds up the others; a refusal that breaks them
    // up, for none.
    let of_one = !grouped || grouping::refused(record.class, record.status).is_none();
    let lease = leases.remove(0);
    let rest = each(leases, Lease::release);
    tracing::debug!(
        chunk.id = %turn.chunk_key(),
        failure.class = %record.class,
        status = record.status,
        code = record.code,
        correlation.id = record.correlation_id,
        attempt = record.attempt,
        parts = turn.parts,
        settle = ?settle,
        "not delivered: {}",
        record.message
    );
    let settled = match settle {
        Settle::Nack { delay, counted } => lease.nack(delay, counted, Some(record)),
        Settle::Release if of_one && speaks_of_the_chunk(record.class) => {
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
    };
    rest.and(settled)
}

/// What became of a group of which some part may be damaged.
enum Sorted {
    AllIntact(Vec<Lease>),
    /// The damaged parts are dead letters, the others were given back.
    SetAside,
}

/// Reads every part, and sets aside those whose stored bytes are not what was accepted. Blocks.
fn sort_out(
    shared: &Shared,
    turn: &Turn,
    leases: Vec<Lease>,
    record: &FailureRecord,
) -> Result<Sorted, StoreError> {
    let (intact, broken): (Vec<Lease>, Vec<Lease>) = leases.into_iter().partition(is_intact);
    if broken.is_empty() {
        return Ok(Sorted::AllIntact(intact));
    }
    let mut result = Ok(());
    for lease in broken {
        let part = Turn {
            sequence: lease.head().sequence,
            bytes: lease.head().bytes,
            parts: 1,
            ..turn.clone()
        };
        let buried = lease.bury(DeadReason::Damaged, Some(record.clone()));
        if buried.is_ok() {
            tracing::warn!(chunk.id = %part.chunk_key(), "stored chunk is damaged: it is a dead letter");
            shared.core().buried(&part, false);
        }
        result = result.and(buried);
    }
    result.and(each(intact, Lease::release))?;
    Ok(Sorted::SetAside)
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
