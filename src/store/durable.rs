//! From written to durable: one thread syncs what the committer wrote, makes it visible and answers. While it waits
//! for the disk the committer writes on, and everything written meanwhile shares the next sync. What is too little for a
//! sync of its own is held back a moment, for those who were just answered to come again; and a sync that nobody else
//! can be waiting for is made by the committer itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::error::{EnqueueError, Latched, StoreError};
use super::handover::{self, Share};
use super::index::IndexFault;
use super::inner::{Accepted, Inner, SegmentSlot};
use super::moving::{self, Copied};
use super::plan::{Planned, What};
use super::queue::{Committed, NoteAt};
use super::record::Location;
use super::segment::Segment;
use crate::clock::Instant;
use crate::sabotage::{Sabotage, stop_at};

/// A sync is held back for at most this part of what the last one took, so that waiting in vain costs little.
const PATIENCE_PART: u32 = 4;
const PATIENCE_MAX: Duration = Duration::from_millis(2);

/// Frames and words that were handed to the system in one write, and who waits for them.
pub struct Written {
    pub slot: Arc<SegmentSlot>,
    /// Without their payloads.
    pub planned: Vec<Planned>,
    pub starts: Vec<u32>,
    pub first_ordinal: u32,
    /// A page border.
    pub end: u64,
    /// What it added to the segment.
    pub bytes: u64,
}

impl Share for Written {
    fn requests(&self) -> usize {
        self.planned.len()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where the committer leaves what it wrote.
pub type Stage = handover::Stage<Written>;

/// A sync under way; dropped by a panic too, so that nobody waits for its end in vain.
struct Syncing<'a> {
    inner: &'a Inner,
    began: Instant,
}

impl<'a> Syncing<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let began = inner.clock.now();
        Self { inner, began }
    }
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let now = self.inner.clock.now();
        let patience = (now.since(self.began) / PATIENCE_PART).min(PATIENCE_MAX);
        self.inner.stage.settle(now.saturating_add(patience));
    }
}

/// The syncer's thread: runs until the stage is closed and empty. A panic closes the store as one of the committer does.
pub fn run(inner: &Inner) {
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while let Some(written) = inner.stage.take(&inner.commits.producers) {
            let syncing = Syncing::begin(inner);
            settle(inner, written);
            drop(syncing);
            inner.commits.look_again();
        }
    }));
    if served.is_err() {
        inner.stage.give_up();
        inner.commits.close();
        inner.commits.abandon();
        inner.index.lose(&IndexFault::CommitterPanicked);
    }
}

/// Begins the sync of what was written: here, if there is nobody whose chunk could be written meanwhile, which saves
/// waking the syncer.
pub fn begin_sync(inner: &Inner) {
    match inner.stage.take_all(&inner.commits.producers) {
        Some(written) => {
            let _syncing = Syncing::begin(inner);
            settle(inner, written);
        }
        None => inner.stage.release(),
    }
}

fn settle(inner: &Inner, written: Vec<Written>) {
    let Some(last) = written.last() else { return };
    let (slot, end) = (Arc::clone(&last.slot), last.end);
    match make_durable(inner, &slot.segment, end) {
        Ok(()) => publish(inner, &slot, end, written),
        Err(error) => {
            stop_at("after_a_failed_sync");
            let latched = inner.latch(&error, &slot);
            for written in written {
                refuse(inner, written.planned, &latched);
            }
            inner.commits.interrupt();
        }
    }
}

/// One sync, then the synced word, which needs none.
fn make_durable(inner: &Inner, segment: &Segment, end: u64) -> io::Result<()> {
    if !inner.sabotaged.is(Sabotage::SkipSync) {
        match segment.sync() {
            Err(_) if inner.sabotaged.is(Sabotage::TrustFailedSync) => {}
            other => other?,
        }
    }
    segment.write_synced(end as u32)?;
    stop_at("between_sync_and_yes");
    Ok(())
}

/// Tells everyone of a write or sync that failed.
pub fn refuse(inner: &Inner, planned: Vec<Planned>, latched: &Latched) {
    for Planned { what, .. } in planned {
        match what {
            What::Chunk { meta, reply } => {
                // A replacement that was not written may be tried again.
                inner.is_not_replaced(&meta.key);
                inner.under_way().remove(&meta.key);
                drop(reply.send(Err(EnqueueError::Latched(latched.clone()))));
            }
            What::Note { reply, .. } => {
                drop(reply.send(Err(StoreError::Latched(latched.clone()))));
            }
            What::Copy { reply, .. } => {
                drop(reply.send(Err(StoreError::Latched(latched.clone()))));
            }
        }
    }
}

/// Makes what is durable visible, then answers: whoever is woken may be faster than the next line here.
fn publish(inner: &Inner, slot: &SegmentSlot, end: u64, written: Vec<Written>) {
    let mut accepted = Vec::new();
    let mut chunk_replies = Vec::new();
    let mut note_replies = Vec::new();
    let mut copies = Vec::new();
    for Written {
        planned,
        starts,
        first_ordinal,
        ..
    } in written
    {
        let mut ordinals = first_ordinal..;
        for (Planned { frame, what }, start) in planned.into_iter().zip(starts) {
            match what {
                What::Chunk { meta, reply } => {
                    chunk_replies.push((reply, meta.key.sequence));
                    accepted.push(Accepted {
                        ordinal: ordinals.next().expect("endless"),
                        start,
                        frame,
                        meta,
                    });
                }
                What::Copy { source, reply } => {
                    let ordinal = ordinals.next().expect("endless");
                    let segment = slot.segment.id;
                    let copied = Copied {
                        place: Location { segment, ordinal },
                        start,
                        number: frame.number,
                        accepted_at: frame.accepted_at,
                        source,
                    };
                    copies.push((copied, reply));
                }
                What::Note { note, reply } => {
                    let segment = slot.segment.id;
                    note_replies.push((note, reply, NoteAt { segment, start }));
                }
            }
        }
    }
    let chunks = accepted.len() + copies.len();
    inner.grow(slot, end as u32, chunks as u32);
    inner.accepted(slot, &accepted);
    {
        let mut under_way = inner.under_way();
        for chunk in &accepted {
            under_way.remove(&chunk.meta.key);
        }
    }
    for (copied, reply) in copies {
        moving::arrived(inner, slot, &copied);
        drop(reply.send(Ok(copied)));
    }
    for (note, reply, at) in note_replies {
        inner.noted(note, at);
        drop(reply.send(Ok(at)));
    }
    for (reply, sequence) in chunk_replies {
        // A producer that went away has its chunk accepted all the same.
        drop(reply.try_send(Ok(Committed::Accepted(sequence))));
    }
}
