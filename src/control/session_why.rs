//! The part of `worker why` that is about one session or chunk: what the store knows of it, and nothing beyond.

use std::time::Duration;

use crate::model::{ChunkKey, ChunkState, FailureRecord, Gap, GapReason, SessionKey};
use crate::store::{Head, SessionFilter, SessionSummary};

use super::letters;
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::sessions;
use super::wire::{SessionWhy, Which};

/// The chunk asked for, else the session's head, and the last failure of it.
///
/// # Errors
/// A session or sequence that was never accepted here, or the store's.
pub fn find(
    holder: &Holder,
    session: &SessionKey,
    asked: Option<u64>,
) -> Result<(SessionWhy, Option<FailureRecord>), Refusal> {
    let dead = Which {
        tenant: Some(session.tenant.clone()),
        session: Some(session.session.clone()),
        sequence: asked,
    };
    let summary = summary(holder, session);
    // One tells all that is told here, unless nobody else counts them: a session is forgotten before its dead letters.
    let limit = usize::from(summary.is_some());
    let letters = letters::dead(holder, dead, limit)?;
    if summary.is_none() && letters.is_empty() {
        return Err(sessions::unknown(session));
    }
    let head = holder.store.head(session)?;
    let mut about = SessionWhy {
        session: session.session.clone(),
        sequence: asked.or(head.as_ref().map(|head| head.sequence)),
        state: None,
        may_be: Vec::new(),
        dead: (summary.as_ref()).map_or(letters.len() as u64, |summary| summary.dead),
        failures: 0,
        crashes: 0,
        ready_in_s: 0,
        gap_wait_s: 0,
        missing: None,
        behind: None,
        lost: false,
    };
    let Some(sequence) = about.sequence else {
        about.lost = summary.is_some_and(|summary| summary.lost > 0);
        let last = letters.first().and_then(|letter| letter.history.last());
        return Ok((about, last.cloned()));
    };
    if let (Some(_), Some(letter)) = (asked, letters.first()) {
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
            if let Some((missing, wait)) = gap_wait(holder, session, &head) {
                about.gap_wait_s = wait.as_secs();
                about.missing = Some((missing.first, missing.last));
            }
        }
        head => stand(
            holder,
            session,
            summary.as_ref(),
            head,
            &mut about,
            sequence,
        )?,
    }
    let history = holder.store.history(&ChunkKey {
        tenant: session.tenant.clone(),
        session: session.session.clone(),
        sequence,
    })?;
    Ok((about, history.last().cloned()))
}

fn summary(holder: &Holder, session: &SessionKey) -> Option<SessionSummary> {
    let found = holder.store.sessions(&SessionFilter {
        tenant: Some(session.tenant.clone()),
        session: Some(session.session.clone()),
        owed: false,
        limit: 1,
    });
    found.sessions.into_iter().next()
}

/// Where a chunk stands that is neither dead nor the head.
fn stand(
    holder: &Holder,
    session: &SessionKey,
    summary: Option<&SessionSummary>,
    head: Option<Head>,
    about: &mut SessionWhy,
    sequence: u64,
) -> Result<(), Refusal> {
    let within = |intervals: &[(u64, u64)]| {
        let mut intervals = intervals.iter();
        intervals.any(|(first, last)| (*first..=*last).contains(&sequence))
    };
    if !summary.is_some_and(|summary| within(&summary.accepted)) {
        return Err(never_accepted(session, sequence));
    }
    let owed = holder.store.owed_of(session)?;
    if within(&owed) {
        about.behind = (head.map(|head| head.sequence)).filter(|head| *head < sequence);
        about.state = about.behind.is_none().then_some(ChunkState::Live);
        return Ok(());
    }
    let fate = holder.store.fate(&ChunkKey {
        tenant: session.tenant.clone(),
        session: session.session.clone(),
        sequence,
    })?;
    about.lost = fate.lost;
    match fate.may_be.as_slice() {
        [state] if !fate.lost => about.state = Some(*state),
        _ => about.may_be = fate.may_be,
    }
    Ok(())
}

fn never_accepted(session: &SessionKey, sequence: u64) -> Refusal {
    let SessionKey { tenant, session } = session;
    let message = format!(
        "sequence {sequence} of session {session} was never accepted here; what was: worker sessions show {tenant} {session}"
    );
    Refusal::new(Code::NotFound, message)
}

/// Sequences before the head that may still come, and how long it waits for them.
fn gap_wait<'a>(
    holder: &Holder,
    session: &SessionKey,
    head: &'a Head,
) -> Option<(&'a Gap, Duration)> {
    let mut gaps = head.gaps.iter();
    let missing = gaps.find(|gap| gap.reason == GapReason::Missing && !head.late)?;
    let tenant = holder.config.tenants.get(&session.tenant)?;
    let waited = holder.clock.wall().since(head.accepted_at);
    let wait = tenant.delivery.gap_wait.saturating_sub(waited);
    (!wait.is_zero()).then_some((missing, wait))
}
