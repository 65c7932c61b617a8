//! Where producers wait for the committer: notes first, then a chunk of each tenant in turn.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::durable::{Held, Stage};
use super::error::{EnqueueError, Latched, StoreError};
use super::moving::{Copied, CopyRequest};
use super::producers::Producers;
use super::record::Note;
use super::types::SequenceChoice;
use crate::clock::Clock;
use crate::model::{ChunkMeta, TenantId, Timestamp};

/// A commit takes at most so much.
const COMMIT_BYTES: u64 = 4 << 20;
/// While a sync is under way or held back so much must wait before it is written: small chunks share a write, large ones
/// overlap.
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

/// The committer is awake, and looks before it sleeps again.
const NOTHING: (u64, usize) = (u64::MAX, usize::MAX);

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
    Copy(Box<CopyRequest>, SyncSender<Result<Copied, StoreError>>),
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
            Self::Copy(copy, _) => copy.frame.bytes(),
            Self::Note(..) => 512,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Chunk(chunk, _) => Some(&chunk.meta.key.tenant),
            Self::Copy(copy, _) => Some(&copy.source.meta.key.tenant),
            Self::Note(..) => None,
        }
    }

    pub fn latched(self, latched: &Latched) {
        match self {
            Self::Chunk(_, reply) => drop(reply.send(Err(EnqueueError::Latched(latched.clone())))),
            Self::Note(_, reply) => drop(reply.send(Err(StoreError::Latched(latched.clone())))),
            Self::Copy(_, reply) => drop(reply.send(Err(StoreError::Latched(latched.clone())))),
        }
    }
}

#[derive(Default)]
struct Waiting {
    /// Notes first, then one queue a tenant, taken from in turn.
    notes: VecDeque<Request>,
    tenants: VecDeque<(TenantId, VecDeque<Request>)>,
    bytes: u64,
    count: usize,
    /// The committer sleeps until so many bytes or requests wait.
    wanted: (u64, usize),
    /// Something happened that the committer must know before it sleeps again.
    interrupted: bool,
    closing: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn is_enough(&self) -> bool {
        self.bytes >= self.wanted.0 || self.count >= self.wanted.1
    }

    /// The committer sleeps on.
    fn is_quiet(&mut self) -> bool {
        !self.is_enough() && !self.interrupted && !self.closing
    }

    fn push(&mut self, request: Request) {
        self.bytes += request.bytes();
        self.count += 1;
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
        self.count -= taken.len();
        taken
    }
}

/// Where producers wait for the committer.
#[derive(Default)]
pub struct CommitQueue {
    pub producers: Producers,
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
        let _inside = self.producers.enter();
        let (reply, answer) = sync_channel(1);
        self.submit(Request::Note(Box::new(note), reply))
            .map_err(|()| StoreError::Closing)?;
        answer.recv().unwrap_or(Err(StoreError::Closing))
    }

    /// Writes a frame once more, as it is.
    pub fn copy(
        &self,
        copy: CopyRequest,
    ) -> Result<Receiver<Result<Copied, StoreError>>, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.submit(Request::Copy(Box::new(copy), reply))
            .map_err(|()| StoreError::Closing)?;
        Ok(answer)
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
        let enough = waiting.is_enough();
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
        waiting.count = 0;
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

    /// The next batch, and whether a sync of all that is written then begins. Empty after an interruption; `None` once
    /// closed and empty.
    pub fn take(&self, stage: &Stage, clock: &dyn Clock) -> Option<Batch> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let mut patient = true;
        loop {
            let held = stage.held();
            if waiting.is_empty() && waiting.closing {
                return None;
            }
            let left = if patient {
                held.until.since(clock.now())
            } else {
                Duration::ZERO
            };
            let patience = match self.look(&mut waiting, held, left) {
                Next::Take { sync } => {
                    let requests = waiting.take(COMMIT_BYTES);
                    waiting.wanted = NOTHING;
                    drop(waiting);
                    self.drained.notify_all();
                    return Some(Batch { requests, sync });
                }
                Next::Wait(patience) => patience,
            };
            waiting = match patience {
                None => self.filled.wait(waiting).expect("no holder panics"),
                Some(patience) => {
                    let quiet = Waiting::is_quiet;
                    let waited = self.filled.wait_timeout_while(waiting, patience, quiet);
                    let (waiting, timeout) = waited.expect("no holder panics");
                    // Whatever the clock says.
                    patient = !timeout.timed_out();
                    waiting
                }
            };
        }
    }

    /// What the committer does next, which depends on what waits, what is written, who may still come and how long they
    /// are waited for.
    fn look(&self, waiting: &mut Waiting, held: Held, patience: Duration) -> Next {
        let (requests, bytes) = (held.requests + waiting.count, held.bytes + waiting.bytes);
        let enough = requests > 0 && Held::is_enough(requests, bytes, &self.producers);
        if std::mem::take(&mut waiting.interrupted) || waiting.closing {
            return Next::Take { sync: held.idle };
        }
        if enough && held.idle {
            return Next::Take { sync: true };
        }
        if waiting.bytes >= EAGER_BYTES || (enough && !waiting.is_empty()) {
            return Next::Take { sync: false };
        }
        if requests == 0 {
            // Whoever comes first is looked at.
            waiting.wanted = if held.idle {
                (1, 1)
            } else {
                (EAGER_BYTES, self.left(held))
            };
            return Next::Wait(None);
        }
        waiting.wanted = (EAGER_BYTES, self.left(held));
        if !held.idle {
            return Next::Wait(None);
        }
        match patience {
            Duration::ZERO => Next::Take { sync: true },
            patience => Next::Wait(Some(patience)),
        }
    }

    /// How many must wait for everyone to be there.
    fn left(&self, held: Held) -> usize {
        self.producers.most().saturating_sub(held.requests).max(1)
    }

    /// Sleeps through `patience`, unless something must be known before; then what waits, which is refused.
    pub fn take_latched(&self, patience: Duration) -> Option<VecDeque<Request>> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.wanted = (1, 1);
        let waited = self
            .filled
            .wait_timeout_while(waiting, patience, Waiting::is_quiet);
        waiting = waited.expect("no holder panics").0;
        if waiting.is_empty() && waiting.closing {
            return None;
        }
        waiting.interrupted = false;
        let taken = waiting.take(COMMIT_BYTES);
        drop(waiting);
        self.drained.notify_all();
        Some(taken)
    }
}

/// What the committer writes next.
pub struct Batch {
    pub requests: VecDeque<Request>,
    /// A sync of all that is written then begins.
    pub sync: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Take {
        sync: bool,
    },
    /// Until something happens, or for so long.
    Wait(Option<Duration>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;

    const PATIENCE: Duration = Duration::from_millis(1);
    const NOW: Next = Next::Take { sync: true };
    const WRITE: Next = Next::Take { sync: false };

    /// What the committer does when `inside` producers are at work, `count` requests of `kib` each wait, and `held` of
    /// them are written.
    fn look(inside: usize, (count, held): (usize, usize), kib: u64, idle: bool) -> (Next, Waiting) {
        let queue = CommitQueue::default();
        let _inside: Vec<_> = (0..inside).map(|_| queue.producers.enter()).collect();
        let mut waiting = Waiting {
            bytes: (count as u64 * kib) << 10,
            count,
            ..Waiting::default()
        };
        let held = Held {
            requests: held,
            bytes: (held as u64 * kib) << 10,
            idle,
            until: Instant::default(),
        };
        let next = queue.look(&mut waiting, held, PATIENCE);
        (next, waiting)
    }

    #[test]
    fn one_producer_alone_waits_for_nobody() {
        assert_eq!(look(1, (1, 0), 64, true).0, NOW);
        assert_eq!(look(1, (1, 0), 1024, true).0, NOW);
    }

    #[test]
    fn small_chunks_wait_for_those_who_are_about_to_come_again() {
        let (next, waiting) = look(16, (2, 4), 64, true);
        assert_eq!(next, Next::Wait(Some(PATIENCE)));
        assert_eq!(waiting.wanted, (EAGER_BYTES, 12), "the rest of the sixteen");
        assert_eq!(
            look(16, (4, 4), 64, true).0,
            WRITE,
            "copied while they come"
        );
        assert_eq!(look(16, (2, 14), 64, true).0, NOW, "all are there");
        assert_eq!(
            look(40, (2, 14), 64, true).0,
            NOW,
            "worth a sync of its own"
        );
    }

    #[test]
    fn while_a_sync_is_under_way_what_is_worth_a_write_is_written_and_no_sync_begun() {
        assert_eq!(look(16, (1, 0), 256, false).0, WRITE);
        assert_eq!(look(16, (2, 0), 64, false).0, Next::Wait(None));
        assert_eq!(look(2, (2, 0), 64, false).0, WRITE, "nobody else can come");
        assert_eq!(look(16, (0, 0), 64, false).0, Next::Wait(None));
    }

    #[test]
    fn who_waits_is_never_left_alone_when_patience_is_over_the_store_closes_or_is_latched() {
        let queue = CommitQueue::default();
        let _inside = (queue.producers.enter(), queue.producers.enter());
        let held = Held {
            requests: 1,
            bytes: 512,
            idle: true,
            until: Instant::default(),
        };
        let mut waiting = Waiting::default();
        assert_eq!(
            queue.look(&mut waiting, held, PATIENCE),
            Next::Wait(Some(PATIENCE))
        );
        assert_eq!(queue.look(&mut waiting, held, Duration::ZERO), NOW);
        waiting.interrupted = true;
        assert_eq!(queue.look(&mut waiting, held, PATIENCE), NOW);
        assert!(!waiting.interrupted);
        waiting.closing = true;
        assert_eq!(queue.look(&mut waiting, held, PATIENCE), NOW);
    }
}
