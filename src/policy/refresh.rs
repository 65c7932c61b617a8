//! How long a token is taken to live, and when it is renewed.

use std::time::Duration;

use serde_json::Value;

/// For an answer that states no usable lifetime. RFC 6749 section 5.1 lets a server leave it out; a
/// quarter of an hour is the shortest life that platforms are known to give silently, and a token
/// that lives longer only costs a needless request every so often. A token that dies earlier is
/// recovered by its 401.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Longer than any life that was seen (450 days) and far from every overflow.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(500 * 24 * 3600);

/// A life of less is taken as this, so that whoever waited for the token can use it.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

const WINDOW_MIN: Duration = Duration::from_secs(30);
const WINDOW_MAX: Duration = Duration::from_secs(5 * 60);

/// The life that `expires_in` states: seconds, as a number or as a text. Missing, unreadable, zero and
/// negative count as not stated, because servers send 0 for "does not expire" as well.
pub fn lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(LONGEST_LIFETIME)
                .clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
        }
        _ => DEFAULT_LIFETIME,
    }
}

/// How long before its end a token is renewed at the earliest: a tenth of its life, at least 30 s and
/// at most 5 min, but never more than half of it.
pub fn window(life: Duration) -> Duration {
    (life / 10).clamp(WINDOW_MIN, WINDOW_MAX).min(life / 2)
}

/// How long before its end this token is renewed: somewhere in the earlier half of the window, by the
/// draw, so that tokens of one birth are not renewed in one moment.
pub fn lead(life: Duration, draw: f64) -> Duration {
    super::backoff::half_jitter(window(life), draw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn every_silly_lifetime_becomes_a_sane_one() {
        let cases = [
            (json!(3600), secs(3600)),
            (json!("3600"), secs(3600)),
            (json!(" 3600 "), secs(3600)),
            (json!(3599.5), Duration::from_millis(3_599_500)),
            (json!(1), secs(1)),
            (json!(0.001), SHORTEST_LIFETIME),
            (json!(0), DEFAULT_LIFETIME),
            (json!("0"), DEFAULT_LIFETIME),
            (json!(-1), DEFAULT_LIFETIME),
            (json!(i64::MIN), DEFAULT_LIFETIME),
            (json!(null), DEFAULT_LIFETIME),
            (json!(true), DEFAULT_LIFETIME),
            (json!([3600]), DEFAULT_LIFETIME),
            (json!({"seconds": 3600}), DEFAULT_LIFETIME),
            (json!("an hour"), DEFAULT_LIFETIME),
            (json!(""), DEFAULT_LIFETIME),
            (json!("NaN"), DEFAULT_LIFETIME),
            (json!("inf"), DEFAULT_LIFETIME),
            (json!(i64::from(i32::MAX) + 1), LONGEST_LIFETIME),
            (json!(u64::MAX), LONGEST_LIFETIME),
            (
                serde_json::from_str("18446744073709551616").unwrap(),
                LONGEST_LIFETIME,
            ),
            (json!(1e300), LONGEST_LIFETIME),
            (json!("1e300"), LONGEST_LIFETIME),
        ];
        for (stated, want) in cases {
            assert_eq!(lifetime(Some(&stated)), want, "{stated}");
        }
        assert_eq!(lifetime(None), DEFAULT_LIFETIME);
    }

    #[test]
    fn the_window_is_a_tenth_between_its_bounds_and_never_more_than_half() {
        let cases = [
            (secs(1), Duration::from_millis(500)),
            (secs(5), Duration::from_millis(2500)),
            (secs(60), secs(30)),
            (secs(900), secs(90)),
            (secs(3600), secs(300)),
            (LONGEST_LIFETIME, secs(300)),
            (Duration::ZERO, Duration::ZERO),
        ];
        for (life, want) in cases {
            assert_eq!(window(life), want, "{life:?}");
        }
    }

    #[test]
    fn tokens_of_one_birth_are_renewed_across_half_the_window() {
        let life = secs(3600);
        assert_eq!(lead(life, 0.0), secs(150));
        assert!(lead(life, 0.999_999) > secs(299));
        assert!(lead(life, 5.0) <= window(life));
    }
}
