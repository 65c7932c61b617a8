//! Between producers and committer: notes first, then a chunk of each tenant in turn.

use std::collections::VecDeque;
use std::time::Duration;

use super::producers::Producers;
use super::stage::{Held, Share, Stage};
use super::sync::{Condvar, Mutex};
use crate::clock::Clock;
use crate::model::TenantId;

/// A commit takes at most so much.
const COMMIT_BYTES: u64 = 4 << 20;
/// While a sync is under way or held back so much must wait before it is written: small chunks share a write, large ones
/// overlap.
pub(super) const EAGER_BYTES: u64 = 256 << 10;
/// Payload that may wait in memory; a producer beyond it waits.
const WAITING_BYTES: u64 = 64 << 20;

/// What a producer waits with.
pub trait Waits {
    fn bytes(&self) -> u64;
    /// `None`: it goes before all tenants'.
    fn tenant(&self) -> Option<&TenantId>;
}

/// The committer is awake, and looks before it sleeps again.
const NOTHING: (u64, usize) = (u64::MAX, usize::MAX);

pub struct Waiting<R> {
    /// Notes first, then one queue a tenant, taken from in turn.
    pub(super) notes: VecDeque<R>,
    pub(super) tenants: VecDeque<(TenantId, VecDeque<R>)>,
    pub(super) bytes: u64,
    pub(super) count: usize,
    /// The committer sleeps until so many bytes or requests wait.
    pub(super) wanted: (u64, usize),
    /// Something happened that the committer must know before it sleeps again.
    pub(super) interrupted: bool,
    pub(super) closing: bool,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self {
            notes: VecDeque::new(),
            tenants: VecDeque::new(),
            bytes: 0,
            count: 0,
            wanted: (0, 0),
            interrupted: false,
            closing: false,
        }
    }
}

impl<R: Waits> Waiting<R> {
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

    fn push(&mut self, request: R) {
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
    fn take(&mut self, bytes_max: u64) -> VecDeque<R> {
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
            .saturating_sub(taken.iter().map(Waits::bytes).sum());
        self.count -= taken.len();
        taken
    }
}

/// Where producers wait for the committer, until it takes what they brought.
pub struct Gathering<R> {
    pub producers: Producers,
    pub(super) waiting: Mutex<Waiting<R>>,
    filled: Condvar,
    drained: Condvar,
}

impl<R> Default for Gathering<R> {
    fn default() -> Self {
        Self {
            producers: Producers::default(),
            waiting: Mutex::default(),
            filled: Condvar::default(),
            drained: Condvar::default(),
        }
    }
}

impl<R: Waits> Gathering<R> {
    /// Waits while too much waits.
    ///
    /// # Errors
    /// It is closed.
    pub fn submit(&self, request: R) -> Result<(), ()> {
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
    pub fn take(&self, stage: &Stage<impl Share>, clock: &dyn Clock) -> Option<Batch<R>> {
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
    pub(super) fn look(&self, waiting: &mut Waiting<R>, held: Held, patience: Duration) -> Next {
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
    pub fn take_latched(&self, patience: Duration) -> Option<VecDeque<R>> {
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
pub struct Batch<R> {
    pub requests: VecDeque<R>,
    /// A sync of all that is written then begins.
    pub sync: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Take {
        sync: bool,
    },
    /// Until something happens, or for so long.
    Wait(Option<Duration>),
}
