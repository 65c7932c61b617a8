//! The engine, built from the configuration and seen through [`Running`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::TokenSource;
use crate::chance::Chance;
use crate::config::{Config, OnDead, Tenant};
use crate::control::running::{Ended, Holder, Lane, Later, Running};
use crate::control::wire::{DrainReport, DrainSpec, Finding, Level};
use crate::control::{Refusal, words};
use crate::engine::{self, DrainSettings, End, Engine, EngineDeps, LaneSettings};
use crate::model::{Count, TenantId, WorkersView};
use crate::platform::{Platform, Target};
use crate::store::{Store, StoreError, StoreView};

use super::report::{count_from, delivered, handed_over, report_of};
use super::slots::slots;
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
    role: Role,
    store: Store,
    grace: Duration,
    /// Each tenant's slot and the scopes that its configuration asks for.
    slots: BTreeMap<TenantId, (Arc<dyn TokenSource>, Vec<String>)>,
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
    let slots = slots(tenants, &holder.clock, &chance)?;
    let lanes = holder.config.tenants.values().map(|tenant| {
        let token = Arc::clone(&slots[&tenant.id]);
        Ok(lane(tenant, token, transport(tenant)?))
    });
    let lanes: Vec<LaneSettings> = lanes.collect::<Result<_, Refusal>>()?;
    let baseline = (role.command == "drain").then(|| delivered(&holder.store));
    let engine = Engine::start(EngineDeps {
        store: holder.store.clone(),
        lanes,
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
        slots: slots
            .into_iter()
            .map(|(tenant, slot)| {
                let scopes = holder.config.tenants[&tenant].auth.scopes.clone();
                (tenant, (slot, scopes))
            })
            .collect(),
        baseline: Mutex::new(baseline),
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
        let only = spec.tenant.clone();
        let settings = DrainSettings {
            tenants: spec.tenant.map(|tenant| vec![tenant]),
            timeout: spec.timeout,
            patience: spec.patience,
        };
        let own = self.baseline.lock().expect("no drain panics").take();
        let is_own = own.is_some();
        let before = own.unwrap_or_else(|| delivered(&self.store));
        let (progress, _) = tokio::sync::watch::channel(engine::DrainProgress::default());
        tokio::select! {
            // What was drained is drained, even if somebody asks for the store in the same moment.
            biased;
            report = self.engine.drain(settings, &progress) => {
                let mut report = report_of(report);
                if is_own {
                    count_from(&mut report, &before, &delivered(&self.store));
                }
                report
            }
            () = self.leaving.cancelled() => {
                // What is on the wire still counts.
                self.engine.stop(self.grace).await;
                handed_over(only.as_ref(), &before, &self.store.view())
            }
        }
    }

    /// A token for every tenant, asked for now.
    async fn check(&self) -> Vec<Finding> {
        let asked = self
            .slots
            .iter()
            .map(|(tenant, (slot, scopes))| check_token(tenant, slot, scopes));
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

async fn check_token(tenant: &TenantId, slot: &Arc<dyn TokenSource>, scopes: &[String]) -> Finding {
    let (level, message) = match slot.token().await {
        Ok(_) => match lacking(scopes, slot.granted_scopes().as_deref()) {
            Some(lack) => (Level::Critical, lack),
            None => {
                let life = slot.view().expires_in_s.map(Duration::from_secs);
                let life = life.map_or_else(String::new, |life| {
                    format!(", valid for {}", words::span(life))
                });
                (Level::Ok, format!("had{life}"))
            }
        },
        Err(hold) => (Level::Critical, [hold.reason, hold.remedy].join(". ")),
    };
    Finding {
        what: format!("tenant {tenant}: token"),
        level,
        message: message.trim_end_matches(". ").to_owned(),
    }
}

/// The scopes that were asked for and not granted, where the token states its scopes at all.
fn lacking(asked: &[String], granted: Option<&[String]>) -> Option<String> {
    let granted = granted?;
    let lacking: Vec<_> = asked
        .iter()
        .filter(|scope| !granted.contains(scope))
        .map(String::as_str)
        .collect();
    if lacking.is_empty() {
        return None;
    }
    Some(format!(
        "had, and lacks {} (granted: {})",
        lacking.join(", "),
        granted.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_an_asked_scope_is_a_finding_only_where_it_states_its_scopes() {
        let scopes = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let asked = scopes(&["a:write", "b:read"]);
        assert_eq!(lacking(&asked, None), None);
        assert_eq!(
            lacking(&asked, Some(&scopes(&["b:read", "a:write", "c"]))),
            None
        );
        assert_eq!(
            lacking(&asked, Some(&scopes(&["b:read"]))).as_deref(),
            Some("had, and lacks a:write (granted: b:read)")
        );
    }
}
