//! What every task of the engine holds in common, and the few ways in which they touch it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::credential::{Credentials, Occasion};
use super::gate::{GateEvent, Moment};
use super::hold::{HoldChange, HoldKind};
use super::scheduler::Scheduler;
use crate::auth::{CredentialHold, TokenSource};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::model::ChunkKey;
use crate::platform::{Platform, Target};
use crate::store::{Store, StoreError};

/// What a lane sends with.
pub struct LaneParts {
    pub target: Arc<Target>,
    pub token: Arc<dyn TokenSource>,
    pub platform: Arc<dyn Platform>,
    /// The store knows whose tokens these are, as far as they show it.
    pub pinned: AtomicBool,
}

/// Why and how the engine is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What requests on the wire are given.
    pub grace: Duration,
    pub end: End,
}

/// How an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// The store's index is lost: the next start rebuilds it.
    IndexLost(String),
    /// A fault of this program.
    Fault(String),
}

/// In-flight work of a store without an index.
const GRACE_WITHOUT_INDEX: Duration = Duration::from_secs(5);

pub struct Shared {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub settings: Settings,
    /// By lane number; lanes of tenants that nobody configured come behind and have none.
    pub lanes: Vec<LaneParts>,
    /// Never held across an await, nor while the store or a token source is called.
    core: Mutex<Scheduler>,
    /// A leaf: nothing else is locked, and nobody called, while it is held.
    credentials: Mutex<Credentials>,
    /// Holds are told to the store in the order in which they changed.
    telling: Mutex<()>,
    /// Arrivals are known to the scheduler before another taker goes on.
    taking: Mutex<()>,
    /// Something to look at, for the pool.
    pub wake: Notify,
    pub arrived: AtomicBool,
    /// Counts whatever a drain might wait for.
    pub changes: watch::Sender<u64>,
    pub order: watch::Sender<Option<Order>>,
    /// Requests on the wire are dropped.
    pub abort: CancellationToken,
}

impl Shared {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
        settings: Settings,
        lanes: Vec<LaneParts>,
        core: Scheduler,
    ) -> Self {
        Self {
            store,
            clock,
            chance,
            settings,
            credentials: Mutex::new(Credentials::new(lanes.len())),
            lanes,
            core: Mutex::new(core),
            telling: Mutex::new(()),
            taking: Mutex::new(()),
            wake: Notify::new(),
            arrived: AtomicBool::new(true),
            changes: watch::Sender::new(0),
            order: watch::Sender::new(None),
            abort: CancellationToken::new(),
        }
    }

    pub fn core(&self) -> MutexGuard<'_, Scheduler> {
        self.core.lock().expect("no decision panics")
    }

    pub fn credentials(&self) -> MutexGuard<'_, Credentials> {
        self.credentials.lock().expect("no bookkeeping panics")
    }

    /// The lane's slot refuses.
    pub fn slot_refuses(&self, lane: usize, hold: &CredentialHold, occasion: Occasion) {
        let tenant = &self.lanes[lane].target.tenant;
        let at = self.moment();
        self.credentials().held(lane, tenant, hold, occasion, at);
    }

    /// The last word on every slot: nobody tells of it later. Blocks.
    pub fn keep_credentials(&self) {
        for (lane, parts) in self.lanes.iter().enumerate() {
            if let Some(hold) = parts.token.hold() {
                self.slot_refuses(lane, &hold, Occasion::Ending);
            } else if parts.token.view().state == "valid" {
                // A check had it, and no lane asked for it.
                self.credentials().gives(lane);
            }
        }
        // What could not be stored was logged.
        let _ = self.tell_holds();
    }

    /// The store or the log has something to hear.
    pub fn has_news(&self) -> bool {
        self.core().has_news() || self.credentials().has_news()
    }

    pub fn moment(&self) -> Moment {
        Moment::new(self.clock.now(), self.clock.wall())
    }

    /// The pool looks again, and so does whoever waits for a change.
    pub fn stir(&self) {
        self.wake.notify_one();
        self.tell_change();
    }

    /// Whoever waits for a change looks again; the pool need not.
    pub fn tell_change(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn sessions_arrived(&self) {
        self.arrived.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Runs a call of the store where it may block. A panic in it goes on here.
    pub async fn blocking<T: Send + 'static>(
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

    /// Tells the store, and the log, what became of holds. Blocks. A hold that could not be stored is in force all the same.
    pub fn tell_holds(&self) -> Result<(), StoreError> {
        let _in_order = self.telling.lock().expect("no teller panics");
        let (mut changes, events) = {
            let mut core = self.core();
            (core.take_changes(), core.take_events())
        };
        changes.extend(self.credentials().take_changes());
        for event in &events {
            log(event);
        }
        let mut result = Ok(());
        for change in changes {
            let told = match change {
                HoldChange::Put(hold) => self.store.put_hold(hold),
                HoldChange::Remove(key) => self.store.remove_hold(&key),
            };
            if let Err(error) = told {
                tracing::warn!(error = &error as &dyn std::error::Error, "hold not stored");
                result = Err(error);
            }
        }
        result
    }

    /// The first order counts, but a lost index is always said.
    pub fn give_order(&self, order: Order) {
        self.order.send_if_modified(|current| match current {
            Some(given) if given.end == End::Stopped && order.end != End::Stopped => {
                given.end = order.end;
                true
            }
            Some(_) => false,
            None => {
                *current = Some(order);
                true
            }
        });
        self.wake.notify_one();
    }

    /// Asks the index something cheap, of a chunk that nobody has: its answer shows that it is alive, and that it knows
    /// everything handed to it before. Blocks.
    pub fn ask_index(&self) -> Result<(), StoreError> {
        let key = ChunkKey {
            tenant: "reelay".parse().expect("a valid name"),
            session: "index-watch".parse().expect("a valid name"),
            sequence: 0,
        };
        self.store.history(&key).map(drop)
    }

    /// Tells the scheduler which sessions have news. Blocks.
    pub fn take_arrivals(&self) {
        let _in_order = self.taking.lock().expect("no taker panics");
        let arrivals = self.store.take_arrivals();
        let at = self.moment();
        let mut core = self.core();
        for session in arrivals {
            core.arrived(session, at);
        }
    }

    /// What a failed call of the store means beyond its caller.
    pub fn heed(&self, error: &StoreError) {
        if let StoreError::IndexLost { cause } = error {
            self.give_order(Order {
                grace: GRACE_WITHOUT_INDEX,
                end: End::IndexLost(cause.clone()),
            });
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.order.borrow().is_some()
    }
}

fn log(event: &GateEvent) {
    let (tenant, hold) = (&event.tenant, event.id.name());
    match &event.set {
        Some(reason) if event.id.kind == HoldKind::Blocked => {
            tracing::error!(tenant.id = %tenant, hold, "tenant {tenant} is blocked: {reason}");
        }
        Some(reason) => {
            tracing::warn!(tenant.id = %tenant, hold, "tenant {tenant} waits: {reason}");
        }
        None => tracing::info!(tenant.id = %tenant, hold, "tenant {tenant}: hold ended"),
    }
}
