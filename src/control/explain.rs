//! The facts behind `worker why`, gathered from store and engine. Blocking.

use std::time::Duration;

use crate::model::{ChunkKey, ChunkState, FailureRecord, GapReason, SessionKey, TenantId};
use crate::store::{Head, StoreError};

use super::answer::{Look, dead, snapshot_of};
use super::refusal::Refusal;
use super::running::Holder;
use super::why::{self, Facts};
use super::wire::{SessionWhy, Which, WhyReply};

/// What a tenant, one of its sessions or one chunk waits for.
///
/// # Errors
/// The store's.
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
        let (about, record) = session_why(holder, &session, sequence)?;
        last_failure = record.or(last_failure);
        of_session = Some(about);
    } else if last_failure.is_none() {
        last_failure = newest_of_heads(holder, &tenant)?;
    }
    let running = holder.running.is_some();
    if !running && let Some(failure) = &mut last_failure {
        // Whoever meant to try again is gone.
        failure.next_try_at = None;
    }
    let outlook = why::outlook(&Facts {
        tenant: &tenant,
        gate: &view.gate,
        backlog: view.counts.backlog(),
        dead: view.counts.dead,
        session: of_session.as_ref(),
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
        next: outlook.next,
        remedy: outlook.remedy,
        tenant,
    })
}

/// One chunk of a session, and its last failure.
fn session_why(
    holder: &Holder,
    session: &SessionKey,
    asked: Option<u64>,
) -> Result<(SessionWhy, Option<FailureRecord>), Refusal> {
    let head = holder.store.head(session)?;
    let sequence = asked.or(head.as_ref().map(|head| head.sequence));
    let mut about = SessionWhy {
        session: session.session.clone(),
        sequence,
        state: None,
        failures: 0,
        crashes: 0,
        ready_in_s: 0,
        gap_wait_s: 0,
        behind: None,
    };
    let Some(sequence) = sequence else {
        return Ok((about, None));
    };
    let key = ChunkKey {
        tenant: session.tenant.clone(),
        session: session.session.clone(),
        sequence,
    };
    if let Some(letter) = dead(holder, exactly(&key), 1)?.pop() {
        about.state = Some(ChunkState::Dead);
        about.failures = u32::try_from(letter.history.len()).unwrap_or(u32::MAX);
        return Ok((about, letter.history.last().cloned()));
    }
    match head {
        Some(head) if head.sequence == sequence => {
            about.state = Some(ChunkState::Live);
            about.failures = head.failures;
            about.crashes = head.crashes;
            about.ready_in_s = head.ready_in.as_secs();
            about.gap_wait_s = gap_wait(holder, session, &head).as_secs();
        }
        Some(head) if head.sequence < sequence => about.behind = Some(head.sequence),
        _ => {}
    }
    let history = holder.store.history(&key)?;
    Ok((about, history.last().cloned()))
}

/// How long the head still waits for sequences before it that may come.
fn gap_wait(holder: &Holder, session: &SessionKey, head: &Head) -> Duration {
    let mut missing = head.gaps.iter().map(|gap| gap.reason);
    let waits = !head.late && missing.any(|reason| reason == GapReason::Missing);
    match holder.config.tenants.get(&session.tenant) {
        Some(tenant) if waits => {
            let waited = holder.clock.wall().since(head.accepted_at);
            tenant.delivery.gap_wait.saturating_sub(waited)
        }
        _ => Duration::ZERO,
    }
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

fn exactly(key: &ChunkKey) -> Which {
    Which {
        tenant: Some(key.tenant.clone()),
        session: Some(key.session.clone()),
        sequence: Some(key.sequence),
    }
}
