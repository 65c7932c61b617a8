//! How fast the store fills: the samples of a holder's last minutes, and when the present rate would fill it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;

/// Looked back over this long: longer than a group of enqueues, shorter than a working day's rhythm.
const SPAN: Duration = Duration::from_secs(600);
/// A shorter look would turn one large chunk into an alarm.
const SHORTEST: Duration = Duration::from_secs(30);
/// Looks closer together tell nothing new.
const APART: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Trend {
    samples: VecDeque<(Instant, u64)>,
}

impl Trend {
    /// Adds what is used now; answers in how many seconds `room` more bytes are gone, if that can be told.
    pub fn eta_full_s(&mut self, now: Instant, used: u64, room: u64) -> Option<u64> {
        while self
            .samples
            .front()
            .is_some_and(|(at, _)| now.since(*at) > SPAN)
        {
            self.samples.pop_front();
        }
        if self
            .samples
            .back()
            .is_none_or(|(at, _)| now.since(*at) >= APART)
        {
            self.samples.push_back((now, used));
        }
        let (from, before) = *self.samples.front()?;
        let span = now.since(from);
        let grown = used.checked_sub(before).filter(|grown| *grown > 0)?;
        if span < SHORTEST {
            return None;
        }
        let eta = u128::from(room) * span.as_millis() / u128::from(grown) / 1_000;
        u64::try_from(eta).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn a_store_that_does_not_grow_is_never_full() {
        let mut trend = Trend::default();
        assert_eq!(trend.eta_full_s(at(0), 500, 100), None);
        assert_eq!(trend.eta_full_s(at(60), 500, 100), None);
        assert_eq!(trend.eta_full_s(at(120), 400, 100), None);
    }

    #[test]
    fn the_present_rate_tells_when_the_room_is_gone() {
        let mut trend = Trend::default();
        assert_eq!(trend.eta_full_s(at(0), 0, 1_000), None);
        assert_eq!(trend.eta_full_s(at(10), 100, 900), None, "too short a look");
        assert_eq!(trend.eta_full_s(at(60), 600, 400), Some(40));
        // What is older than the look back no longer counts.
        assert_eq!(trend.eta_full_s(at(1_000), 600, 400), None);
    }
}
