//! Dead letters: listing, redriving, purging, exporting.

use std::io::Read;

use super::error::StoreError;
use super::index::{Change, Owed, print_of};
use super::inner::Inner;
use super::notes::BurialRef;
use super::payload::reader;
use super::record::Note;
use super::recover::read_chunk;
use super::segment::FrameHead;
use super::types::{DeadFilter, DeadLetter, Redriven};
use super::word::{Slot, Word};
use crate::model::{ChunkKey, ChunkMeta, ChunkState, FailureRecord};

/// Dead letters that match, in the order of their keys.
pub fn list(inner: &Inner, filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError> {
    let _placing = inner.placing.read().expect("no holder panics");
    let matching: Vec<(ChunkKey, BurialRef)> = {
        let notes = inner.notes();
        let all = notes.burials.iter().filter(|(key, _)| {
            filter
                .tenant
                .as_ref()
                .is_none_or(|tenant| *tenant == key.tenant)
                && filter
                    .session
                    .as_ref()
                    .is_none_or(|session| *session == key.session)
                && filter
                    .sequence
                    .is_none_or(|sequence| sequence == key.sequence)
        });
        let limit = if filter.limit == 0 {
            usize::MAX
        } else {
            filter.limit
        };
        all.take(limit)
            .map(|(key, burial)| (key.clone(), burial.clone()))
            .collect()
    };
    matching
        .into_iter()
        .map(|(key, burial)| letter(inner, &key, &burial))
        .collect()
}

fn letter(inner: &Inner, key: &ChunkKey, burial: &BurialRef) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        key: key.clone(),
        meta: frame(inner, burial).and_then(|(_, head)| read_chunk(&head)),
        reason: burial.reason,
        died_at: burial.died_at,
        history: history(inner, key, burial),
    })
}

pub fn history(inner: &Inner, key: &ChunkKey, burial: &BurialRef) -> Vec<FailureRecord> {
    if burial.note.start == u32::MAX {
        // Its note is still to be written.
        let owed = inner.burials_owed.lock().expect("no holder panics");
        let known = owed.iter().find(|burial| burial.key() == *key);
        return known.map_or_else(Vec::new, |burial| burial.history.clone());
    }
    let slot = inner.slot(burial.note.segment);
    let head = slot.and_then(|slot| slot.segment.read_frame(burial.note.start).ok());
    match head.map(|head| Note::decode(&head.record)) {
        Some(Ok(Note::Bury(note))) => note.history,
        _ => Vec::new(),
    }
}

/// The dead chunk's word and, if it reads back, its frame.
fn frame(inner: &Inner, burial: &BurialRef) -> Option<(Word, FrameHead)> {
    let slot = inner.slot(burial.at.segment)?;
    let Slot::Word(word) = slot.segment.read_word(burial.at.ordinal).ok()? else {
        return None;
    };
    Some((word, slot.segment.read_frame(word.start).ok()?))
}

/// Its burial may be owed since open, is all that tells whose chunk it was, and must not come after what follows it.
fn write_owed_burial(inner: &Inner, key: &ChunkKey) -> Result<(), StoreError> {
    let owed = {
        let mut owed = inner.burials_owed.lock().expect("no holder panics");
        let place = owed.iter().position(|burial| burial.key() == *key);
        place.map(|place| owed.remove(place))
    };
    let Some(burial) = owed else { return Ok(()) };
    let written = inner.commits.note(Note::Bury(burial.clone()));
    written.map(drop).inspect_err(|_| inner.owe_burial(burial))
}

/// Dead becomes live again; durable when it returns. Its counters start anew.
pub fn redrive(inner: &Inner, key: &ChunkKey) -> Result<Redriven, StoreError> {
    // Alone: what is decided by the burial in force is its end, for another operator and for who carries its note on.
    let _placing = inner.placing.write().expect("no holder panics");
    write_owed_burial(inner, key)?;
    let Some(burial) = burial(inner, key) else {
        return Ok(Redriven::NotDead);
    };
    let Some((word, head)) = frame(inner, &burial) else {
        return Err(StoreError::Damaged);
    };
    let Some(meta) = read_chunk(&head) else {
        return Err(StoreError::Damaged);
    };
    if word.state != ChunkState::Dead {
        return Ok(Redriven::NotDead);
    }
    let live = Word {
        failures: 0,
        crashes: 0,
        ..word.turned(ChunkState::Live)
    };
    inner.commits.note(Note::Redrive {
        at: burial.at,
        version: live.version,
    })?;
    turn(inner, &burial, &meta, live)?;
    let session = key.session_key();
    {
        let mut sessions = inner.sessions();
        let state = sessions.entry(&session);
        state.owed += 1;
        state.changed_at = inner.clock.wall();
    }
    let owed = Owed {
        sequence: key.sequence,
        number: head.header.number,
        ordinal: burial.at.ordinal,
        start: head.start,
        bytes: meta.bytes,
        accepted_at: head.header.accepted_at,
        segment: burial.at.segment,
        print: print_of(&meta.digest),
    };
    inner.index.change([Change::Owe { session, owed }]);
    Ok(Redriven::Done)
}

/// Dead becomes purged; durable when it returns. Works on a damaged chunk too.
pub fn purge(inner: &Inner, key: &ChunkKey) -> Result<Redriven, StoreError> {
    let purged = purge_replaced(inner, key)?;
    if purged == Redriven::Done {
        inner.index.change([Change::Purged { key: key.clone() }]);
    }
    Ok(purged)
}

/// The same for a chunk whose bytes were given again: its key lives on.
pub fn purge_replaced(inner: &Inner, key: &ChunkKey) -> Result<Redriven, StoreError> {
    let _placing = inner.placing.write().expect("no holder panics");
    write_owed_burial(inner, key)?;
    let Some(burial) = burial(inner, key) else {
        return Ok(Redriven::NotDead);
    };
    let Some(slot) = inner.slot(burial.at.segment) else {
        return Ok(Redriven::NotDead);
    };
    let Slot::Word(word) = slot.segment.read_word(burial.at.ordinal)? else {
        return Err(StoreError::Damaged);
    };
    // Its burial is written and its word not yet, by whoever buries it.
    if word.state != ChunkState::Dead {
        return Ok(Redriven::NotDead);
    }
    let purged = word.turned(ChunkState::Purged);
    inner.commits.note(Note::Purge {
        at: burial.at,
        version: purged.version,
    })?;
    slot.segment
        .change_word(burial.at.ordinal, word.start, |_| Some(purged))?;
    let bytes = frame(inner, &burial)
        .and_then(|(_, head)| read_chunk(&head))
        .map_or(0, |meta| meta.bytes);
    let states = (ChunkState::Dead, ChunkState::Purged);
    inner.turned(&slot, burial.at.ordinal, &key.tenant, bytes, states);
    Ok(Redriven::Done)
}

fn burial(inner: &Inner, key: &ChunkKey) -> Option<BurialRef> {
    inner.notes().burials.get(key).cloned()
}

fn turn(inner: &Inner, burial: &BurialRef, meta: &ChunkMeta, word: Word) -> Result<(), StoreError> {
    let slot = inner.slot(burial.at.segment).ok_or(StoreError::Damaged)?;
    slot.segment
        .change_word(burial.at.ordinal, word.start, |_| Some(word))?;
    let states = (ChunkState::Dead, word.state);
    inner.turned(
        &slot,
        burial.at.ordinal,
        &meta.key.tenant,
        meta.bytes,
        states,
    );
    Ok(())
}

/// A dead letter's metadata and a checked reader over its payload.
pub type DeadPayload = (ChunkMeta, Box<dyn Read + Send>);

pub fn payload(inner: &Inner, key: &ChunkKey) -> Result<Option<DeadPayload>, StoreError> {
    let _placing = inner.placing.read().expect("no holder panics");
    let Some(burial) = burial(inner, key) else {
        return Ok(None);
    };
    let Some((_, head)) = frame(inner, &burial) else {
        return Err(StoreError::Damaged);
    };
    let Some(meta) = read_chunk(&head) else {
        return Err(StoreError::Damaged);
    };
    let slot = inner.slot(burial.at.segment).ok_or(StoreError::Damaged)?;
    Ok(Some((meta, Box::new(reader(inner, &slot, &head)?))))
}
