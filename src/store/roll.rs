//! Beginning a new segment, and the ledger's part in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::Active;
use super::header::{Predecessor, SegmentHeader};
use super::inner::{Book, Inner, SegmentSlot};
use super::layout::{Layout, PAGE, SegmentId};
use super::ledger::{Closed, SessionLine};
use super::reserve::or_with_reserve;
use super::segment::Segment;
use crate::sabotage::stop_at;

/// Makes a fresh segment the active one; the former one is cut after its last commit.
///
/// # Errors
/// No space, or the medium's. The former segment stays active then.
pub fn open_active(inner: &Inner, active: &mut Option<Active>) -> io::Result<()> {
    if active.is_none() && resume(inner, active)? {
        return Ok(());
    }
    let slot = create(inner)?;
    if let Some(former) = active.take() {
        stop_at("sealing");
        cut(&former.slot);
    }
    *active = Some(Active {
        end: slot.segment.layout.data_start(),
        next_ordinal: 0,
        slot,
    });
    // What this ledger says stands in segments too, so nobody waits for it, and a failure costs nothing yet. Only the
    // first one pins the host.
    let first = inner.ledger.lock().expect("no holder panics").edition == 0;
    if !first {
        inner.want_ledger();
    } else if let Err(error) = write_ledger(inner) {
        tracing::warn!(%error, "ledger not written");
    }
    Ok(())
}

/// Goes on in the youngest segment, if the process that wrote it closed it in order and there is room worth it. A
/// process that was killed, or had a failed sync, leaves none: nobody can know what its last sync was worth.
///
/// The ledger forgets the segment's end before the first byte is written behind it.
fn resume(inner: &Inner, active: &mut Option<Active>) -> io::Result<bool> {
    let resumable = inner
        .ledger
        .lock()
        .expect("no holder panics")
        .resumable
        .take();
    let Some(slot) = resumable.and_then(|id| activate(inner, id)) else {
        return Ok(false);
    };
    let (end, next_ordinal) = {
        let book = slot.book();
        (u64::from(book.end), book.chunks)
    };
    let layout = slot.segment.layout;
    let ready = write_ledger(inner)
        .and_then(|()| slot.segment.file()?.allocate(layout.segment_bytes))
        .and_then(|()| slot.segment.sync());
    if let Err(error) = ready {
        *inner.active.lock().expect("no holder panics") = None;
        tracing::warn!(segment = %slot.segment.id, %error, "not gone on with; a fresh segment is made");
        return Ok(false);
    }
    *active = Some(Active {
        slot,
        end,
        next_ordinal,
    });
    Ok(true)
}

/// Makes a kept segment the active one, if it is fit. From then on the keeper does not let it go.
fn activate(inner: &Inner, id: SegmentId) -> Option<Arc<SegmentSlot>> {
    let segments = inner.segments();
    let (youngest, slot) = segments.last_key_value()?;
    let layout = slot.segment.layout;
    let end = u64::from(slot.book().end);
    let fit = *youngest == id
        && end.is_multiple_of(PAGE)
        && end < layout.data_start() + layout.chunk_room() / 4 * 3
        && layout.segment_bytes == inner.settings.segment_bytes;
    fit.then(|| {
        *inner.active.lock().expect("no holder panics") = Some(id);
        Arc::clone(slot)
    })
}

/// A published, empty segment behind all others, and from now on the active one.
fn create(inner: &Inner) -> io::Result<Arc<SegmentSlot>> {
    let dir = inner.segments_dir();
    let id = inner.ledger.lock().expect("no holder panics").next_segment;
    let predecessor = inner.segments().last_key_value().map(|(id, slot)| {
        let book = slot.book();
        Predecessor {
            id: *id,
            chunks: book.chunks,
            end: book.end,
        }
    });
    let header = SegmentHeader {
        id,
        segment_bytes: inner.settings.segment_bytes,
        nonce: fresh_nonce(),
        predecessor,
    };
    let segment = Segment::create(&inner.disk, &dir, &header)?.publish(&dir)?;
    let layout = Layout {
        segment_bytes: header.segment_bytes,
    };
    let book = Book {
        end: layout.data_start() as u32,
        ..Book::default()
    };
    inner.used.fetch_add(book.bytes(), Ordering::Relaxed);
    let slot = Arc::new(SegmentSlot::new(segment, book));
    {
        // In one step: the keeper lets go of a segment that owes nothing and is not the active one.
        let mut segments = inner.segments.write().expect("no holder panics");
        *inner.active.lock().expect("no holder panics") = Some(id);
        segments.insert(id, Arc::clone(&slot));
    }
    inner.ledger.lock().expect("no holder panics").next_segment = SegmentId(id.0 + 1);
    Ok(slot)
}

/// Gives back what was reserved behind the last commit. The successor's header says where that was, so this may be lost.
pub fn cut(slot: &SegmentSlot) {
    let end = slot.book().end;
    let cut = slot
        .segment
        .file()
        .and_then(|file| file.set_len(u64::from(end)));
    if let Err(error) = cut {
        tracing::warn!(segment = %slot.segment.id, %error, "reserved space is not given back yet");
    }
}

/// Writes both ledger files: the totals of what is retired, the ends of what is closed, and what is known of sessions.
pub fn write_ledger(inner: &Inner) -> io::Result<()> {
    let _writing = inner.ledger_writing.lock().expect("no holder panics");
    let mut ledger = inner.ledger.lock().expect("no holder panics");
    let running_ms = ledger
        .running
        .look(inner.clock.boot_id(), inner.clock.now());
    let sessions = inner.sessions();
    let known = sessions
        .by_key
        .iter()
        .filter(|(_, state)| !state.accepted.is_empty());
    let lines = known
        .map(|(key, state)| SessionLine {
            key: key.clone(),
            accepted: state.accepted.clone(),
            delivered_high: state.delivered_high,
            changed_at: state.changed_at,
            quiet_from_ms: state.quiet_from(running_ms),
            ended_at: state.ended_at,
            promoted: state.promoted,
        })
        .collect();
    drop(sessions);
    let mut headless = std::mem::take(&mut ledger.closed);
    ledger.closed = closed(inner);
    headless.retain(|id, _| {
        !inner.segments().contains_key(id) && !ledger.retired.contains(id.0.into())
    });
    ledger.closed.append(&mut headless);
    ledger.next_number = inner.next_number.load(Ordering::Relaxed);
    ledger.edition += 1;
    // Nobody who wants to count waits for the disk.
    let mut written = ledger.clone();
    drop(ledger);
    written.sessions = lines;
    or_with_reserve(inner, || written.write(inner.disk.as_ref(), &inner.dir))?;
    inner
        .written_running_ms
        .store(running_ms, Ordering::Relaxed);
    Ok(())
}

/// Where the segments end that nobody appends to.
fn closed(inner: &Inner) -> BTreeMap<SegmentId, Closed> {
    let segments = inner.segments();
    // Under the lock of the map: a segment that became active since must not pass for closed, or an opening after a
    // kill would cut off what was accepted into it.
    let active = *inner.active.lock().expect("no holder panics");
    let complete = segments.iter().filter(|(id, _)| Some(**id) != active);
    complete
        .map(|(id, slot)| {
            let book = slot.book();
            let (chunks, end) = (book.chunks, book.end);
            (*id, Closed { chunks, end })
        })
        .collect()
}

/// Unpredictable, so that no payload can hold a frame that would pass for one of ours.
pub fn fresh_nonce() -> u64 {
    let mut bytes = [0; 8];
    let rng = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&rng, &mut bytes).expect("the system has randomness");
    u64::from_le_bytes(bytes)
}
