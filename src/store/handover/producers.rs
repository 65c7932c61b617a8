//! How many producers are at work, so that one sync can serve all of them.

use std::sync::atomic::Ordering;

use super::sync::AtomicUsize;

/// Counts whoever has a payload in hand, or waits for an answer.
#[derive(Debug, Default)]
pub struct Producers {
    inside: AtomicUsize,
    /// The most at once since the last sync began.
    most: AtomicUsize,
}

/// Counted until it is dropped.
pub struct Inside<'a>(&'a Producers);

impl Producers {
    pub fn enter(&self) -> Inside<'_> {
        let inside = self.inside.fetch_add(1, Ordering::AcqRel) + 1;
        self.most.fetch_max(inside, Ordering::AcqRel);
        Inside(self)
    }

    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// How many may come before the next sync: those who were answered by the last one are about to come again.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    /// Who does not come again from here on is not waited for.
    pub fn sync_begins(&self) {
        self.most.store(self.inside(), Ordering::Release);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}
