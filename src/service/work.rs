//! The engine, built from the configuration and seen through [`Running`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{Config, OnDead, Tenant, Transport};
use crate::control::Refusal;
use crate::control::running::{Ended, Holder, Lane, Later, Running};
use crate::control::wire::{DrainReport, DrainSpec, DrainedRecordings, Finding};
use crate::engine::fetch::{Fetcher, Marks};
use crate::engine::{self, DrainSettings, End, Engine, EngineDeps, LaneSettings};
use crate::model::{Count, GateView, HoldView, TenantId, WorkersView};
use crate::platform::{Platform, Target};
use crate::policy::grouping;
use crate::store::{Store, StoreError, StoreView};

use super::check;
use super::recordings;
use super::report::{count_from, delivered, handed_over, report_of, tell_unreadable};
use super::slots::{Slots, Workshop, slots, tokens_in};
use super::transports::transport;

/// What an engine is started for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// `run`, `drain` or `check`.
    pub command: &'static str,
    /// Only this tenant's lane works; `None`: all.
    pub only: Option<TenantId>,
}

impl Role {
    pub fn of(command: &'static str) -> Self {
        Self {
            command,
            only: None,
        }
    }
}

/// An engine at work.
struct Work {
    engine: Engine,
    fetcher: Fetcher,
    role: Role,
    store: Store,
    clock: Arc<dyn Clock>,
    grace: Duration,
    /// Each tenant's slots.
    slots: BTreeMap<TenantId, Slots>,
    config: Arc<Config>,
    /// What was delivered before the engine started. The drain that it was started for counts from here, because
    /// delivering begins before anybody can ask for a drain.
    baseline: Mutex<Option<BTreeMap<TenantId, Count>>>,
    /// This process lets go of the store: whoever waits for a drain asks its successor.
    leaving: CancellationToken,
}

/// Starts an engine on the holder's store. Call on the runtime.
///
/// # Errors
/// A token slot or a transport cannot be built.
pub async fn start(holder: &Holder, role: Role) -> Result<Arc<dyn Running>, Refusal> {
    let chance = Arc::new(Chance::from_system());
    let tenants = holder.config.tenants.values();
    let workshop = Workshop {
        clock: Arc::clone(&holder.clock),
        chance: Arc::clone(&chance),
        tokens: tokens_in(&holder.config.store.path),
        pinned: tenants
            .clone()
            .filter_map(|tenant| {
                let pinned = holder.store.organisation(&tenant.id)?;
                Some((tenant.id.clone(), pinned))
            })
            .collect(),
    };
    let slots = slots(tenants, &workshop)?;
    let lanes = holder.config.tenants.values().map(|tenant| {
        let slots = &slots[&tenant.id];
        Ok(lane(tenant, slots, transport(tenant)?))
    });
    let lanes: Vec<LaneSettings> = lanes.collect::<Result<_, Refusal>>()?;
    let baseline = (role.command == "drain").then(|| delivered(&holder.store));
    recordings::count(holder, &role);
    let engine = Engine::start(EngineDeps {
        store: holder.store.clone(),
        lanes,
        clock: Arc::clone(&holder.clock),
        chance: Arc::clone(&chance),
        settings: settings(&holder.config, &role),
    })
    .await;
    let fetcher = recordings::start(holder, &role, &slots, &engine, chance)?;
    Ok(Arc::new(Work {
        engine,
        fetcher,
        role,
        store: holder.store.clone(),
        clock: Arc::clone(&holder.clock),
        grace: holder.config.pool.grace,
        slots: slots.into_iter().collect(),
        config: Arc::clone(&holder.config),
        baseline: Mutex::new(baseline),
        leaving: CancellationToken::new(),
    }))
}

fn settings(config: &Config, role: &Role) -> engine::Settings {
    // A check wants tokens and delivers nothing.
    let nobody = (role.command == "check").then(Vec::new);
    engine::Settings {
        workers: config.pool.workers,
        bytes: engine::Settings::BYTES,
        only: nobody.or_else(|| role.only.clone().map(|tenant| vec![tenant])),
        index_watch: engine::Settings::INDEX_WATCH,
        sabotaged: config.store_settings().sabotaged,
    }
}

fn lane(tenant: &Tenant, slots: &Slots, platform: Arc<dyn Platform>) -> LaneSettings {
    let delivery = &tenant.delivery;
    LaneSettings {
        target: Arc::new(Target {
            tenant: tenant.id.clone(),
            api_url: tenant.api_url.clone(),
            path: tenant.path.clone(),
            receipt: tenant.receipt,
        }),
        token: Arc::clone(&slots.main),
        fallback: slots.fallback.clone(),
        platform,
        concurrency: delivery.concurrency as usize,
        max_retries: delivery.max_retries,
        min_retry_span: delivery.min_retry_span,
        gap_wait: delivery.gap_wait,
        on_dead: match delivery.on_dead {
            OnDead::Skip => engine::OnDead::Skip,
            OnDead::Hold => engine::OnDead::Hold,
        },
        group: match tenant.transport {
            Transport::Json | Transport::Binary | Transport::Websocket => delivery.group,
            // Each part would be a request of its own all the same, and of a refused group some could be stored.
            Transport::Presigned => grouping::Limits::ALONE,
        },
        requests_per_minute: delivery.requests_per_minute,
    }
}

impl Work {
    /// The drain itself, or as much of it as this process did before it lets go of the store.
    async fn drain(&self, spec: DrainSpec) -> DrainReport {
        let only = spec.tenant.clone();
        let settings = DrainSettings {
            tenants: spec.tenant.map(|tenant| vec![tenant]),
            timeout: spec.timeout,
            patience: spec.patience,
        };
        let own = self.baseline.lock().expect("no drain panics").take();
        let is_own = own.is_some();
        // Fetching began before anybody could ask, too.
        let since = match is_own {
            true => Marks::default(),
            false => self.fetcher.marks(),
        };
        let before = own.unwrap_or_else(|| delivered(&self.store));
        let (progress, _) = tokio::sync::watch::channel(engine::DrainProgress::default());
        tokio::select! {
            // What was drained is drained, even if somebody asks for the store in the same moment.
            biased;
            (report, recordings) = self.drain_both(settings, &since, &progress) => {
                let mut report = report_of(report);
                report.recordings = recordings;
                tell_unreadable(&mut report, self.store.view().balance.unreadable);
                if is_own {
                    count_from(&mut report, &before, &delivered(&self.store));
                }
                report
            }
            () = self.leaving.cancelled() => {
                // What is on the wire still counts.
                self.stop_both(self.grace).await;
                handed_over(only.as_ref(), &before, &self.store.view())
            }
        }
    }

    async fn stop_both(&self, grace: Duration) {
        tokio::join!(self.engine.stop(grace), self.fetcher.stop(grace));
    }

    /// Uploads first; then what they leave of recordings to fetch.
    async fn drain_both(
        &self,
        settings: DrainSettings,
        since: &Marks,
        progress: &tokio::sync::watch::Sender<engine::DrainProgress>,
    ) -> (engine::DrainReport, BTreeMap<String, DrainedRecordings>) {
        let (timeout, patience) = (settings.timeout, settings.patience);
        let only = settings
            .tenants
            .as_ref()
            .and_then(|list| list.first())
            .cloned();
        let start = self.clock.now();
        let report = self.engine.drain(settings, progress).await;
        let left = timeout.map(|whole| whole.saturating_sub(self.clock.now().since(start)));
        let recordings =
            recordings::drain(&self.fetcher, since, only.as_ref(), left, patience).await;
        (report, recordings)
    }

    /// A token of every kind for every tenant, asked for now, and what the platform says to it.
    async fn check(&self) -> Vec<Finding> {
        let asked = self.slots.iter().flat_map(|(tenant, slots)| {
            let tenant = &self.config.tenants[tenant];
            let id = &tenant.id;
            let main = (
                format!("tenant {id}: token"),
                &slots.main,
                &tenant.auth.mint,
            );
            let fallback = slots.fallback.as_ref().zip(tenant.auth.fallback.as_ref());
            let fallback = fallback.map(|(slot, fallback)| {
                (format!("tenant {id}: fallback token"), slot, &fallback.mint)
            });
            let kinds = std::iter::once(main).chain(fallback);
            kinds.map(|(what, slot, mint)| check::token(what, slot, mint, tenant))
        });
        futures_util::future::join_all(asked).await
    }
}

impl Running for Work {
    fn command(&self) -> &'static str {
        self.role.command
    }

    fn lanes(&self, view: &StoreView) -> BTreeMap<TenantId, Lane> {
        let waiting = view.tenants.iter();
        let waiting: BTreeMap<_, _> = waiting.map(|(t, counts)| (t, counts.live.bytes)).collect();
        let lanes = self.engine.lanes().into_iter().map(|(tenant, view)| {
            let left = waiting.get(&tenant).copied().unwrap_or(0);
            let lane = Lane {
                eta_empty_s: view.eta_s(left),
                gate: with_recordings(view.gate, self.fetcher.holds(&tenant)),
                token: view.token,
                pace: Some(view.pace),
                gap_wait: view.gap_wait,
                last_delivery_s: view.last_delivery_s,
                retries_used: Some(view.retries_used),
                last_failure: view.last_failure,
            };
            (tenant, lane)
        });
        lanes.collect()
    }

    fn workers(&self) -> WorkersView {
        self.engine.workers()
    }

    fn pause(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        self.fetcher.pause(tenant);
        self.engine.pause(tenant)
    }

    fn resume(&self, tenant: &TenantId) -> Result<usize, StoreError> {
        let of_recordings = self.fetcher.resume(tenant);
        Ok(self.engine.resume(tenant)? + of_recordings)
    }

    fn drain(&self, spec: DrainSpec) -> Later<'_, DrainReport> {
        Box::pin(self.drain(spec))
    }

    fn check(&self) -> Later<'_, Vec<Finding>> {
        Box::pin(self.check())
    }

    fn hand_over(&self) -> bool {
        let gives = self.role.command == "drain";
        if gives {
            self.leaving.cancel();
        }
        gives
    }

    fn stop(&self, grace: Duration) -> Later<'_, ()> {
        Box::pin(async move {
            self.leaving.cancel();
            self.stop_both(grace).await;
        })
    }

    fn ended(&self) -> Later<'_, Ended> {
        let ended = self.engine.ended();
        Box::pin(async move {
            match ended.await {
                End::IndexLost(cause) => Ended::IndexLost(cause),
                End::Fault(cause) => Ended::Fault(cause),
                // Whoever stopped it does not wait for this.
                End::Stopped => std::future::pending().await,
            }
        })
    }
}

/// What holds recordings is shown beside what holds uploads, which alone make the gate's state: chunks wait for them.
fn with_recordings(mut gate: GateView, of_recordings: Vec<HoldView>) -> GateView {
    gate.holds.extend(of_recordings);
    gate
}
