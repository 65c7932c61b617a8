//! From written to durable: one thread syncs what the committer wrote, makes it visible and answers. While it waits
//! for the disk the committer writes on, and everything written meanwhile shares the next sync.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::error::{EnqueueError, Latched, StoreError};
use super::index::IndexFault;
use super::inner::{Accepted, Inner, SegmentSlot};
use super::plan::{Planned, What};
use super::queue::{Committed, NoteAt};
use super::segment::Segment;
use crate::model::ChunkKey;
use crate::sabotage::{Sabotage, stop_at};

/// Frames and words that were handed to the system in one write, and who waits for them.
pub struct Written {
    pub slot: Arc<SegmentSlot>,
    /// Without their payloads.
    pub planned: Vec<Planned>,
    pub starts: Vec<u32>,
    pub first_ordinal: u32,
    /// A page border.
    pub end: u64,
}

/// Where the committer leaves what it wrote. All of it is in one segment: a new one begins only when this is empty.
#[derive(Default)]
pub struct Stage {
    state: Mutex<State>,
    filled: Condvar,
    settled: Condvar,
    /// Chunks that a frame was planned for and that are not members of their session yet.
    under_way: Mutex<HashSet<ChunkKey>>,
}

#[derive(Default)]
struct State {
    written: Vec<Written>,
    syncing: bool,
    closed: bool,
}

impl Stage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Taken before the sessions, never the other way round: a chunk leaves here after it became a member there.
    pub fn under_way(&self) -> MutexGuard<'_, HashSet<ChunkKey>> {
        self.under_way.lock().expect("no holder panics")
    }

    /// Closed: it is dropped, and whoever waits learns that the store is closing.
    pub fn push(&self, written: Written) {
        let mut state = self.state();
        if !state.closed {
            state.written.push(written);
            self.filled.notify_one();
        }
    }

    /// Waits until all that was written is answered.
    pub fn wait_until_idle(&self) {
        let mut state = self.state();
        while !state.closed && (state.syncing || !state.written.is_empty()) {
            state = self.settled.wait(state).expect("no holder panics");
        }
    }

    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.closed || (!state.syncing && state.written.is_empty())
    }

    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// What is pushed before still becomes durable.
    pub fn close(&self) {
        self.wait_until_idle();
        self.state().closed = true;
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Vec<Written>> {
        let mut state = self.state();
        while state.written.is_empty() {
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).expect("no holder panics");
        }
        state.syncing = true;
        Some(std::mem::take(&mut state.written))
    }

    fn settle(&self) {
        self.state().syncing = false;
        self.settled.notify_all();
    }

    fn give_up(&self) {
        let mut state = self.state();
        state.closed = true;
        state.written.clear();
        self.settled.notify_all();
    }
}

/// The syncer's thread: runs until the stage is closed and empty. A panic closes the store as one of the committer does.
pub fn run(inner: &Inner) {
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while let Some(written) = inner.stage.take() {
            settle(inner, written);
            inner.stage.settle();
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
                inner.stage.under_way().remove(&meta.key);
                drop(reply.send(Err(EnqueueError::Latched(latched.clone()))));
            }
            What::Note { reply, .. } => {
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
                What::Note { note, reply } => {
                    let segment = slot.segment.id;
                    note_replies.push((note, reply, NoteAt { segment, start }));
                }
            }
        }
    }
    inner.grow(slot, end as u32, accepted.len() as u32);
    inner.accepted(slot, &accepted);
    {
        let mut under_way = inner.stage.under_way();
        for chunk in &accepted {
            under_way.remove(&chunk.meta.key);
        }
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
