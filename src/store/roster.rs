//! Sessions as an operator sees them: listed, and ended.

use std::collections::BTreeMap;

use super::error::StoreError;
use super::inner::{Inner, index_lost};
use super::intervals::Intervals;
use super::record::Note;
use super::roll::write_ledger;
use super::sessions::SessionState;
use super::types::{Ending, Promotion, SessionFilter, SessionList, SessionSummary};
use crate::model::{SessionKey, Timestamp};

/// A session of which something was accepted ends once.
pub fn end(inner: &Inner, session: &SessionKey, at: Timestamp) -> Result<Ending, StoreError> {
    {
        let sessions = inner.sessions();
        match sessions.by_key.get(session) {
            Some(state) if !state.accepted.is_empty() => {
                if let Some(since) = state.ended_at {
                    return Ok(Ending::EndedBefore(since));
                }
            }
            _ => return Ok(Ending::Unknown),
        }
    }
    let session = session.clone();
    inner.commits.note(Note::SessionEnd { session, at })?;
    Ok(Ending::Ended)
}

/// Whether somebody said that nothing more comes.
pub fn has_ended(inner: &Inner, session: &SessionKey) -> bool {
    let sessions = inner.sessions();
    let state = sessions.by_key.get(session);
    state.is_some_and(|state| state.ended_at.is_some())
}

/// In force at once, and durable when it returns.
pub fn promote(inner: &Inner, session: &SessionKey) -> Result<Promotion, StoreError> {
    match inner.sessions().by_key.get_mut(session) {
        Some(state) if state.owed > 0 => state.promoted = true,
        Some(state) if !state.accepted.is_empty() => return Ok(Promotion::NothingOwed),
        _ => return Ok(Promotion::Unknown),
    }
    inner.arrivals.add([session.clone()]);
    write_ledger(inner)?;
    Ok(Promotion::Promoted)
}

/// The sequences that are owed, as closed intervals.
pub fn owed(inner: &Inner, session: &SessionKey) -> Result<Vec<(u64, u64)>, StoreError> {
    let asked = session.clone();
    let sequences = inner
        .index
        .ask_patiently(move |tables| tables.owed_sequences(&asked))
        .map_err(|fault| index_lost(&fault))?;
    let mut owed = Intervals::default();
    for sequence in sequences {
        owed.insert(sequence);
    }
    Ok(owed.ranges().collect())
}

/// The lowest keys that match. Memory and the index are asked for no more than are shown.
pub fn list(inner: &Inner, filter: &SessionFilter) -> SessionList {
    let mut lowest: BTreeMap<SessionKey, SessionState> = BTreeMap::new();
    let mut left_out = 0;
    {
        let sessions = inner.sessions();
        let matching = sessions
            .by_key
            .iter()
            .filter(|(key, state)| matches(filter, key, state));
        for (key, state) in matching {
            let full = lowest.len() >= filter.limit;
            left_out += u64::from(full);
            if full && lowest.last_key_value().is_none_or(|(last, _)| key > last) {
                continue;
            }
            if full {
                lowest.pop_last();
            }
            lowest.insert(key.clone(), state.clone());
        }
    }
    SessionList {
        sessions: lowest
            .into_iter()
            .map(|(key, state)| summary(inner, key, &state))
            .collect(),
        left_out,
    }
}

fn matches(filter: &SessionFilter, key: &SessionKey, state: &SessionState) -> bool {
    let tenant = filter.tenant.as_ref();
    let session = filter.session.as_ref();
    !state.accepted.is_empty()
        && tenant.is_none_or(|tenant| *tenant == key.tenant)
        && session.is_none_or(|session| *session == key.session)
        && (!filter.owed || state.owed > 0)
}

fn summary(inner: &Inner, key: SessionKey, state: &SessionState) -> SessionSummary {
    let asked = key.clone();
    // A lost index forgot which of the settled chunks a person removed; they count as delivered here.
    let purged = inner.index.ask(move |tables| tables.purged_of(&asked));
    SessionSummary {
        accepted: state.accepted.ranges().collect(),
        owed: state.owed,
        dead: dead_of(inner, &key),
        lost: inner.lost_of(&key),
        purged: purged.unwrap_or(0),
        leased: state.leased > 0,
        promoted: state.promoted,
        ended_at: state.ended_at,
        changed_at: state.changed_at,
        key,
    }
}

fn dead_of(inner: &Inner, session: &SessionKey) -> u64 {
    let notes = inner.notes();
    notes.burials.range(session.all_chunks()).count() as u64
}
