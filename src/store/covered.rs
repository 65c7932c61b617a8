//! Which writes a sync has covered.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts writes. What was written before a sync began is durable once that sync has ended well, and not earlier.
#[derive(Debug, Default)]
pub struct Covered {
    written: AtomicU64,
    /// What `written` was when the last sync that succeeded began.
    synced: AtomicU64,
}

impl Covered {
    /// After a write, and after a sync that failed: nobody knows what it lost.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::Release);
    }

    /// Before a sync; its end takes what this returns. One sync at a time.
    pub fn begins(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn ended(&self, begun: u64) {
        self.synced.store(begun, Ordering::Release);
    }

    /// Something that was written may not be durable.
    pub fn is_behind(&self) -> bool {
        let synced = self.synced.load(Ordering::Acquire);
        self.written.load(Ordering::Acquire) != synced
    }
}
