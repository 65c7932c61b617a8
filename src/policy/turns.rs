//! Whose turn it is where uploads and fetches spend one request budget: uploads go first, and fetches get their part.

use std::time::Duration;

use crate::model::Route;

/// While both wait, one fetch goes for so many uploads: a tenth of the requests, which is between the twentieth that
/// fetching is promised and the fifth that it never exceeds.
const UPLOADS_EACH: u64 = 9;
/// Uploads that do not use their budget, because they are slow, leave a fetch this part of it.
const LEAST: f64 = 0.05;
/// Between two requests of the smallest budget that is known, for a platform that tells none.
const UNTOLD: Duration = Duration::from_millis(200);

/// Times count from any fixed point.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    /// Begun since the last fetch.
    uploads: u64,
    last_fetch: Option<Duration>,
    /// Fetches that could begin but for the budget.
    waiting: u32,
}

impl Turns {
    pub fn begin(&mut self, route: Route, now: Duration) {
        match route {
            Route::Fetch => (self.uploads, self.last_fetch) = (0, Some(now)),
            Route::Deliver | Route::StoreHost => self.uploads = self.uploads.saturating_add(1),
        }
    }

    pub fn wait(&mut self) {
        self.waiting += 1;
    }

    pub fn withdraw(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// When the next request belongs to a fetch although uploads wait, at the latest. `even` is the time between two
    /// requests of the budget, where it is known.
    pub fn fetch_at(&self, even: Option<Duration>) -> Duration {
        let Some(last) = self.last_fetch.filter(|_| self.uploads < UPLOADS_EACH) else {
            return Duration::ZERO;
        };
        let span = even.unwrap_or(UNTOLD).as_secs_f64() / LEAST;
        last.saturating_add(Duration::try_from_secs_f64(span).unwrap_or(Duration::MAX))
    }

    /// Uploads leave the next request to a fetch: one waits for it, and it is its turn.
    pub fn is_fetchs(&self, even: Option<Duration>, now: Duration) -> bool {
        self.waiting > 0 && self.fetch_at(even) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_fetchs_turn_comes_by_nine_uploads_or_by_its_time() {
        let mut turns = Turns::default();
        assert_eq!(turns.fetch_at(None), Duration::ZERO, "none went yet");
        turns.begin(Route::Fetch, ms(1000));
        for (uploads, even, at) in [
            (0, None, ms(5000)),
            (8, None, ms(5000)),
            (8, Some(ms(100)), ms(3000)),
            (9, Some(ms(100)), Duration::ZERO),
            (900, None, Duration::ZERO),
            (0, Some(Duration::MAX), Duration::MAX),
        ] {
            turns.uploads = uploads;
            assert_eq!(turns.fetch_at(even), at, "{uploads} {even:?}");
        }
    }

    #[test]
    fn uploads_wait_for_no_fetch_that_went_away() {
        let mut turns = Turns::default();
        assert!(!turns.is_fetchs(None, ms(1)), "nobody waits");
        turns.wait();
        turns.wait();
        turns.withdraw();
        assert!(turns.is_fetchs(None, ms(1)));
        turns.withdraw();
        assert!(!turns.is_fetchs(None, ms(1)));
    }
}
