//! The hand-overs between producers, committer and syncer, whatever is handed over.
//!
//! These files name no lock but through `super::sync`: the tests compile them once more over a model checker's locks and
//! try schedules that no machine would choose (ADR 0031). So what is checked is what runs.

mod producers;
mod stage;
mod waiting;

mod sync {
    pub use std::sync::atomic::AtomicUsize;
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

pub use producers::Inside;
pub use stage::{Share, Stage};
pub use waiting::{Gathering, Waits};

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
