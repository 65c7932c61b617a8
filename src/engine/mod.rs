//! Lanes, gates and the worker pool: what leases from the store, sends to the platform and settles.
//!
//! A pure core decides (`scheduler` and what it is made of: no clock, no chance, no I/O); a thin shell does
//! (`pool`, `worker`, `settle`, `token`, `drain`). A turn needs, in this order, an open gate, a usable token,
//! room in its lane, its domain's pacer, room in the pool and its byte budget, and a lease; nothing later is held while waiting for anything earlier,
//! because one loop looks at all of them at once and begins a turn only when none is missing.

mod budget;
mod confirm;
mod credential;
mod drain;
mod evidence;
mod facts;
pub mod fetch;
mod gate;
mod group;
mod hold;
mod judge;
mod kept;
mod lane;
mod limit;
mod pace;
mod pool;
mod rate;
mod scheduler;
mod session;
mod settle;
mod shared;
mod standing;
mod token;
mod view;
mod words;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use crate::auth::TokenSource;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::model::{SessionId, TenantId, WorkersView};
use crate::platform::{Platform, Target};
use crate::policy::grouping;
use crate::policy::pacing::Pacer;
use crate::policy::retry::Limits;
use crate::sabotage::Sabotaged;
use crate::store::{Store, StoreError};

pub use drain::{DrainOutcome, DrainProgress, DrainReport, DrainSettings, DrainedTenant};
pub use kept::view as stored_hold_view;
pub use session::OnDead;
pub use shared::End;
pub use view::{LaneView, Why};

use credential::Credentials;
use lane::LaneRules;
use pool::Pool;
use scheduler::Scheduler;
use session::Rules;
use shared::{LaneParts, Order, Shared};

/// One tenant's way to the cloud.
pub struct LaneSettings {
    pub target: Arc<Target>,
    pub token: Arc<dyn TokenSource>,
    /// Another kind of token, for fetches that the first will not do for.
    pub fallback: Option<Arc<dyn TokenSource>>,
    pub platform: Arc<dyn Platform>,
    /// Requests on the wire at most.
    pub concurrency: usize,
    /// Counted failures before a chunk is a dead letter, at most 60.
    pub max_retries: u32,
    /// And the least time that they must span.
    pub min_retry_span: Duration,
    /// How long a missing sequence is waited for.
    pub gap_wait: Duration,
    pub on_dead: OnDead,
    /// What one request may hold.
    pub group: grouping::Limits,
    /// The platform's request budget, where it is known before the first answer.
    pub requests_per_minute: Option<u64>,
}

impl LaneSettings {
    pub const CONCURRENCY: usize = 4;
    pub const MAX_RETRIES: u32 = 10;
    pub const MIN_RETRY_SPAN: Duration = Duration::from_secs(24 * 3600);
    pub const GAP_WAIT: Duration = Duration::from_secs(120);
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// Uploads in flight, all tenants.
    pub workers: usize,
    /// What all uploads may hold in memory together; see [`Settings::BYTES`].
    pub bytes: u64,
    /// Only these tenants' lanes work; the chunks of others stay where they are. `None`: all.
    pub only: Option<Vec<TenantId>>,
    /// How often the store's index is asked whether it is alive; see [`Settings::INDEX_WATCH`].
    pub index_watch: Duration,
    pub sabotaged: Sabotaged,
}

impl Settings {
    pub const WORKERS: usize = 16;
    /// Each upload counts with its length, with 1 MiB at most.
    pub const BYTES: u64 = 256 << 20;
    /// An index that hangs while nobody needs it is noticed after this and the store's own patience of 5 s; with the
    /// grace of 5 s that stays below the 15 s within which the process has to end.
    pub const INDEX_WATCH: Duration = Duration::from_secs(3);
}

/// Everything that an engine stands on.
pub struct EngineDeps {
    pub store: Store,
    pub lanes: Vec<LaneSettings>,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub settings: Settings,
}

/// A running engine. Ends by [`Engine::stop`], by being dropped, or by itself when it cannot go on.
pub struct Engine {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<End>>,
}

impl Engine {
    /// Starts delivering. Must be called on a runtime, and once for a store.
    pub async fn start(deps: EngineDeps) -> Self {
        let (core, parts) = build(&deps);
        let EngineDeps {
            store,
            clock,
            chance,
            settings,
            ..
        } = deps;
        let shared = Arc::new(Shared::new(store, clock, chance, settings, parts, core));
        shared.blocking(restore_holds).await;
        let arrivals = Arc::downgrade(&shared);
        shared.store.on_arrival(Box::new(move || {
            if let Some(shared) = arrivals.upgrade() {
                shared.sessions_arrived();
            }
        }));
        let (end, ended) = watch::channel(None);
        let pool = Pool::new(Arc::clone(&shared));
        let ending = Arc::clone(&shared);
        tokio::spawn(async move {
            let fault = |_| End::Fault("the worker pool panicked".to_owned());
            let ended = AssertUnwindSafe(pool.run()).catch_unwind().await;
            let ended = ended.unwrap_or_else(fault);
            if ended == End::Stopped {
                ending.blocking(Shared::keep_credentials).await;
            }
            end.send_replace(Some(ended));
        });
        Self { shared, ended }
    }

    /// Leases nothing more at once, gives requests on the wire `grace`, releases the rest with nothing counted.
    pub async fn stop(&self, grace: Duration) -> End {
        self.shared.give_order(Order {
            grace,
            end: End::Stopped,
        });
        self.ended().await
    }

    /// Ends when the engine has ended, however that came.
    pub fn ended(&self) -> impl Future<Output = End> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone().expect("waited for it"),
                Err(_) => End::Fault("the worker pool was dropped".to_owned()),
            }
        }
    }

    /// Durable when it returns. Blocks. Whether the tenant was paused before.
    ///
    /// # Errors
    /// The hold is in force and could not be stored.
    pub fn pause(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        let at = self.shared.moment();
        let was = {
            let mut core = self.shared.core();
            match core.lane_of(tenant) {
                Some(lane) => core.pause(lane, at),
                None => return Ok(false),
            }
        };
        let told = self.shared.tell_holds();
        self.shared.stir();
        told.map(|()| was)
    }

    /// Removes the operator's hold and tries now whatever waits for a cure. Blocks. How many holds that were.
    ///
    /// # Errors
    /// The hold is gone and its removal could not be stored.
    pub fn resume(&self, tenant: &TenantId) -> Result<usize, StoreError> {
        let now = self.shared.clock.now();
        let (lane, mut touched) = {
            let mut core = self.shared.core();
            let Some(lane) = core.lane_of(tenant) else {
                return Ok(0);
            };
            (lane, core.resume(lane, now))
        };
        if let Some(parts) = self.shared.lanes.get(lane) {
            touched += usize::from(parts.token.hold().is_some());
            parts.token.retry_now();
        }
        let told = self.shared.tell_holds();
        self.shared.stir();
        told.map(|()| touched)
    }

    /// Lanes as they are now.
    pub fn lanes(&self) -> BTreeMap<TenantId, LaneView> {
        view::lanes(&self.shared)
    }

    pub fn workers(&self) -> WorkersView {
        let core = self.shared.core();
        let busy = core.in_flight();
        WorkersView {
            busy: busy as u64,
            idle: core.workers().saturating_sub(busy) as u64,
        }
    }

    /// What a tenant, or one of its sessions, waits for. `None`: the engine knows nothing of it.
    pub fn why(&self, tenant: &TenantId, session: Option<&SessionId>) -> Option<Why> {
        view::why(&self.shared, tenant, session)
    }

    /// The request budgets, for whoever fetches beside the uploads.
    pub fn budgets(&self) -> Arc<dyn fetch::Pace> {
        Arc::new(pace::Budgets(Arc::clone(&self.shared)))
    }

    /// Delivers what stands before the fence of this moment. Dropping the future stops nothing but the waiting.
    pub async fn drain(
        &self,
        settings: DrainSettings,
        progress: &watch::Sender<DrainProgress>,
    ) -> DrainReport {
        let ended = self.ended();
        confirm::once(&self.shared, settings.tenants.as_deref()).await;
        drain::drain(&self.shared, settings, progress, ended).await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.give_order(Order {
            grace: Duration::ZERO,
            end: End::Stopped,
        });
    }
}

fn build(deps: &EngineDeps) -> (Scheduler, Vec<LaneParts>) {
    let workers = deps.settings.workers.max(1);
    let mut core = Scheduler::new(workers, deps.settings.bytes);
    let mut parts = Vec::new();
    for lane in &deps.lanes {
        let tenant = lane.target.tenant.clone();
        let asleep = match &deps.settings.only {
            Some(only) => !only.contains(&tenant),
            None => false,
        };
        let number = core.add_lane(tenant, rules(lane, workers, deps.lanes.len()));
        core.set_asleep(number, asleep);
        core.join_domain(number, &domain(lane), || match lane.requests_per_minute {
            Some(requests) => Pacer::with_budget(requests, Duration::from_secs(60)),
            None => Pacer::default(),
        });
        parts.push(LaneParts {
            target: Arc::clone(&lane.target),
            token: Arc::clone(&lane.token),
            platform: Arc::clone(&lane.platform),
            pinned: AtomicBool::new(false),
        });
    }
    (core, parts)
}

fn rules(lane: &LaneSettings, workers: usize, lanes: usize) -> LaneRules {
    // A tenant whose platform stalls must leave workers for the others.
    let most = if lanes > 1 {
        (workers * 3 / 4).max(1)
    } else {
        workers
    };
    LaneRules {
        limits: Limits {
            max_retries: lane.max_retries,
            min_retry_span: lane.min_retry_span,
        },
        sessions: Rules {
            gap_wait: lane.gap_wait,
            on_dead: lane.on_dead,
        },
        concurrency: lane.concurrency.clamp(1, most),
        group: lane.group,
    }
}

/// Whose budget a lane spends: a host counts by client.
fn domain(lane: &LaneSettings) -> String {
    let target = &lane.target;
    let rest = target.api_url.split_once("://");
    let host = rest.map_or(target.api_url.as_str(), |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    match lane.token.client_id() {
        Some(client) => format!("{host} {client}"),
        None => format!("{host} of {}", target.tenant),
    }
}

fn restore_holds(shared: &Shared) {
    let now = shared.clock.now();
    let holds = shared.store.holds().into_iter();
    for hold in holds.filter(|hold| !fetch::owns(hold)) {
        if Credentials::is_one(&hold.key) {
            let lane = shared.core().lane_of(&hold.key.tenant);
            shared.credentials().restore(lane, hold);
        } else {
            shared.core().restore(&hold, now);
        }
    }
}
