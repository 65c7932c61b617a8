//! Whether recordings fit a request budget.

use std::time::Duration;

/// The span of recording that a request must hold at least, so that so many recordings at once fit so many requests a
/// minute; in whole seconds. A session makes one request for every such span.
pub fn interval(sessions: u64, requests_per_minute: u64) -> Duration {
    let seconds = sessions
        .saturating_mul(60)
        .div_ceil(requests_per_minute.max(1));
    Duration::from_secs(seconds.max(1))
}

/// The requests a minute that recordings make where each request holds so much.
pub fn requests_per_minute(sessions: u64, interval: Duration) -> u64 {
    let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    sessions
        .saturating_mul(60_000)
        .div_ceil(milliseconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thousand_recordings_fit_300_requests_in_400_seconds_each() {
        let seconds = Duration::from_secs;
        assert_eq!(interval(2000, 300), seconds(400));
        assert_eq!(requests_per_minute(2000, seconds(30)), 4000);
        assert_eq!(requests_per_minute(2000, seconds(400)), 300);
        assert_eq!(interval(0, 300), seconds(1));
        assert!(interval(u64::MAX, 0) > seconds(1));
        assert_eq!(requests_per_minute(1, Duration::ZERO), 60_000);
    }
}
