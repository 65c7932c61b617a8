//! How long the store was seen to run: the only clock by which anything is forgotten. A wall clock that is set to
//! another year moves nothing here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// However long nobody looked, it counts as so much at most: a clock that lies costs one day of remembrance.
const STEP_MAX: Duration = Duration::from_secs(86_400);

/// Running time in milliseconds, kept in the ledger. Between two openings in one boot of the machine time is known to
/// have passed, so that a host which only ever enqueues forgets too; over a reboot none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Running {
    total_ms: u64,
    last_look: Option<Look>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    boot_id: [u8; 16],
    /// Since that boot.
    at_ms: u64,
}

impl Running {
    /// Counts what passed since the last look, and returns the sum.
    pub fn look(&mut self, boot_id: [u8; 16], now: Instant) -> u64 {
        let at_ms = milliseconds(now.0);
        let passed = match self.last_look {
            Some(last) if last.boot_id == boot_id => at_ms.saturating_sub(last.at_ms),
            _ => 0,
        };
        self.total_ms += passed.min(milliseconds(STEP_MAX));
        self.last_look = Some(Look { boot_id, at_ms });
        self.total_ms
    }

    pub fn total_ms(&self) -> u64 {
        self.total_ms
    }
}

pub fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_time_grows_by_what_was_seen_to_pass_and_never_by_much_at_once() {
        const DAY: u64 = 86_400_000;
        let mut running = Running::default();
        // (boot, milliseconds since that boot) and the sum that must come of it.
        let looks = [
            (1, 5_000, 0),
            (1, 6_000, 1_000),
            (1, 6_000, 1_000),
            (1, 3_000, 1_000),
            (1, 4_500, 2_500),
            (2, 900_000, 2_500),
            (2, 900_100, 2_600),
            (2, 900_100 + 30 * DAY, 2_600 + DAY),
            (1, 900_200, 2_600 + DAY),
        ];
        for (boot, at, sum) in looks {
            let total = running.look([boot; 16], Instant(Duration::from_millis(at)));
            assert_eq!(total, sum, "boot {boot} at {at}");
        }
    }
}
