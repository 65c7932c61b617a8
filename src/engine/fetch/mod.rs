//! Metadata of recordings, fetched beside the uploads and never in their way: a task a tenant with one request on the
//! wire, a few permits for all. It has a gate of its own for the fetch route and shares the tenant's token slot.
//!
//! | task | waits for | ends by |
//! |---|---|---|
//! | a tenant's fetches (`lane.rs`) | something due, its gate, a token, its turn and a permit, the answer | the stop; then the abort after the grace period |

mod drain;
mod judge;
mod lane;
pub mod pace;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gate::Moment;
use crate::auth::TokenSource;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::model::{HoldView, RecordingId, SessionKey, TenantId};
use crate::platform::fetch::{Archive, Source};
use crate::store::records::Part;
use crate::store::{Lease, Store, StoredHold};
use lane::Lane;

pub use drain::{FetchDrained, Marks};
pub use pace::Pace;

/// Requests on the wire, all tenants: enough for hundreds of recordings a minute, too few to matter to uploads.
const PERMITS: usize = 4;

/// One tenant's recordings.
pub struct FetchLane {
    pub source: Arc<Source>,
    pub token: Arc<dyn TokenSource>,
    /// Another kind of token, tried once for a recording that is refused for its purview.
    pub fallback: Option<Arc<dyn TokenSource>>,
    pub archive: Arc<dyn Archive>,
    /// What the tenant's tokens have to speak for, where that is known.
    pub organization: Option<String>,
    /// Sessions that ended are compared with what the platform has.
    pub verify: bool,
    /// A session that is silent for so long has ended.
    pub session_idle: Duration,
}

/// Everything that fetching stands on.
pub struct FetchDeps {
    pub store: Store,
    pub lanes: Vec<FetchLane>,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub pace: Arc<dyn Pace>,
}

/// Fetches until it is stopped or dropped.
pub struct Fetcher {
    shared: Arc<Shared>,
    lanes: BTreeMap<TenantId, Arc<Lane>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What every lane uses.
struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    pace: Arc<dyn Pace>,
    permits: Semaphore,
    /// Nothing new is begun.
    stop: CancellationToken,
    /// Requests on the wire are dropped.
    abort: CancellationToken,
}

impl Shared {
    fn moment(&self) -> Moment {
        Moment::new(self.clock.now(), self.clock.wall())
    }

    /// Runs a call of the store where it may block. A panic in it goes on here.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(self);
        match tokio::task::spawn_blocking(move || call(&shared)).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is going down cancels a blocking call; this task goes with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Fetcher {
    /// Starts fetching. Must be called on a runtime, and once for a store.
    pub fn start(deps: FetchDeps) -> Self {
        let shared = Arc::new(Shared {
            store: deps.store,
            clock: deps.clock,
            chance: deps.chance,
            pace: deps.pace,
            permits: Semaphore::new(PERMITS),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let compared = deps.lanes.iter().filter(|lane| lane.verify);
        let compared: BTreeSet<_> = compared.map(|lane| lane.source.tenant.clone()).collect();
        let records = shared.store.records();
        records.count_for(compared);
        let holds = shared.store.holds();
        let lanes: BTreeMap<_, _> = deps
            .lanes
            .into_iter()
            .map(|about| {
                let lane = Lane::new(about, &holds, shared.clock.now());
                (lane.about.source.tenant.clone(), Arc::new(lane))
            })
            .collect();
        let woken = lanes.clone();
        records.on_change(Box::new(move |tenant| {
            if let Some(lane) = woken.get(tenant) {
                lane.stir();
            }
        }));
        let mut tasks = JoinSet::new();
        for lane in lanes.values() {
            tasks.spawn(lane::run(Arc::clone(lane), Arc::clone(&shared)));
        }
        Self {
            shared,
            lanes,
            tasks: Mutex::new(tasks),
        }
    }

    /// The operator's hold of all routes, which the engine stores.
    pub fn pause(&self, tenant: &TenantId) {
        if let Some(lane) = self.lanes.get(tenant) {
            lane.pause(self.shared.moment());
            lane.stir();
        }
    }

    /// Ends that hold and tries now whatever waits for a cure. Blocks. How many holds of this route that were.
    pub fn resume(&self, tenant: &TenantId) -> usize {
        let Some(lane) = self.lanes.get(tenant) else {
            return 0;
        };
        let touched = lane.resume(self.shared.clock.now());
        if let Some(fallback) = &lane.about.fallback {
            fallback.retry_now();
        }
        lane.tell_holds(&self.shared);
        lane.stir();
        touched
    }

    /// What holds a tenant's fetch route.
    pub fn holds(&self, tenant: &TenantId) -> Vec<HoldView> {
        let at = self.shared.moment();
        let lane = self.lanes.get(tenant);
        lane.map_or_else(Vec::new, |lane| lane.holds(at))
    }

    /// Begins nothing new, gives requests on the wire `grace`.
    pub async fn stop(&self, grace: Duration) {
        self.shared.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        let deadline = self.shared.clock.now().saturating_add(grace);
        let ended = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => return,
            () = self.shared.clock.sleep_until(deadline) => self.shared.abort.cancel(),
        }
        // What is left hangs; its recordings are wanted again at the next start.
        tasks.shutdown().await;
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.abort.cancel();
    }
}

/// Whether a stored hold is the fetch route's business.
pub fn owns(hold: &StoredHold) -> bool {
    lane::is_stored_here(&hold.key.name)
}

/// Notes which recording delivered chunks belong to. Call before they are acknowledged. Whether
/// [`crate::store::records::Records::stir`] is to follow.
pub async fn remember(
    shared: &Arc<super::shared::Shared>,
    leases: &[Lease],
    recording: Option<RecordingId>,
) -> bool {
    let Some(recording) = recording else {
        return false;
    };
    let part = |lease: &Lease| {
        let meta = lease.meta();
        Part {
            tenant: meta.key.tenant.clone(),
            session: meta.key.session.clone(),
            recording: recording.clone(),
            sequence: meta.key.sequence,
            bytes: meta.bytes,
            digest: meta.digest,
            last: meta.last,
            at: shared.clock.wall(),
        }
    };
    let parts: Vec<Part> = leases.iter().map(part).collect();
    shared
        .blocking(move |shared| {
            let records = shared.store.records();
            let mut news = false;
            if let Some(part) = parts.first() {
                let (tenant, session) = (part.tenant.clone(), part.session.clone());
                news |= (shared.store).session_has_ended(&SessionKey { tenant, session });
            }
            for part in parts {
                news |= records.delivered(part);
            }
            news
        })
        .await
}
