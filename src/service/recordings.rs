//! The fetches of recordings, built from the configuration, and what a drain says of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::chance::Chance;
use crate::config::Tenant;
use crate::control::running::Holder;
use crate::control::wire::DrainedRecordings;
use crate::control::{Code, Refusal};
use crate::engine::Engine;
use crate::engine::fetch::{FetchDeps, FetchDrained, FetchLane, Fetcher, Marks};
use crate::model::{TenantId, Timestamp};
use crate::platform::Timeouts;
use crate::platform::fetch::{Archive, HttpArchive, Source};

use super::Role;
use super::slots::Slots;

/// A check wants tokens and fetches nothing.
fn awake<'a>(holder: &'a Holder, role: &'a Role) -> impl Iterator<Item = &'a Tenant> {
    let tenants = holder.config.tenants.values();
    tenants.filter(|tenant| {
        role.command != "check" && role.only.as_ref().is_none_or(|only| *only == tenant.id)
    })
}

/// Has what is delivered counted for comparison. Before the first delivery: one that is not counted would be taken for a
/// difference.
pub fn count(holder: &Holder, role: &Role) {
    let compared = awake(holder, role).filter(|tenant| tenant.recordings.verify);
    let compared = compared.map(|tenant| tenant.id.clone()).collect();
    holder.store.records().count_for(compared);
}

/// Starts fetching beside the engine.
///
/// # Errors
/// A file of a tenant's `[http]` table cannot be used.
pub fn start(
    holder: &Holder,
    role: &Role,
    slots: &HashMap<TenantId, Slots>,
    engine: &Engine,
    chance: Arc<Chance>,
) -> Result<Fetcher, Refusal> {
    let lanes = awake(holder, role).map(|tenant| {
        Ok(FetchLane {
            source: Arc::new(Source {
                tenant: tenant.id.clone(),
                api_url: tenant.api_url.clone(),
                path: tenant.recordings.path.clone(),
                list_path: tenant.recordings.list_path.clone(),
            }),
            token: Arc::clone(&slots[&tenant.id].main),
            fallback: slots[&tenant.id].fallback.clone(),
            archive: archive(tenant)?,
            organization: holder.store.organisation(&tenant.id),
            verify: tenant.recordings.verify,
            session_idle: tenant.recordings.session_idle,
        })
    });
    let lanes = lanes.collect::<Result<_, Refusal>>()?;
    Ok(Fetcher::start(FetchDeps {
        store: holder.store.clone(),
        lanes,
        clock: Arc::clone(&holder.clock),
        chance,
        pace: engine.budgets(),
    }))
}

/// Every tenant has its own, so that neither connections nor proxies nor certificates are shared.
fn archive(tenant: &Tenant) -> Result<Arc<dyn Archive>, Refusal> {
    let reach = tenant.http.reach();
    let reach = reach.map_err(|what| Refusal::new(Code::Configuration, what))?;
    Ok(Arc::new(HttpArchive::new(Timeouts::default(), reach)))
}

/// The fetches' part of a drain, in the words of the wire.
pub async fn drain(
    fetcher: &Fetcher,
    since: &Marks,
    only: Option<&TenantId>,
    timeout: Option<Duration>,
    patience: Duration,
) -> BTreeMap<String, DrainedRecordings> {
    let drained = fetcher.drain(since, only, timeout, patience).await;
    let parts = drained.into_iter().map(|(tenant, part)| {
        let FetchDrained {
            fetched,
            left,
            dead,
            reason,
            until,
        } = part;
        let part = DrainedRecordings {
            fetched,
            left,
            dead,
            reason,
            until: until.as_ref().map(Timestamp::to_string),
        };
        (tenant.to_string(), part)
    });
    parts.collect()
}
