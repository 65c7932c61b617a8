//! Asking what became of chunks that a platform stored and did not yet take in. A task a lane; one question settles many, and
//! nothing of it stands in the way of uploads.

use std::sync::Arc;
use std::time::Duration;

use super::fetch::pace::{self, Pace};
use super::gate::Passage;
use super::pace::Budgets;
use super::shared::Shared;
use crate::auth::Rejection;
use crate::model::{FailureClass, FailureRecord, Route, TenantId};
use crate::platform::{Ingestion, Inquiry, Reported, part_key};
use crate::policy::backoff::{Backoff, half_jitter};
use crate::store::{ConfirmPlace, Confirming, StoreError};

/// In one question: keys of 64 digits stand in its URL.
const AT_ONCE: usize = 50;
/// After a question that was not answered.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(5), Duration::from_secs(15 * 60));
/// A drain waits so long for what an earlier one left to be confirmed.
const ONCE: Duration = Duration::from_secs(10);
/// No server is believed beyond this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Asks at once, and then every so often. Ends by being aborted.
pub async fn poll(shared: Arc<Shared>, lane: usize, every: Duration) {
    let mut failed = 0;
    loop {
        let wait = match round(&shared, lane).await {
            Ok(()) => {
                failed = 0;
                every
            }
            Err(hint) => {
                failed += 1;
                let own = half_jitter(BACKOFF.interval(failed), shared.chance.draw());
                own.max(hint).max(every).min(LONGEST)
            }
        };
        let next = shared.clock.now().saturating_add(wait);
        shared.clock.sleep_until(next).await;
    }
}

/// Asks once, within [`ONCE`] a lane: a host that only drains asks at no other time.
pub async fn once(shared: &Arc<Shared>, tenants: Option<&[TenantId]>) {
    for lane in 0..shared.lanes.len() {
        let parts = &shared.lanes[lane];
        let is_meant = tenants.is_none_or(|meant| meant.contains(&parts.target.tenant));
        if parts.platform.confirms().is_none() || !is_meant {
            continue;
        }
        let deadline = shared.clock.now().saturating_add(ONCE);
        tokio::select! {
            // What went wrong was logged, and is tried again by the poll.
            _ = round(shared, lane) => {}
            () = shared.clock.sleep_until(deadline) => {}
        }
    }
}

/// Asks after everything that is confirming now. The error is the platform's wish to be left alone.
async fn round(shared: &Arc<Shared>, lane: usize) -> Result<(), Duration> {
    let mut after = None;
    loop {
        let chunks = shared
            .blocking(move |shared| list(shared, lane, after))
            .await
            .map_err(|error| trouble(shared, &error))?;
        let Some(last) = chunks.last() else {
            return Ok(());
        };
        after = Some(last.place);
        if !may_ask(shared, lane) {
            return Ok(());
        }
        ask(shared, lane, chunks).await?;
    }
}

fn list(
    shared: &Shared,
    lane: usize,
    after: Option<ConfirmPlace>,
) -> Result<Vec<Confirming>, StoreError> {
    let tenant = &shared.lanes[lane].target.tenant;
    shared.store.confirming(tenant, after, AT_ONCE)
}

fn may_ask(shared: &Shared, lane: usize) -> bool {
    let core = shared.core();
    let (lane, now) = (&core.lanes[lane], shared.clock.now());
    !lane.asleep && lane.gate.passage(Route::Fetch, now) == Passage::Open
}

async fn ask(shared: &Arc<Shared>, lane: usize, chunks: Vec<Confirming>) -> Result<(), Duration> {
    let parts = &shared.lanes[lane];
    let Ok(token) = parts.token.token().await else {
        return Err(Duration::ZERO);
    };
    let tenant = &parts.target.tenant;
    let budgets: Arc<dyn Pace> = Arc::new(Budgets(Arc::clone(shared)));
    let (begun, _) = pace::turn(&budgets, shared.clock.as_ref(), tenant, None).await;
    let inquiry = Inquiry {
        target: Arc::clone(&parts.target),
        token: token.clone(),
        keys: chunks.iter().map(|chunk| part_key(&chunk.meta)).collect(),
        at: shared.clock.wall(),
    };
    let (reported, limits) = parts.platform.report(inquiry).await;
    begun.heard(&limits, shared.clock.now());
    match reported {
        Reported::Told(told) => {
            let settled = shared
                .blocking(move |shared| settle(shared, &chunks, told))
                .await;
            shared.stir();
            settled.map_err(|error| trouble(shared, &error))
        }
        Reported::Failed(failure) => {
            tracing::debug!(
                tenant.id = %parts.target.tenant,
                failure.class = %failure.record.class,
                "upload report not had: {}",
                failure.record.message
            );
            remember(shared, lane, &chunks[0], &failure.record);
            if failure.record.class == FailureClass::Unauthorized {
                parts.token.reject(Rejection {
                    generation: token.generation,
                    session: chunks[0].meta.key.session_key(),
                    only_session: false,
                    record: failure.record.clone(),
                });
            }
            let wait = failure.retry_after.unwrap_or_default();
            if failure.record.class == FailureClass::Throttled {
                begun.refused(wait, shared.clock.now());
            }
            Err(wait)
        }
    }
}

/// Nothing else tells an operator why what is stored there stays in the backlog.
fn remember(shared: &Shared, lane: usize, chunk: &Confirming, record: &FailureRecord) {
    let message = format!("asking what became of uploads: {}", record.message);
    let record = FailureRecord {
        message,
        ..record.clone()
    };
    shared.core().lanes[lane].last_failure = Some((chunk.meta.key.clone(), record));
}

/// Blocks.
fn settle(shared: &Shared, chunks: &[Confirming], told: Vec<Ingestion>) -> Result<(), StoreError> {
    for (chunk, told) in chunks.iter().zip(told) {
        match told {
            Ingestion::Done => shared.store.confirmed(chunk)?,
            Ingestion::Refused(record) => refused(shared, chunk, *record)?,
            Ingestion::Pending => {}
        }
    }
    Ok(())
}

fn refused(shared: &Shared, chunk: &Confirming, record: FailureRecord) -> Result<(), StoreError> {
    let key = &chunk.meta.key;
    tracing::warn!(chunk.id = %key, "stored and not taken in: it is sent again: {}", record.message);
    shared.store.unconfirmed(chunk, record)
}

fn trouble(shared: &Shared, error: &StoreError) -> Duration {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "confirming chunks stay as they are"
    );
    shared.heed(error);
    Duration::ZERO
}
