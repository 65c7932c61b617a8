//! How long to wait after the n-th failure. The only user of the `backoff` crate (docs/adr/0003), which
//! is asked for the interval alone: its own randomness, clock and elapsed time are never used, so that
//! the same failure count and the same draw always give the same wait.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// Growth stops here: a doubling passes any useful maximum long before, and a failure count that an
/// outage of years has run up costs no more than this many steps.
const STEPS_MAX: u32 = 64;

/// Waits of design section 6 before the doubling begins.
const FIRST_PROBES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
const LATER_PROBES: Backoff =
    Backoff::doubling(Duration::from_secs(30), Duration::from_secs(15 * 60));

/// Intervals that grow from `initial` by `multiplier` up to `max`. Valid by construction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    multiplier: f64,
}

/// Why settings make no backoff.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BackoffError {
    #[error("a backoff starts above zero")]
    ZeroInitial,
    #[error("a backoff of at most {max:?} cannot start at {initial:?}")]
    MaxBelowInitial { initial: Duration, max: Duration },
    #[error("a backoff of at most {max:?} is longer than the limit of {limit:?}")]
    TooLong { max: Duration, limit: Duration },
    #[error("a backoff grows by a factor from 1 to 10, not {multiplier}")]
    Multiplier { multiplier: f64 },
}

impl Backoff {
    /// Above it, the crate's arithmetic in floating nanoseconds is no longer exact.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// # Errors
    /// Settings under which an interval would be zero, shrink, or overflow.
    pub fn try_new(
        initial: Duration,
        max: Duration,
        multiplier: f64,
    ) -> Result<Self, BackoffError> {
        if initial.is_zero() {
            return Err(BackoffError::ZeroInitial);
        }
        if max < initial {
            return Err(BackoffError::MaxBelowInitial { initial, max });
        }
        if max > Self::LONGEST {
            let limit = Self::LONGEST;
            return Err(BackoffError::TooLong { max, limit });
        }
        if !(1.0..=10.0).contains(&multiplier) {
            return Err(BackoffError::Multiplier { multiplier });
        }
        Ok(Self {
            initial,
            max,
            multiplier,
        })
    }

    /// For constants: a bad pair does not compile.
    ///
    /// # Panics
    /// Where `initial` is zero or above `max`, or `max` above [`Self::LONGEST`].
    #[must_use]
    pub const fn doubling(initial: Duration, max: Duration) -> Self {
        assert!(!initial.is_zero(), "a backoff starts above zero");
        assert!(initial.as_nanos() <= max.as_nanos(), "max is below initial");
        assert!(max.as_nanos() <= Self::LONGEST.as_nanos(), "max too long");
        Self {
            initial,
            max,
            multiplier: 2.0,
        }
    }

    /// The wait after failure number `failures`, from 1; zero counts as one.
    pub fn interval(&self, failures: u32) -> Duration {
        let mut steps = ExponentialBackoff {
            current_interval: self.initial,
            initial_interval: self.initial,
            max_interval: self.max,
            multiplier: self.multiplier,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        for _ in 1..failures.min(STEPS_MAX) {
            steps.next_backoff();
        }
        // The field, not what the call returns: even with its randomness off the crate adds a random
        // part of a nanosecond to the latter.
        steps.current_interval.min(self.max)
    }
}

/// Anything from nothing to the whole interval, by a draw from `[0, 1)`: spreads most, and a retry may
/// come at once.
pub fn full_jitter(interval: Duration, draw: f64) -> Duration {
    interval.mul_f64(share(draw))
}

/// From half the interval to all of it: spreads, and never comes at once.
pub fn half_jitter(interval: Duration, draw: f64) -> Duration {
    interval.mul_f64(0.5 + share(draw) / 2.0)
}

/// The wait before the next probe of a hold that `failed` probes have not ended: 2 s, 10 s, 30 s, then
/// doubling to 15 min.
pub fn probe_interval(failed: u32) -> Duration {
    match FIRST_PROBES.get(failed as usize) {
        Some(wait) => *wait,
        None => LATER_PROBES.interval(failed.saturating_sub(1)),
    }
}

fn share(draw: f64) -> f64 {
    if draw.is_nan() {
        0.0
    } else {
        draw.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn settings_that_would_spin_or_overflow_are_refused() {
        let bad = [
            (secs(0), secs(1), 2.0),
            (secs(2), secs(1), 2.0),
            (secs(1), Duration::MAX, 2.0),
            (secs(1), secs(2), 0.5),
            (secs(1), secs(2), f64::NAN),
            (secs(1), secs(2), f64::INFINITY),
        ];
        for (initial, max, multiplier) in bad {
            assert!(
                Backoff::try_new(initial, max, multiplier).is_err(),
                "{initial:?} {max:?} {multiplier}"
            );
        }
    }

    #[test]
    fn intervals_grow_from_the_first_to_the_largest_and_stay() {
        let backoff = Backoff::try_new(secs(1), secs(60), 2.0).unwrap();
        let seen: Vec<u64> = (0..9).map(|n| backoff.interval(n).as_secs()).collect();
        assert_eq!(seen, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.interval(u32::MAX), secs(60));
    }

    #[test]
    fn the_same_failure_count_always_gives_the_same_interval() {
        let backoff = Backoff::try_new(secs(7), Backoff::LONGEST, 1.7).unwrap();
        for failures in 1..40 {
            let first = backoff.interval(failures);
            for _ in 0..200 {
                assert_eq!(backoff.interval(failures), first, "{failures}");
            }
        }
        assert_eq!(backoff.interval(40), Backoff::LONGEST);
    }

    #[test]
    fn a_multiplier_of_one_keeps_the_interval() {
        let backoff = Backoff::try_new(secs(5), secs(60), 1.0).unwrap();
        assert_eq!(backoff.interval(50), secs(5));
    }

    #[test]
    fn jitter_stays_inside_the_interval_whatever_the_draw() {
        for draw in [0.0, 0.25, 0.999, 1.0, 7.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(full_jitter(secs(10), draw) <= secs(10), "{draw}");
            let half = half_jitter(secs(10), draw);
            assert!(half >= secs(5) && half <= secs(10), "{draw}: {half:?}");
        }
        assert_eq!(full_jitter(secs(10), 0.5), secs(5));
        assert_eq!(half_jitter(secs(10), 0.5), Duration::from_millis(7500));
    }

    #[test]
    fn probes_come_after_2_10_and_30_seconds_and_then_double_to_15_minutes() {
        let seen: Vec<u64> = (0..9).map(|n| probe_interval(n).as_secs()).collect();
        assert_eq!(seen, [2, 10, 30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(probe_interval(u32::MAX), secs(900));
    }

    #[test]
    fn no_other_file_names_the_unmaintained_crate() {
        let names = ["ExponentialBackoff", "use ::backoff"];
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        ))];
        let mut naming = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    if names.iter().any(|name| text.contains(name)) {
                        naming.push(path);
                    }
                }
            }
        }
        assert_eq!(naming.len(), 1, "{naming:?}");
        assert!(naming[0].ends_with("policy/backoff.rs"), "{naming:?}");
    }
}
