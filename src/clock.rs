//! The only door to time.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Timestamp};

/// A point on the clock that never jumps and counts suspended time (CLOCK_BOOTTIME), in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub Duration);

impl Instant {
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The span from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time for what is persisted or shown, boot time for every wait.
pub trait Clock: Send + Sync + 'static {
    fn wall(&self) -> Timestamp;
    fn now(&self) -> Instant;
    /// Differs from boot to boot: an [`Instant`] means nothing under another one.
    fn boot_id(&self) -> [u8; 16];
    /// Ends at `until` or shortly after. Cancel safe.
    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A stored deadline: it survives restarts, and no clock jump makes it later than its own duration from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    set_at: Timestamp,
    set_at_boot: Duration,
    boot_id: [u8; 16],
    lasts: Duration,
}

impl Deadline {
    pub fn after(clock: &dyn Clock, lasts: Duration) -> Self {
        Self {
            set_at: clock.wall(),
            set_at_boot: clock.now().0,
            boot_id: clock.boot_id(),
            lasts,
        }
    }

    /// What is left of it; zero when it has passed.
    pub fn left(&self, clock: &dyn Clock) -> Duration {
        let gone = if self.boot_id == clock.boot_id() {
            clock.now().0.saturating_sub(self.set_at_boot)
        } else {
            clock.wall().since(self.set_at)
        };
        self.lasts.saturating_sub(gone)
    }
}

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// A timer does not count suspended time, so a long sleep looks again this often.
const LONGEST_NAP: Duration = Duration::from_secs(20);

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
    }

    fn now(&self) -> Instant {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Instant(Duration::new(
            seconds,
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    fn boot_id(&self) -> [u8; 16] {
        static BOOT_ID: OnceLock<[u8; 16]> = OnceLock::new();
        *BOOT_ID.get_or_init(|| {
            let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            let digest = Digest::of(text.unwrap_or_default().as_bytes());
            *digest.0.first_chunk().expect("16 of 32 bytes")
        })
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let left = until.since(self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_NAP)).await;
            }
        })
    }
}

/// Follows the runtime's timer, so that a paused runtime is a virtual clock. For tests.
#[derive(Debug, Clone)]
pub struct RuntimeClock {
    origin: tokio::time::Instant,
    wall_at_origin: Timestamp,
}

impl RuntimeClock {
    pub fn starting_at(wall: Timestamp) -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            wall_at_origin: wall,
        }
    }
}

impl Clock for RuntimeClock {
    fn wall(&self) -> Timestamp {
        self.wall_at_origin.saturating_add(self.origin.elapsed())
    }

    fn now(&self) -> Instant {
        // Never zero, so that "before the start" can be expressed.
        Instant(Duration::from_secs(1_000_000) + self.origin.elapsed())
    }

    fn boot_id(&self) -> [u8; 16] {
        [0; 16]
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let left = until.since(self.now());
        Box::pin(tokio::time::sleep(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(Timestamp, Duration, [u8; 16]);

    impl Clock for At {
        fn wall(&self) -> Timestamp {
            self.0
        }
        fn now(&self) -> Instant {
            Instant(self.1)
        }
        fn boot_id(&self) -> [u8; 16] {
            self.2
        }
        fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::ready(()))
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wall_clock_that_jumps_neither_shortens_nor_lengthens_a_deadline_of_this_boot() {
        let deadline = Deadline::after(&At(Timestamp(0), HOUR, [1; 16]), HOUR);
        let day = 86_400_000;
        for wall in [-day, 0, day] {
            assert_eq!(
                deadline.left(&At(Timestamp(wall), HOUR + HOUR / 2, [1; 16])),
                HOUR / 2
            );
        }
    }

    #[test]
    fn after_a_reboot_a_deadline_is_never_later_than_its_own_duration_from_now() {
        let deadline = Deadline::after(&At(Timestamp(10_000_000), HOUR, [1; 16]), HOUR);
        let left = |wall| deadline.left(&At(Timestamp(wall), Duration::ZERO, [2; 16]));
        assert_eq!(left(10_000_000 + 1_800_000), HOUR / 2);
        assert_eq!(left(10_000_000 + 7_200_000), Duration::ZERO);
        assert_eq!(left(0), HOUR);
    }
}
