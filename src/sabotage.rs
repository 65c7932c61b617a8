//! Faults that a debug build can be told to commit, so that every fault test can be shown to fail. A release build
//! holds none of them.

/// One deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Commits are answered without a sync.
    SkipSync,
    /// Waiters are answered before the sync.
    AckBeforeSync,
    /// An ack does not write its state word.
    ForgetWord,
    /// Payload blocks are handed out unchecked.
    SkipBlockChecksum,
    /// A failed sync is answered with yes.
    TrustFailedSync,
    /// A frame beyond the durable end is taken as durable at open instead of being copied.
    TrustPageCache,
    /// A segment is unlinked before the ledgers know.
    UnlinkFirst,
    /// A note is not carried over when its segment goes.
    ForgetNotes,
    /// The index never answers.
    HangIndex,
    /// The index panics.
    PanicIndex,
    /// An unauthorized chunk is acknowledged away.
    DropOnUnauthorized,
    /// An outage uses retries.
    CountOutageAsFailure,
}

/// The defects of one store or engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sabotaged(u32);

impl Sabotaged {
    pub const NONE: Self = Self(0);

    #[cfg(debug_assertions)]
    #[must_use]
    pub fn with(self, sabotage: Sabotage) -> Self {
        Self(self.0 | 1 << sabotage as u32)
    }

    pub fn is(self, sabotage: Sabotage) -> bool {
        cfg!(debug_assertions) && self.0 & (1 << sabotage as u32) != 0
    }
}

/// In a debug build whose `REELAY_STOP_AT` names this point: reports it on stderr and stays here until killed.
pub fn stop_at(point: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static POINT: OnceLock<Option<String>> = OnceLock::new();
        let wanted = POINT.get_or_init(|| std::env::var("REELAY_STOP_AT").ok());
        if wanted.as_deref() == Some(point) {
            eprintln!("stopped at {point}");
            loop {
                std::thread::park();
            }
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}
