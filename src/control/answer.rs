//! Every operation that has one answer now. Called by the socket's server in a holder and by the command
//! line on a store that it opened itself: the same code, so the same answer. Blocking.

use std::collections::BTreeMap;

use crate::model::{
    ChunkKey, FailureRecord, RecordingCounts, SessionKey, Snapshot, TenantId, WorkersView,
};
use crate::store::{StoreError, StoreView};

use super::holds;
use super::letters;
use super::recordings;
use super::refusal::{Code, Refusal};
use super::running::{Holder, Lane};
use super::session_why;
use super::sessions;
use super::snapshot::{self, Sources};
use super::why::{self, Facts};
use super::wire::{Reply, Request, WhyReply};

/// Answers what needs no waiting.
///
/// # Errors
/// A refusal with a word for scripts; an operation that needs an engine is refused without one.
pub fn answer(holder: &Holder, request: Request) -> Result<Reply, Refusal> {
    match request {
        Request::Stats {} => Ok(Reply::Stats(Box::new(snapshot(holder)))),
        Request::Why {
            tenant,
            session,
            sequence,
        } => {
            known(holder, &tenant)?;
            let session = session.map(|session| SessionKey {
                tenant: tenant.clone(),
                session,
            });
            let reply = why(holder, tenant, session, sequence)?;
            Ok(Reply::Why(Box::new(reply)))
        }
        Request::Pause { tenant } => {
            known(holder, &tenant)?;
            pause(holder, tenant)
        }
        Request::Resume { tenant } => {
            known(holder, &tenant)?;
            resume(holder, tenant)
        }
        Request::DeadList { which, limit } => {
            let letters = letters::dead(holder, which, limit)?;
            Ok(Reply::Dead(
                letters
                    .into_iter()
                    .map(|letter| letters::view(letter, false))
                    .collect(),
            ))
        }
        Request::DeadShow { which } => {
            let letters = letters::some_dead(holder, which)?;
            Ok(Reply::Dead(
                letters
                    .into_iter()
                    .map(|letter| letters::view(letter, true))
                    .collect(),
            ))
        }
        Request::Redrive { which } => {
            letters::moved(holder, which, |key| holder.store.redrive(key)).map(Reply::Redriven)
        }
        Request::Purge { which } => {
            letters::moved(holder, which, |key| holder.store.purge(key)).map(Reply::Purged)
        }
        Request::Recordings(request) => recordings::answer(holder, request).map(Reply::Recordings),
        Request::Sessions { ask } => sessions::answer(holder, ask),
        Request::Fsck {} => Ok(Reply::Fsck(holder.store.fsck()?)),
        Request::HandOver {} => match &holder.running {
            Some(running) if running.hand_over() => Ok(Reply::HandingOver {}),
            _ => Err(Refusal::new(
                Code::Unsupported,
                "this worker keeps the store",
            )),
        },
        Request::Drain(_) | Request::CheckOnline {} => Err(Refusal::new(
            Code::Unsupported,
            "this needs a running engine",
        )),
    }
}

/// The store and the lanes of one moment, looked at once for all of an answer.
struct Look {
    view: StoreView,
    lanes: BTreeMap<TenantId, Lane>,
}

impl Look {
    fn at(holder: &Holder) -> Self {
        let view = holder.store.view();
        Self {
            lanes: lanes(holder, &view),
            view,
        }
    }
}

/// The lanes: the engine's, or what the stored holds tell.
fn lanes(holder: &Holder, view: &StoreView) -> BTreeMap<TenantId, Lane> {
    let mut lanes = match &holder.running {
        Some(running) => running.lanes(view),
        None => BTreeMap::new(),
    };
    let stored = holder.store.holds();
    let now = holder.clock.wall();
    let configured = &holder.config.tenants;
    let names = configured.keys().cloned();
    let seen = stored.iter().map(|hold| hold.key.tenant.clone());
    let counted = view.tenants.iter().map(|(tenant, _)| tenant.clone());
    for tenant in names.chain(seen).chain(counted) {
        lanes.entry(tenant.clone()).or_insert_with(|| Lane {
            gate: holds::gate(&tenant, configured.contains_key(&tenant), &stored, now),
            ..Lane::default()
        });
    }
    lanes
}

pub fn snapshot(holder: &Holder) -> Snapshot {
    snapshot_of(holder, &Look::at(holder))
}

fn snapshot_of(holder: &Holder, look: &Look) -> Snapshot {
    let view = &look.view;
    let workers = holder
        .running
        .as_ref()
        .map_or_else(WorkersView::default, |running| running.workers());
    let quota = view.quota_bytes.saturating_sub(view.used_bytes);
    let disk = view
        .free_bytes
        .saturating_sub(holder.config.store.min_free_bytes);
    let mut trend = holder.trend.lock().expect("no sample panics");
    let eta_full_s = trend.eta_full_s(holder.clock.now(), view.used_bytes, quota.min(disk));
    drop(trend);
    let recordings = holder.store.records().total();
    let assembled = snapshot::assemble(&Sources {
        host: holder.config.host.as_str(),
        lanes: &look.lanes,
        view,
        eta_full_s,
        workers,
        now: holder.clock.wall(),
    });
    Snapshot {
        recordings: Some(recordings).filter(|counts| *counts != RecordingCounts::default()),
        ..assembled
    }
}

/// A tenant that is neither configured nor in the store is a typing error.
pub fn known(holder: &Holder, tenant: &TenantId) -> Result<(), Refusal> {
    if holder.config.tenants.contains_key(tenant) || Look::at(holder).lanes.contains_key(tenant) {
        return Ok(());
    }
    Err(unknown_tenant(holder, tenant.as_str()))
}

pub fn unknown_tenant(holder: &Holder, tenant: &str) -> Refusal {
    Refusal::new(
        Code::UnknownTenant,
        format!(
            "unknown tenant {tenant:?}; configured: {}",
            holder.config.tenant_names()
        ),
    )
}

fn pause(holder: &Holder, tenant: TenantId) -> Result<Reply, Refusal> {
    let was = match &holder.running {
        Some(running) => running.pause(&tenant)?,
        None => {
            let key = holds::operator_key(&tenant);
            let was = holder.store.holds().iter().any(|hold| hold.key == key);
            let now = holder.clock.wall();
            holder.store.put_hold(holds::operator_hold(&tenant, now))?;
            was
        }
    };
    Ok(Reply::Paused { tenant, was })
}

/// Without an engine, every stored hold of the tenant goes: the next start tries at once.
fn resume(holder: &Holder, tenant: TenantId) -> Result<Reply, Refusal> {
    let removed = match &holder.running {
        Some(running) => running.resume(&tenant)?,
        None => {
            let of_tenant: Vec<_> = holder
                .store
                .holds()
                .into_iter()
                .filter(|hold| hold.key.tenant == tenant)
                .collect();
            for hold in &of_tenant {
                holder.store.remove_hold(&hold.key)?;
            }
            of_tenant.len()
        }
    };
    let served = holder.running.is_some();
    Ok(Reply::Resumed {
        tenant,
        removed,
        served,
    })
}

pub fn why(
    holder: &Holder,
    tenant: TenantId,
    session: Option<SessionKey>,
    sequence: Option<u64>,
) -> Result<WhyReply, Refusal> {
    let mut look = Look::at(holder);
    let view = snapshot_of(holder, &look)
        .tenants
        .remove(tenant.as_str())
        .unwrap_or_default();
    let lane = look.lanes.remove(&tenant).unwrap_or_default();
    // What closes the gate explains more than what failed before it closed.
    let of_hold = why::strongest(&view.gate).and_then(|hold| hold.last.clone());
    let mut last_failure = of_hold.or(lane.last_failure.map(|(_, record)| record));
    let mut of_session = None;
    if let Some(session) = session {
        let (about, record) = session_why::find(holder, &session, sequence)?;
        last_failure = record.or(last_failure);
        of_session = Some(about);
    } else if last_failure.is_none() {
        last_failure = newest_of_heads(holder, &tenant)?;
    }
    let running = holder.running.is_some();
    if let Some(failure) = &mut last_failure {
        // Whoever meant to try again is gone, or has done so.
        let now = holder.clock.wall();
        failure.next_try_at = failure.next_try_at.filter(|at| running && *at > now);
    }
    let mismatches = recordings::mismatches(holder, &tenant, of_session.as_ref())?;
    let outlook = why::outlook(&Facts {
        tenant: &tenant,
        gate: &view.gate,
        backlog: view.counts.backlog(),
        confirming: view.counts.confirming,
        dead: view.counts.dead,
        session: of_session.as_ref(),
        mismatch: mismatches.first(),
        pace: view.pace.as_ref(),
        running,
        now: holder.clock.wall(),
    });
    Ok(WhyReply {
        configured: holder.config.tenants.contains_key(&tenant),
        running,
        gate: view.gate,
        token: view.token,
        backlog: view.counts.backlog(),
        dead: view.counts.dead,
        session: of_session,
        last_failure,
        mismatches,
        next: outlook.next,
        remedy: outlook.remedy,
        tenant,
    })
}

/// Without an engine nobody remembers the lane's newest failure: it is looked up at the heads of the
/// tenant's sessions, of which so many are asked at most.
const HEADS_ASKED: usize = 256;

fn newest_of_heads(
    holder: &Holder,
    tenant: &TenantId,
) -> Result<Option<FailureRecord>, StoreError> {
    if holder.running.is_some() {
        return Ok(None);
    }
    let mut newest: Option<FailureRecord> = None;
    // Nobody else waits for arrivals of a store that this process opened for one answer.
    let sessions = holder.store.take_arrivals();
    for session in sessions
        .iter()
        .filter(|s| s.tenant == *tenant)
        .take(HEADS_ASKED)
    {
        let Some(head) = holder.store.head(session)? else {
            continue;
        };
        let key = ChunkKey {
            tenant: session.tenant.clone(),
            session: session.session.clone(),
            sequence: head.sequence,
        };
        let last = holder.store.history(&key)?.pop();
        newest = newest
            .into_iter()
            .chain(last)
            .max_by_key(|record| record.at);
    }
    Ok(newest)
}
