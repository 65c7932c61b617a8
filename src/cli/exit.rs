//! Exit codes, and which one wins when several apply. Scripts and unit files rely on the numbers;
//! `docs/OPERATING.md` explains them.

use crate::control::Code;
use crate::control::wire::DrainOutcome;

pub const DONE: u8 = 0;
/// Bad usage or bad input: nothing was done.
pub const USAGE: u8 = 64;
/// Dead letters or damage are left, or bytes that contradict what is stored.
pub const LEFT: u8 = 65;
/// Work is left because a tenant is blocked or its platform does not answer.
pub const BLOCKED: u8 = 69;
/// A fault of this program.
pub const INTERNAL: u8 = 70;
/// The disk or the store.
pub const STORAGE: u8 = 74;
/// Throttled, out of time, full or held: the same command later may succeed.
pub const AGAIN: u8 = 75;
/// The configuration cannot be used.
pub const CONFIG: u8 = 78;

/// Strongest first. Codes of what was never begun come before those of how it ended.
const PRECEDENCE: [u8; 8] = [CONFIG, STORAGE, INTERNAL, BLOCKED, AGAIN, LEFT, USAGE, DONE];

/// The code of a whole from the codes of its parts. A code that is not ours is a fault of ours.
pub fn strongest(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: u8| {
        PRECEDENCE
            .iter()
            .position(|known| *known == code)
            .unwrap_or(2)
    };
    codes
        .into_iter()
        .min_by_key(|code| rank(*code))
        .unwrap_or(DONE)
}

pub fn of_refusal(code: Code) -> u8 {
    match code {
        Code::UnknownTenant
        | Code::BadInput
        | Code::Empty
        | Code::Changed
        | Code::TooLarge
        | Code::NotFound
        | Code::TooManyGaps
        | Code::Unsupported => USAGE,
        Code::Conflict | Code::CannotTell | Code::Repeat | Code::Damaged => LEFT,
        Code::Full | Code::Held | Code::Closing => AGAIN,
        Code::Configuration => CONFIG,
        Code::Storage => STORAGE,
        Code::Internal => INTERNAL,
    }
}

pub fn of_drain(outcome: DrainOutcome) -> u8 {
    match outcome {
        DrainOutcome::Drained => DONE,
        DrainOutcome::DeadLeft => LEFT,
        DrainOutcome::Blocked | DrainOutcome::Unreachable => BLOCKED,
        DrainOutcome::Throttled | DrainOutcome::Deadline => AGAIN,
        DrainOutcome::Storage => STORAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_beats_internal_beats_blocked_beats_later_beats_dead_beats_done() {
        let order = [74, 70, 69, 75, 65, 0];
        for (i, strong) in order.iter().enumerate() {
            for weak in &order[i..] {
                assert_eq!(strongest([*weak, *strong]), *strong);
                assert_eq!(strongest([*strong, *weak]), *strong);
            }
        }
        assert_eq!(strongest([]), 0);
        assert_eq!(strongest([0, 64, 65]), 65);
        assert_eq!(strongest([0, 3]), 3);
    }

    #[test]
    fn an_enqueue_tells_bad_input_from_conflict_from_full_from_disk() {
        for (code, exit) in [
            (Code::UnknownTenant, 64),
            (Code::Empty, 64),
            (Code::Changed, 64),
            (Code::Conflict, 65),
            (Code::Repeat, 65),
            (Code::CannotTell, 65),
            (Code::Full, 75),
            (Code::Storage, 74),
        ] {
            assert_eq!(of_refusal(code), exit, "{code:?}");
        }
    }
}
