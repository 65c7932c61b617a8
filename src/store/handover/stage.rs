//! Between committer and syncer: what was written, until its sync begins and while it is under way.

use super::producers::Producers;
use super::sync::{Condvar, Mutex, MutexGuard};
use crate::clock::Instant;

/// So much is worth a sync of its own: it takes a disk about as long to write as a sync takes that writes nothing.
pub const SHARE_BYTES: u64 = 1 << 20;

/// What one write left for the next sync.
pub trait Share {
    fn requests(&self) -> usize;
    fn bytes(&self) -> u64;
}

/// What was written and waits for its sync to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub requests: usize,
    pub bytes: u64,
    /// No sync is under way, and none is about to begin: else the committer would ask for it again and again until it did.
    pub idle: bool,
    /// Until then those who were answered by the last sync are waited for.
    pub until: Instant,
}

impl Held {
    /// Whether the sync begins without waiting for anybody, `requests` and `bytes` being all there is.
    pub fn is_enough(requests: usize, bytes: u64, producers: &Producers) -> bool {
        bytes >= SHARE_BYTES || requests >= producers.most()
    }
}

/// Where the committer leaves what it wrote. All of it is in one segment: a new one begins only when this is empty.
pub struct Stage<W> {
    state: Mutex<State<W>>,
    filled: Condvar,
    settled: Condvar,
}

struct State<W> {
    written: Vec<W>,
    syncing: bool,
    /// What is written is synced, however little it is.
    released: bool,
    until: Instant,
    closed: bool,
}

impl<W> Default for Stage<W> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                written: Vec::new(),
                syncing: false,
                released: false,
                until: Instant::default(),
                closed: false,
            }),
            filled: Condvar::default(),
            settled: Condvar::default(),
        }
    }
}

impl<W: Share> State<W> {
    fn requests(&self) -> usize {
        self.written.iter().map(Share::requests).sum()
    }

    fn bytes(&self) -> u64 {
        self.written.iter().map(Share::bytes).sum()
    }

    fn take(&mut self, producers: &Producers) -> Vec<W> {
        self.syncing = true;
        self.released = false;
        producers.sync_begins();
        std::mem::take(&mut self.written)
    }
}

impl<W: Share> Stage<W> {
    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect("no holder panics")
    }

    /// Closed: it is dropped, and whoever waits learns that the store is closing.
    pub fn push(&self, written: W) {
        let mut state = self.state();
        if !state.closed {
            state.written.push(written);
        }
    }

    pub fn held(&self) -> Held {
        let state = self.state();
        Held {
            requests: state.requests(),
            bytes: state.bytes(),
            idle: !state.syncing && !state.released,
            until: state.until,
        }
    }

    /// Begins the sync of what was written, however little it is.
    pub fn release(&self) {
        let mut state = self.state();
        state.released = !state.written.is_empty();
        if state.released && !state.syncing {
            self.filled.notify_one();
        }
    }

    /// What was written, if a sync of it may begin here and everyone who is at work waits for it.
    pub fn take_all(&self, producers: &Producers) -> Option<Vec<W>> {
        let mut state = self.state();
        let all = !state.closed && !state.syncing && state.requests() >= producers.inside();
        (all && !state.written.is_empty()).then(|| state.take(producers))
    }

    /// Waits until all that was written is answered.
    pub fn wait_until_idle(&self) {
        self.release();
        let mut state = self.state();
        while !state.closed && (state.syncing || !state.written.is_empty()) {
            state = self.settled.wait(state).expect("no holder panics");
        }
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

    /// What the next sync covers, once it is worth one; `None` once closed and empty.
    pub fn take(&self, producers: &Producers) -> Option<Vec<W>> {
        let mut state = self.state();
        loop {
            if state.written.is_empty() && state.closed {
                return None;
            }
            let enough = state.released
                || state.closed
                || Held::is_enough(state.requests(), state.bytes(), producers);
            if !state.written.is_empty() && !state.syncing && enough {
                return Some(state.take(producers));
            }
            state = self.filled.wait(state).expect("no holder panics");
        }
    }

    /// The sync ended.
    pub fn settle(&self, until: Instant) {
        let mut state = self.state();
        state.syncing = false;
        state.until = until;
        drop(state);
        self.settled.notify_all();
    }

    /// Nobody syncs any more: what was written is dropped, and whoever waits for it learns of it.
    pub fn give_up(&self) {
        let mut state = self.state();
        state.closed = true;
        state.written.clear();
        self.settled.notify_all();
    }
}
