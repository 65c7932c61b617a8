//! Faults that a debug build can be told to commit, so that every fault test can be shown to fail. A release build knows
//! their names and commits none: there [`Sabotaged::is`] is always `false`, and neither variable is read.

/// One deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Commits are answered without a sync.
    SkipSync,
    /// Waiters are answered before anything is written.
    AnswerBeforeWrite,
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
    /// A chunk is called moved before its copy is written.
    MoveBeforeCopy,
    /// A note is not carried over when its segment goes.
    ForgetNotes,
    /// Sessions are forgotten by what the wall clock says.
    AgeByWallClock,
    /// The index never answers.
    HangIndex,
    /// The index never ends the sync of its close.
    HangClose,
    /// The index panics.
    PanicIndex,
    /// The index panics when it is asked for a lease.
    PanicLease,
    /// The index never answers when it is asked for a lease.
    HangLease,
    /// The index panics in its close.
    PanicClose,
    /// An unauthorized chunk is acknowledged away.
    DropOnUnauthorized,
    /// An outage uses retries.
    CountOutageAsFailure,
    /// A request's header is logged with its token.
    LogHeader,
    /// 256 times as much of an answer is kept as may be.
    HoardAnswers,
}

#[cfg(debug_assertions)]
impl Sabotage {
    const ALL: [Self; 21] = [
        Self::AnswerBeforeWrite,
        Self::SkipSync,
        Self::AckBeforeSync,
        Self::ForgetWord,
        Self::SkipBlockChecksum,
        Self::TrustFailedSync,
        Self::TrustPageCache,
        Self::UnlinkFirst,
        Self::MoveBeforeCopy,
        Self::ForgetNotes,
        Self::AgeByWallClock,
        Self::HangIndex,
        Self::HangClose,
        Self::PanicIndex,
        Self::PanicLease,
        Self::HangLease,
        Self::PanicClose,
        Self::DropOnUnauthorized,
        Self::CountOutageAsFailure,
        Self::LogHeader,
        Self::HoardAnswers,
    ];
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

    /// In a debug build, the defects that `REELAY_SABOTAGE` names, separated by commas: `HangIndex`, `ForgetWord`, …
    ///
    /// # Panics
    /// One of the names is no defect: a test that sabotages nothing must not pass for it.
    #[must_use]
    pub fn from_env() -> Self {
        #[cfg(debug_assertions)]
        if let Ok(names) = std::env::var("REELAY_SABOTAGE") {
            return Self::named(&names);
        }
        Self::NONE
    }

    #[cfg(debug_assertions)]
    fn named(names: &str) -> Self {
        let names = names.split(',').filter(|name| !name.is_empty());
        names.fold(Self::NONE, |all, name| {
            let known = Sabotage::ALL
                .into_iter()
                .find(|sabotage| format!("{sabotage:?}") == name);
            all.with(known.unwrap_or_else(|| panic!("REELAY_SABOTAGE: no defect {name:?}")))
        })
    }

    pub fn is(self, sabotage: Sabotage) -> bool {
        cfg!(debug_assertions) && self.0 & (1 << sabotage as u32) != 0
    }

    /// Panics, or never returns, where one of these defects is there.
    pub fn misbehave(self, panic: Sabotage, hang: Sabotage) {
        if self.is(panic) {
            panic!("sabotaged: {panic:?}");
        }
        while self.is(hang) {
            std::thread::park();
        }
    }
}

/// In a debug build whose `REELAY_STOP_AT` names this point: reports it on stderr and stays here until killed. With
/// `writing@3` it passes twice before.
pub fn stop_at(point: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU32, Ordering};
        static POINT: OnceLock<Option<(String, u32)>> = OnceLock::new();
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let wanted = POINT.get_or_init(|| std::env::var("REELAY_STOP_AT").ok().map(nth));
        if let Some((name, which)) = wanted
            && name == point
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *which
        {
            eprintln!("stopped at {point}");
            loop {
                std::thread::park();
            }
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// The point and which passage of it is meant.
#[cfg(debug_assertions)]
fn nth(text: String) -> (String, u32) {
    match text.split_once('@') {
        Some((name, which)) => {
            let which = which.parse().expect("REELAY_STOP_AT: a number after @");
            (name.to_owned(), which)
        }
        None => (text, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defects_are_named_in_the_environment_as_in_the_code() {
        let named = Sabotaged::named("HangIndex,ForgetWord");
        for sabotage in Sabotage::ALL {
            let wanted = matches!(sabotage, Sabotage::HangIndex | Sabotage::ForgetWord);
            assert_eq!(named.is(sabotage), wanted, "{sabotage:?}");
        }
        assert!(std::panic::catch_unwind(|| Sabotaged::named("HangIndx")).is_err());
    }
}
