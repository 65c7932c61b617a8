//! The only door to time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::model::Timestamp;

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
    /// Ends at `until` or shortly after. Cancel safe.
    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
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

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let left = until.since(self.now());
        Box::pin(tokio::time::sleep(left))
    }
}
