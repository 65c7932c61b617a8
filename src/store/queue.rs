//! Where producers wait for the committer: notes first, then a chunk of each tenant in turn.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::durable::Stage;
use super::error::{EnqueueError, Latched, StoreError};
use super::record::Note;
use super::types::SequenceChoice;
use crate::model::{ChunkMeta, TenantId, Timestamp};

/// A commit takes at most so much.
const COMMIT_BYTES: u64 = 4 << 20;
/// While a sync is under way so much must wait before it is written: small chunks share a write, large ones overlap.
const EAGER_BYTES: u64 = 256 << 10;
/// Payload that may wait in memory; a producer beyond it waits.
const WAITING_BYTES: u64 = 64 << 20;

/// A chunk whose bytes are ready to be written.
pub struct ChunkRequest {
    /// The sequence is filled in by the committer if `choice` leaves it open.
    pub meta: ChunkMeta,
    pub choice: SequenceChoice,
    pub block_crcs: Vec<u8>,
    /// Empty for a solo.
    pub payload: Vec<u8>,
    pub solo: Option<u64>,
    /// The stored bytes of this very key are damaged: these take their place.
    pub replaces: bool,
    /// When another host accepted it; `None`: now.
    pub accepted_at: Option<Timestamp>,
}

/// What became of a chunk request.
pub enum Committed {
    Accepted(u64),
    /// The sequence was accepted before: compare the digests.
    Member,
}

pub enum Request {
    Chunk(
        Box<ChunkRequest>,
        SyncSender<Result<Committed, EnqueueError>>,
    ),
    Note(Box<Note>, SyncSender<Result<NoteAt, StoreError>>),
}

/// Where a note was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteAt {
    pub segment: super::layout::SegmentId,
    pub start: u32,
}

impl Request {
    fn bytes(&self) -> u64 {
        match self {
            Self::Chunk(chunk, _) => chunk.payload.len() as u64 + 512,
            Self::Note(..) => 512,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Chunk(chunk, _) => Some(&chunk.meta.key.tenant),
            Self::Note(..) => None,
        }
    }

    pub fn latched(self, latched: &Latched) {
        match self {
            Self::Chunk(_, reply) => drop(reply.send(Err(EnqueueError::Latched(latched.clone())))),
            Self::Note(_, reply) => drop(reply.send(Err(StoreError::Latched(latched.clone())))),
        }
    }
}

#[derive(Default)]
struct Waiting {
    /// Notes first, then one queue a tenant, taken from in turn.
    notes: VecDeque<Request>,
    tenants: VecDeque<(TenantId, VecDeque<Request>)>,
    bytes: u64,
    /// The committer sleeps until so much waits.
    wanted: u64,
    /// Something happened that the committer must know before it sleeps again.
    interrupted: bool,
    closing: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.tenants.is_empty()
    }

    fn push(&mut self, request: Request) {
        self.bytes += request.bytes();
        let Some(tenant) = request.tenant() else {
            self.notes.push_back(request);
            return;
        };
        match self.tenants.iter_mut().find(|(name, _)| name == tenant) {
            Some((_, queue)) => queue.push_back(request),
            None => self
                .tenants
                .push_back((tenant.clone(), VecDeque::from([request]))),
        }
    }

    /// The next commit's requests: all notes, then a chunk of each tenant in turn.
    fn take(&mut self, bytes_max: u64) -> VecDeque<Request> {
        let mut taken = std::mem::take(&mut self.notes);
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some((tenant, mut queue)) = self.tenants.pop_front() else {
                break;
            };
            if let Some(request) = queue.pop_front() {
                bytes += request.bytes();
                taken.push_back(request);
            }
            if !queue.is_empty() {
                self.tenants.push_back((tenant, queue));
            }
        }
        self.bytes = self
            .bytes
            .saturating_sub(taken.iter().map(Request::bytes).sum());
        taken
    }
}

/// Where producers wait for the committer.
#[derive(Default)]
pub struct CommitQueue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    drained: Condvar,
}

impl CommitQueue {
    pub fn chunk(
        &self,
        chunk: ChunkRequest,
    ) -> Result<Receiver<Result<Committed, EnqueueError>>, EnqueueError> {
        let (reply, answer) = sync_channel(1);
        let request = Request::Chunk(Box::new(chunk), reply);
        self.submit(request).map_err(|()| EnqueueError::Closing)?;
        Ok(answer)
    }

    /// Writes a note durably.
    pub fn note(&self, note: Note) -> Result<NoteAt, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.submit(Request::Note(Box::new(note), reply))
            .map_err(|()| StoreError::Closing)?;
        answer.recv().unwrap_or(Err(StoreError::Closing))
    }

    fn submit(&self, request: Request) -> Result<(), ()> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        while waiting.bytes > WAITING_BYTES && !waiting.closing {
            waiting = self.drained.wait(waiting).expect("no holder panics");
        }
        if waiting.closing {
            return Err(());
        }
        waiting.push(request);
        let enough = waiting.bytes >= waiting.wanted;
        drop(waiting);
        if enough {
            self.filled.notify_one();
        }
        Ok(())
    }

    pub fn close(&self) {
        self.waiting.lock().expect("no holder panics").closing = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Drops what waits: its producers are told that the store is closing.
    pub fn abandon(&self) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.notes.clear();
        waiting.tenants.clear();
        waiting.bytes = 0;
    }

    /// A sync ended: what was too little to be written meanwhile is written now.
    pub fn look_again(&self) {
        drop(self.waiting.lock().expect("no holder panics"));
        self.filled.notify_one();
    }

    /// The store is latched: the committer sees to a fresh segment.
    pub fn interrupt(&self) {
        self.waiting.lock().expect("no holder panics").interrupted = true;
        self.filled.notify_one();
    }

    /// The next batch, empty after an interruption; `None` once closed and empty. With a patience, an empty batch when it is over.
    pub fn take(&self, stage: &Stage, patience: Option<Duration>) -> Option<VecDeque<Request>> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        loop {
            if waiting.is_empty() && waiting.closing {
                return None;
            }
            waiting.wanted = if stage.is_idle() { 1 } else { EAGER_BYTES };
            if waiting.bytes >= waiting.wanted || std::mem::take(&mut waiting.interrupted) {
                break;
            }
            match patience {
                None => waiting = self.filled.wait(waiting).expect("no holder panics"),
                Some(patience) => {
                    let (again, timeout) = self
                        .filled
                        .wait_timeout(waiting, patience)
                        .expect("no holder panics");
                    waiting = again;
                    if timeout.timed_out() {
                        return Some(VecDeque::new());
                    }
                }
            }
        }
        let taken = waiting.take(COMMIT_BYTES);
        drop(waiting);
        self.drained.notify_all();
        Some(taken)
    }
}
