//! Housekeeping: words of settled chunks reach the disk soon, and segments that owe nothing go.
//!
//! The order is always: words synced, ledgers and index durable, unlink, directory synced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::StoreError;
use super::index::Change;
use super::inner::{Inner, SegmentSlot, Solo, solo_name};
use super::layout::SegmentId;
use super::moving;
use super::queue::NoteAt;
use super::record::Note;
use super::reserve;
use super::roll::write_ledger;
use super::tally::add_all;
use crate::model::SessionKey;
use crate::sabotage::{Sabotage, stop_at};

const PERIOD: Duration = Duration::from_secs(1);
/// Running time that an idle store may lose when it is killed.
const UNWRITTEN_MS: u64 = 3_600_000;
/// Descriptors kept open for segments that nobody reads just now.
const OPEN_SEGMENTS: usize = 64;

/// The keeper's thread: a round a second until the store closes, and a ledger where one is wanted.
pub fn run(inner: &Inner) {
    let (mutex, bell) = &inner.keeper;
    let mut guard = mutex.lock().expect("no holder panics");
    let mut last = inner.clock.now();
    while !inner.closing.load(Ordering::Acquire) {
        let waited = bell.wait_timeout(guard, PERIOD).expect("no holder panics");
        guard = waited.0;
        if inner.closing.load(Ordering::Acquire) {
            return;
        }
        if inner.ledger_wanted.swap(false, Ordering::AcqRel) {
            if let Err(error) = write_ledger(inner) {
                tracing::warn!(%error, "ledger not written");
            }
            // Segments begin many times a second where much is enqueued.
            if inner.clock.now().since(last) < PERIOD {
                continue;
            }
        }
        last = inner.clock.now();
        reserve::keep(inner);
        if let Err(error) = moving::reclaim(inner) {
            tracing::warn!(%error, "owed chunks stay where they are; it is tried again");
        }
        if let Err(error) = round(inner) {
            tracing::warn!(%error, "housekeeping stopped halfway; it is tried again");
        }
    }
}

/// One round. Everything it leaves undone is found again by the next.
pub fn round(inner: &Inner) -> io::Result<()> {
    write_owed_burials(inner);
    purge_what_is_replaced(inner);
    // Before the words: a chunk that is known as delivered is then counted as delivered.
    keep_records(inner);
    let all: Vec<Arc<SegmentSlot>> = inner.segments().values().cloned().collect();
    let active = *inner.active.lock().expect("no holder panics");
    for slot in all.iter().filter(|slot| slot.segment.has_unsynced_words()) {
        slot.segment.sync_words()?;
        if all.len() > OPEN_SEGMENTS && Some(slot.segment.id) != active {
            slot.segment.close_file();
        }
    }
    for slot in &all {
        remove_finished_solos(inner, slot)?;
    }
    retire(inner, &all)?;
    let active = *inner.active.lock().expect("no holder panics");
    let idle = all.iter().filter(|slot| Some(slot.segment.id) != active);
    for slot in idle.skip(OPEN_SEGMENTS) {
        slot.segment.close_file();
    }
    let running_ms = {
        let mut ledger = inner.ledger.lock().expect("no holder panics");
        ledger
            .running
            .look(inner.clock.boot_id(), inner.clock.now())
    };
    let written_ms = inner.written_running_ms.load(Ordering::Relaxed);
    if running_ms.saturating_sub(written_ms) >= UNWRITTEN_MS
        && let Err(error) = write_ledger(inner)
    {
        tracing::warn!(%error, "ledger not written; sessions are remembered longer");
    }
    let remember = inner.settings.remember;
    let forgotten = if inner.sabotaged.is(Sabotage::AgeByWallClock) {
        forget_by_wall_clock(inner, remember)
    } else {
        inner.sessions().forget(running_ms, remember)
    };
    inner.index.change(
        forgotten
            .into_iter()
            .map(|session| Change::Forget { session }),
    );
    Ok(())
}

/// Trouble with what can be had again stops nothing else.
pub fn keep_records(inner: &Inner) {
    if let Err(error) = inner.records.maintain() {
        tracing::warn!(%error, "the record log is not kept; it is tried again");
    }
}

/// A deliberate defect, for a test that must see it.
fn forget_by_wall_clock(inner: &Inner, remember: Duration) -> Vec<SessionKey> {
    let now = inner.clock.wall();
    let mut sessions = inner.sessions();
    let old = sessions
        .by_key
        .extract_if(|_, state| state.owed == 0 && now.since(state.changed_at) > remember);
    old.map(|(key, _)| key).collect()
}

/// Makes the burial of chunks that were found damaged at open durable. On a full disk they stay owed.
pub fn write_owed_burials(inner: &Inner) {
    let _placing = inner.placing.write().expect("no holder panics");
    let owed = std::mem::take(&mut *inner.burials_owed.lock().expect("no holder panics"));
    for burial in owed {
        if inner.commits.note(Note::Bury(burial.clone())).is_err() {
            inner.owe_burial(burial);
        }
    }
}

/// Tries again to purge the damaged chunks whose replacement is here. What stays owed over a restart is seen at open.
fn purge_what_is_replaced(inner: &Inner) {
    let owed = std::mem::take(&mut *inner.purges_owed.lock().expect("no holder panics"));
    for key in owed {
        match super::dead::purge_replaced(inner, &key) {
            Ok(_) | Err(StoreError::Damaged) => {}
            Err(_) => inner.owe_purge(key),
        }
    }
}

/// Unlinks the payload files of settled chunks, whose words are durable by now.
fn remove_finished_solos(inner: &Inner, slot: &SegmentSlot) -> io::Result<()> {
    let finished: Vec<(u32, Solo)> = {
        let book = slot.book();
        let finished = book.solos.iter().filter(|(_, solo)| solo.finished);
        finished.map(|(ordinal, solo)| (*ordinal, *solo)).collect()
    };
    // A chunk that was settled since the sync above is left for the next round.
    if finished.is_empty() || slot.segment.has_unsynced_words() {
        return Ok(());
    }
    for (ordinal, solo) in finished {
        match inner
            .disk
            .remove(&inner.segments_dir().join(solo_name(solo.id)))
        {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        slot.book().solos.remove(&ordinal);
        inner.used.fetch_sub(solo.bytes, Ordering::Relaxed);
    }
    Ok(())
}

/// Lets go of every segment that owes nothing, except the one being written.
pub fn retire(inner: &Inner, all: &[Arc<SegmentSlot>]) -> io::Result<()> {
    // A burial that names a new place must be written before the old one goes.
    if !inner
        .burials_owed
        .lock()
        .expect("no holder panics")
        .is_empty()
    {
        return Ok(());
    }
    let mut unlinking = inner.unlinking.lock().expect("no holder panics");
    if !unlinking.is_empty() {
        finish_unlinking(inner, &mut unlinking)?;
    }
    let active = *inner.active.lock().expect("no holder panics");
    let mut going = Vec::new();
    for slot in all {
        let book = slot.book();
        if Some(slot.segment.id) != active && book.owed() == 0 && book.solos.is_empty() {
            drop(book);
            going.push(Arc::clone(slot));
        }
    }
    // One segment that is kept for its notes alone is not worth a fresh one to write them into; two are.
    let may_begin = active.is_some() || going.len() > 1;
    going.retain(|slot| carry_notes(inner, slot.segment.id, may_begin));
    if going.is_empty() {
        return Ok(());
    }
    // A note of a segment that goes may be the only word on a chunk elsewhere until that chunk's word is durable.
    for slot in all.iter().filter(|slot| slot.segment.has_unsynced_words()) {
        slot.segment.sync_words()?;
    }
    if inner.sabotaged.is(Sabotage::UnlinkFirst) {
        unlink(inner, &mut going.clone())?;
    }
    // The digests in the index are all that will be remembered of these chunks; without an index they are not.
    drop(inner.index.ask_patiently(|tables| tables.sync()));
    {
        let mut ledger = inner.ledger.lock().expect("no holder panics");
        let mut segments = inner.segments.write().expect("no holder panics");
        // The committer may have gone on in one of them meanwhile.
        let active = *inner.active.lock().expect("no holder panics");
        going.retain(|slot| {
            let id = slot.segment.id;
            // Two rounds may have chosen it.
            Some(id) != active && segments.remove(&id).is_some()
        });
        for slot in &going {
            let id = slot.segment.id;
            ledger.retired.insert(u64::from(id.0));
            add_all(&mut ledger.totals, &slot.book().tallies);
        }
    }
    if !inner.sabotaged.is(Sabotage::UnlinkFirst) {
        unlinking.extend(going);
    }
    finish_unlinking(inner, &mut unlinking)
}

/// Unlinks what is retired, once both ledgers say so. What a fault leaves here is tried again by the next round.
fn finish_unlinking(inner: &Inner, unlinking: &mut Vec<Arc<SegmentSlot>>) -> io::Result<()> {
    write_ledger(inner)?;
    stop_at("between_ledgers_and_unlink");
    unlink(inner, unlinking)
}

fn unlink(inner: &Inner, going: &mut Vec<Arc<SegmentSlot>>) -> io::Result<()> {
    while let Some(slot) = going.last() {
        match inner.disk.remove(&slot.segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        inner.used.fetch_sub(slot.book().bytes(), Ordering::Relaxed);
        going.pop();
    }
    stop_at("between_unlink_and_sync");
    inner.disk.sync_dir(&inner.segments_dir())
}

/// Writes a segment's notes in force into the active one. Without one the segment stays, unless one may begin for them.
fn carry_notes(inner: &Inner, from: SegmentId, may_begin: bool) -> bool {
    let oldest = inner.segments().keys().next().copied();
    if oldest == Some(from) {
        inner.notes().forget_ends_in(from);
    }
    let notes = inner.notes().in_segment(from);
    if notes.is_empty() || inner.sabotaged.is(Sabotage::ForgetNotes) {
        return true;
    }
    if !may_begin {
        return false;
    }
    notes.into_iter().all(|at| carry_note(inner, at))
}

/// Writes a note into the active segment, unless another has replaced it since it was listed: written behind that one it
/// would be in force again, and end a pause that an operator has just set, or list a chunk as dead that was just redriven.
pub fn carry_note(inner: &Inner, at: NoteAt) -> bool {
    let _placing = inner.placing.write().expect("no holder panics");
    let _in_order = inner.holding.lock().expect("no holder panics");
    if !inner.notes().is_in_force(at) {
        return true;
    }
    let Some(slot) = inner.slot(at.segment) else {
        return false;
    };
    let note = slot.segment.read_frame(at.start).ok();
    match note.and_then(|head| Note::decode(&head.record).ok()) {
        // Applied again under its new place by the committer.
        Some(note) => matches!(inner.commits.note(note), Ok(_) | Err(StoreError::Damaged)),
        None => false,
    }
}
