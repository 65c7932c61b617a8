//! The engine, built from the configuration and seen through [`Running`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::TokenSource;
use crate::chance::Chance;
use crate::config::{Config, OnDead, Tenant};
use crate::control::running::{Ended, Holder, Lane, Later, Running};
use crate::control::wire::{DrainOutcome, DrainReport, DrainSpec, DrainedTenant, Finding, Level};
use crate::control::{Refusal, words};
use crate::engine::{self, DrainSettings, End, Engine, EngineDeps, LaneSettings};
use crate::model::{Count, TenantId, Timestamp, WorkersView};
use crate::platform::{JsonPlatform, Platform, Target, Timeouts};
use crate::store::{Store, StoreError, StoreView};

use super::slots::slots;

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
    role: Role,
    store: Store,
    grace: Duration,
    slots: BTreeMap<TenantId, Arc<dyn TokenSource>>,
    /// This process lets go of the store: whoever waits for a drain asks its successor.
    leaving: CancellationToken,
}

/// Starts an engine on the holder's store. Call on the runtime.
///
/// # Errors
/// A token slot cannot be built.
pub async fn start(holder: &Holder, role: Role) -> Result<Arc<dyn Running>, Refusal> {
    let chance = Arc::new(Chance::from_system());
    let tenants = holder.config.tenants.values();
    let slots = slots(tenants, &holder.clock, &chance)?;
    let platform: Arc<dyn Platform> = Arc::new(JsonPlatform::new(Timeouts::default()));
    let lanes = holder.config.tenants.values().map(|tenant| {
        let token = Arc::clone(&slots[&tenant.id]);
        lane(tenant, token, Arc::clone(&platform))
    });
    let engine = Engine::start(EngineDeps {
        store: holder.store.clone(),
        lanes: lanes.collect(),
        clock: Arc::clone(&holder.clock),
        chance,
        settings: settings(&holder.config, &role),
    })
    .await;
    Ok(Arc::new(Work {
        engine,
        role,
        store: holder.store.clone(),
        grace: holder.config.pool.grace,
        slots: slots.into_iter().collect(),
        leaving: CancellationToken::new(),
    }))
}

fn settings(config: &Config, role: &Role) -> engine::Settings {
    // A check wants tokens and delivers nothing.
    let nobody = (role.command == "check").then(Vec::new);
    engine::Settings {
        workers: config.pool.workers,
        only: nobody.or_else(|| role.only.clone().map(|tenant| vec![tenant])),
        index_watch: engine::Settings::INDEX_WATCH,
        sabotaged: config.store_settings().sabotaged,
    }
}

fn lane(tenant: &Tenant, token: Arc<dyn TokenSource>, platform: Arc<dyn Platform>) -> LaneSettings {
    let delivery = &tenant.delivery;
    LaneSettings {
        target: Arc::new(Target {
            tenant: tenant.id.clone(),
            api_url: tenant.api_url.clone(),
            path: tenant.path.clone(),
            receipt: tenant.receipt,
        }),
        token,
        platform,
        concurrency: delivery.concurrency as usize,
        max_retries: delivery.max_retries,
        min_retry_span: delivery.min_retry_span,
        gap_wait: delivery.gap_wait,
        on_dead: match delivery.on_dead {
            OnDead::Skip => engine::OnDead::Skip,
            OnDead::Hold => engine::OnDead::Hold,
        },
    }
}

impl Work {
    /// The drain itself, or as much of it as this process did before it lets go of the store.
    async fn drain(&self, spec: DrainSpec) -> DrainReport {
        let settings = DrainSettings {
            tenants: spec.tenant.map(|tenant| vec![tenant]),
            timeout: spec.timeout,
            patience: spec.patience,
        };
        let before = self.delivered();
        let (progress, _) = tokio::sync::watch::channel(engine::DrainProgress::default());
        tokio::select! {
            // What was drained is drained, even if somebody asks for the store in the same moment.
            biased;
            report = self.engine.drain(settings, &progress) => report_of(report),
            () = self.leaving.cancelled() => {
                // What is on the wire still counts.
                self.engine.stop(self.grace).await;
                handed_over(&before, &self.delivered())
            }
        }
    }

    fn delivered(&self) -> BTreeMap<TenantId, Count> {
        let tenants = self.store.view().tenants;
        let delivered = tenants
            .into_iter()
            .map(|(tenant, counts)| (tenant, counts.delivered));
        delivered.collect()
    }

    /// A token for every tenant, asked for now.
    async fn check(&self) -> Vec<Finding> {
        let asked = self
            .slots
            .iter()
            .map(|(tenant, slot)| check_token(tenant, slot));
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
                gate: view.gate,
                token: view.token,
                last_delivery_s: view.last_delivery_s,
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
        self.engine.pause(tenant)
    }

    fn resume(&self, tenant: &TenantId) -> Result<usize, StoreError> {
        self.engine.resume(tenant)
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
            self.engine.stop(grace).await;
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

async fn check_token(tenant: &TenantId, slot: &Arc<dyn TokenSource>) -> Finding {
    let (level, message) = match slot.token().await {
        Ok(_) => {
            let life = slot.view().expires_in_s.map(Duration::from_secs);
            let life = life.map_or_else(String::new, |life| {
                format!(", valid for {}", words::span(life))
            });
            (Level::Ok, format!("had{life}"))
        }
        Err(hold) => (Level::Critical, [hold.reason, hold.remedy].join(". ")),
    };
    Finding {
        what: format!("tenant {tenant}: token"),
        level,
        message: message.trim_end_matches(". ").to_owned(),
    }
}

fn report_of(report: engine::DrainReport) -> DrainReport {
    let tenants = report.tenants.into_iter().map(|(tenant, part)| {
        let part = DrainedTenant {
            outcome: outcome(part.outcome),
            delivered: part.delivered,
            left: part.left,
            dead: part.dead,
            dead_before: part.dead_before,
            reason: part.reason,
            until: part.until.as_ref().map(Timestamp::to_string),
        };
        (tenant.to_string(), part)
    });
    DrainReport {
        outcome: outcome(report.outcome),
        delivered: report.delivered,
        left: report.left,
        tenants: tenants.collect(),
        handed_over: false,
    }
}

/// What this process delivered of a drain that goes on elsewhere.
fn handed_over(before: &BTreeMap<TenantId, Count>, now: &BTreeMap<TenantId, Count>) -> DrainReport {
    let mut report = DrainReport {
        outcome: DrainOutcome::Deadline,
        delivered: Count::default(),
        left: Count::default(),
        tenants: BTreeMap::new(),
        handed_over: true,
    };
    for (tenant, count) in now {
        let former = before.get(tenant).copied().unwrap_or_default();
        let delivered = Count {
            chunks: count.chunks.saturating_sub(former.chunks),
            bytes: count.bytes.saturating_sub(former.bytes),
        };
        report.delivered.add(delivered);
        let part = DrainedTenant {
            outcome: DrainOutcome::Deadline,
            delivered,
            left: Count::default(),
            dead: 0,
            dead_before: 0,
            reason: String::new(),
            until: None,
        };
        report.tenants.insert(tenant.to_string(), part);
    }
    report
}

fn outcome(outcome: engine::DrainOutcome) -> DrainOutcome {
    match outcome {
        engine::DrainOutcome::Drained => DrainOutcome::Drained,
        engine::DrainOutcome::DeadLeft => DrainOutcome::DeadLeft,
        engine::DrainOutcome::Blocked => DrainOutcome::Blocked,
        engine::DrainOutcome::Unreachable => DrainOutcome::Unreachable,
        engine::DrainOutcome::Throttled => DrainOutcome::Throttled,
        engine::DrainOutcome::Deadline => DrainOutcome::Deadline,
        engine::DrainOutcome::Storage => DrainOutcome::Storage,
    }
}
