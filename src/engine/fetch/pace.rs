//! The way of a fetch to the request budget that it shares with uploads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::clock::{Clock, Instant};
use crate::model::TenantId;
use crate::platform::Limits;

/// Whoever keeps the budgets.
pub trait Pace: Send + Sync {
    /// Begins a request, or says when to ask again: then, or after a change.
    ///
    /// # Errors
    /// It is not its turn.
    fn begin(&self, tenant: &TenantId, now: Instant) -> Result<u64, Option<Instant>>;

    /// Begins a request that cannot wait.
    fn charge(&self, tenant: &TenantId, now: Instant) -> u64;

    /// A request could begin but for the budget. Ends by [`Pace::withdraw`].
    fn wait(&self, tenant: &TenantId);
    fn withdraw(&self, tenant: &TenantId);

    fn heard(&self, tenant: &TenantId, number: u64, limits: &Limits, now: Instant);

    /// The platform refused a request for its rate.
    fn refused(&self, tenant: &TenantId, until: Instant);

    /// The request is over.
    fn end(&self, tenant: &TenantId, number: u64);

    /// Counts whatever may let a request begin.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A request that the budget was charged with; its drop ends it.
pub struct Begun {
    pace: Arc<dyn Pace>,
    tenant: TenantId,
    number: u64,
}

impl Begun {
    pub fn unasked(pace: &Arc<dyn Pace>, tenant: &TenantId, now: Instant) -> Self {
        Self {
            pace: Arc::clone(pace),
            tenant: tenant.clone(),
            number: pace.charge(tenant, now),
        }
    }

    pub fn heard(&self, limits: &Limits, now: Instant) {
        self.pace.heard(&self.tenant, self.number, limits, now);
    }

    pub fn refused(&self, wait: Duration, now: Instant) {
        self.pace.refused(&self.tenant, now.saturating_add(wait));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.pace.end(&self.tenant, self.number);
    }
}

/// Waits for the turn of a request, then for nothing more: a permit is had at the same moment. Dropping it withdraws.
pub async fn turn<'a>(
    pace: &Arc<dyn Pace>,
    clock: &dyn Clock,
    tenant: &TenantId,
    permits: Option<&'a Semaphore>,
) -> (Begun, Option<SemaphorePermit<'a>>) {
    let mut changes = pace.changes();
    let mut waiting: Option<Waiting<'_>> = None;
    loop {
        let permit = match permits {
            Some(permits) => Some(match permits.try_acquire() {
                Ok(permit) => permit,
                Err(_) => {
                    // Uploads wait for nobody who waits for others.
                    waiting = None;
                    permits.acquire().await.expect("nobody closes it")
                }
            }),
            None => None,
        };
        changes.borrow_and_update();
        let until = match pace.begin(tenant, clock.now()) {
            Ok(number) => {
                let begun = Begun {
                    pace: Arc::clone(pace),
                    tenant: tenant.clone(),
                    number,
                };
                return (begun, permit);
            }
            Err(until) => until,
        };
        drop(permit);
        waiting.get_or_insert_with(|| Waiting::begin(pace.as_ref(), tenant));
        let deadline = async {
            match until {
                Some(until) => clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = deadline => {}
        }
    }
}

struct Waiting<'a> {
    pace: &'a dyn Pace,
    tenant: &'a TenantId,
}

impl<'a> Waiting<'a> {
    fn begin(pace: &'a dyn Pace, tenant: &'a TenantId) -> Self {
        pace.wait(tenant);
        Self { pace, tenant }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pace.withdraw(self.tenant);
    }
}
