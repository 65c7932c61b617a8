//! The next chunk of a session, and what the engine decides by: its wait, its counters, whether it is late, which gaps
//! lie before it.

use std::sync::Arc;
use std::time::Duration;

use super::error::StoreError;
use super::index::{Change, IndexFault, Owed, RowKey};
use super::inner::{Inner, SegmentSlot, index_lost};
use super::intervals::Intervals;
use super::known::owed_digest;
use super::sessions::SessionState;
use super::types::Head;
use super::word::{Slot, Word};
use crate::model::{ChunkKey, ChunkState, Gap, GapReason, SessionKey};

/// An owed chunk and its word.
pub struct Candidate {
    pub row: RowKey,
    pub owed: Owed,
    pub slot: Arc<SegmentSlot>,
    pub word: Word,
}

/// The session's lowest owed chunk, without taking it.
pub fn head(inner: &Inner, session: &SessionKey) -> Result<Option<Head>, StoreError> {
    let Some(found) = candidate(inner, session)? else {
        return Ok(None);
    };
    Ok(Some(describe(inner, session, &found.owed, &found.word)))
}

/// The lowest row whose word says that it is live. Rows that lag behind their words are settled on the way.
pub fn candidate(inner: &Inner, session: &SessionKey) -> Result<Option<Candidate>, StoreError> {
    let mut stale: Option<Owed> = None;
    loop {
        let asked = session.clone();
        let found = inner.index.ask(move |tables| tables.head(&asked));
        let Some((row, owed)) = found.map_err(|fault| index_lost(&fault))? else {
            return Ok(None);
        };
        let Some(segment) = inner.slot(owed.segment) else {
            // Asked before the chunk moved and looked up after its segment went: the next answer has the new place.
            if stale.as_ref() == Some(&owed) {
                return Err(disagrees(inner, session, "a row names no segment"));
            }
            stale = Some(owed);
            continue;
        };
        let word = match segment.segment.read_word(owed.ordinal)? {
            Slot::Word(word) => word,
            Slot::Unreadable => Word::new(owed.start),
            Slot::Unused => return Err(disagrees(inner, session, "a row names no chunk")),
        };
        if word.state == ChunkState::Live {
            return Ok(Some(Candidate {
                row,
                owed,
                slot: segment,
                word,
            }));
        }
        if word.state == ChunkState::Moved {
            if stale.as_ref() == Some(&owed) {
                return Err(disagrees(inner, session, "a row names a moved chunk"));
            }
            stale = Some(owed);
            continue;
        }
        inner.index.change([Change::Settle {
            session: session.clone(),
            row,
            sequence: owed.sequence,
            digest: owed_digest(inner, session, &owed),
            delivered_at: None,
        }]);
    }
}

/// The owed chunk of exactly this sequence. A row that lags behind its word is left to [`candidate`].
pub fn following(
    inner: &Inner,
    session: &SessionKey,
    sequence: u64,
) -> Result<Option<Candidate>, StoreError> {
    let asked = session.clone();
    let found = inner
        .index
        .ask(move |tables| tables.owed(&asked, sequence))
        .map_err(|fault| index_lost(&fault))?;
    let Some((row, owed)) = found else {
        return Ok(None);
    };
    let Some(slot) = inner.slot(owed.segment) else {
        return Ok(None);
    };
    let Slot::Word(word) = slot.segment.read_word(owed.ordinal)? else {
        return Ok(None);
    };
    Ok((word.state == ChunkState::Live).then_some(Candidate {
        row,
        owed,
        slot,
        word,
    }))
}

pub fn disagrees(inner: &Inner, session: &SessionKey, what: &'static str) -> StoreError {
    let fault = IndexFault::Disagrees {
        what,
        key: session.to_string(),
    };
    inner.index.lose(&fault);
    index_lost(&fault)
}

pub fn describe(inner: &Inner, session: &SessionKey, owed: &Owed, word: &Word) -> Head {
    let sessions = inner.sessions();
    let state = sessions.by_key.get(session).cloned().unwrap_or_default();
    drop(sessions);
    let late = state
        .delivered_high
        .is_some_and(|high| high > owed.sequence);
    // Nothing delivered yet does not mean that nothing was sent: the first chunks may be dead.
    let from = match state.delivered_high {
        Some(high) => Some(high + 1),
        None => state.accepted.lowest(),
    };
    let gaps = match from {
        Some(from) if !late => gaps(inner, session, &state.accepted, from, owed.sequence),
        _ => Vec::new(),
    };
    Head {
        late,
        gaps,
        ..plain(inner, &state, owed, word)
    }
}

/// A chunk directly behind another that goes out in the same request: nothing lies between them, and if that one is not
/// late, neither is this.
pub fn describe_following(inner: &Inner, session: &SessionKey, owed: &Owed, word: &Word) -> Head {
    let mut sessions = inner.sessions();
    plain(inner, sessions.entry(session), owed, word)
}

fn plain(inner: &Inner, state: &SessionState, owed: &Owed, word: &Word) -> Head {
    let ready_in = match &state.delay {
        Some(delay) if delay.sequence == owed.sequence => delay.until.left(inner.clock.as_ref()),
        _ => Duration::ZERO,
    };
    Head {
        sequence: owed.sequence,
        number: owed.number,
        bytes: owed.bytes,
        accepted_at: owed.accepted_at,
        ready_in,
        failures: word.failures.into(),
        crashes: word.crashes.into(),
        late: false,
        promoted: state.promoted,
        gaps: Vec::new(),
        owed: state.owed,
    }
}

/// What lies in `from..to`: sequences never accepted are missing, the others are dead or purged.
fn gaps(inner: &Inner, session: &SessionKey, accepted: &Intervals, from: u64, to: u64) -> Vec<Gap> {
    if from >= to {
        return Vec::new();
    }
    let mut gaps: Vec<Gap> = Vec::new();
    let notes = inner.notes();
    let SessionKey { tenant, session } = session.clone();
    let mut next = from;
    for (first, last) in accepted.holes(from, to - 1).into_iter().chain([(to, to)]) {
        for sequence in next..first {
            let key = ChunkKey {
                tenant: tenant.clone(),
                session: session.clone(),
                sequence,
            };
            let dead = notes.burials.contains_key(&key);
            let reason = if dead {
                GapReason::Dead
            } else {
                GapReason::Purged
            };
            match gaps.last_mut() {
                Some(gap) if gap.reason == reason && gap.last + 1 == sequence => {
                    gap.last = sequence;
                }
                _ => gaps.push(Gap {
                    first: sequence,
                    last: sequence,
                    reason,
                }),
            }
        }
        if first < to {
            gaps.push(Gap {
                first,
                last,
                reason: GapReason::Missing,
            });
        }
        next = last + 1;
    }
    gaps
}
