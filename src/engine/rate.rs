//! How fast a lane empties: bytes delivered over the last minutes, in a few buckets.

use std::time::Duration;

use crate::clock::Instant;

const BUCKET: Duration = Duration::from_secs(10);
const BUCKETS: u64 = 12;

/// A sliding window of two minutes.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// Bytes by bucket number; at most `BUCKETS` of them.
    buckets: Vec<(u64, u64)>,
    started: Option<Instant>,
}

impl Rate {
    pub fn add(&mut self, bytes: u64, now: Instant) {
        let number = number(now);
        self.started.get_or_insert(now);
        self.buckets.retain(|(n, _)| n + BUCKETS > number);
        match self.buckets.last_mut() {
            Some((last, sum)) if *last == number => *sum += bytes,
            _ => self.buckets.push((number, bytes)),
        }
    }

    /// Bytes a second; `None` if nothing was delivered within the window.
    pub fn bytes_per_second(&self, now: Instant) -> Option<f64> {
        let oldest = number(now).saturating_sub(BUCKETS - 1);
        let sum: u64 = self
            .buckets
            .iter()
            .filter(|(n, _)| *n >= oldest)
            .map(|(_, bytes)| bytes)
            .sum();
        let window = now.since(self.started?).min(BUCKET * (BUCKETS as u32));
        (sum > 0).then(|| sum as f64 / window.as_secs_f64().max(1.0))
    }
}

fn number(now: Instant) -> u64 {
    now.0.as_secs() / BUCKET.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn a_rate_follows_the_last_two_minutes_and_ends_with_them() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_second(at(1000)), None);
        for second in 1000..1600 {
            rate.add(500, at(second));
        }
        let seen = rate.bytes_per_second(at(1600)).unwrap();
        assert!((450.0..=500.0).contains(&seen), "{seen}");
        assert_eq!(rate.bytes_per_second(at(1800)), None);
        assert!(rate.buckets.len() <= 13);
    }
}
