//! Header tables, each row as a server sends it.

use super::*;
use reqwest::header::{HeaderName, HeaderValue};

const DATE_LINE: (&str, &str) = ("Date", "Sun, 01 Mar 2026 09:00:00 GMT");
/// The Unix time of [`DATE_LINE`].
const NOW: u64 = 1_772_355_600;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn retry_after_is_seconds_or_a_date_and_nonsense_is_ignored() {
    for (value, expected) in [
        ("0", secs(0)),
        ("58", secs(58)),
        (" 7 ", secs(7)),
        ("1.2", secs(2)),
        ("3600", secs(3600)),
        ("86401", Some(LONGEST)),
        ("99999999999999999999999999", Some(LONGEST)),
        ("Sun, 01 Mar 2026 09:02:00 GMT", secs(120)),
        ("Sunday, 01-Mar-26 09:02:00 GMT", secs(120)),
        ("Sun Mar  1 09:02:00 2026", secs(120)),
        ("Sun, 01 Mar 2026 08:00:00 GMT", secs(0)),
        ("Sun, 01 Mar 2099 09:00:00 GMT", Some(LONGEST)),
        ("-5", None),
        ("+5", None),
        ("", None),
        ("soon", None),
        ("5 minutes", None),
        ("1e9", None),
        (".", None),
        ("2026-03-01T09:02:00Z", None),
    ] {
        let headers = map(&[DATE_LINE, ("Retry-After", value)]);
        assert_eq!(retry_after(&headers), expected, "{value:?}");
    }
}

#[test]
fn a_date_counts_from_the_response_and_not_from_this_host() {
    let later = ("Retry-After", "Sun, 01 Mar 2026 09:02:00 GMT");
    let skewed = map(&[("Date", "Sun, 01 Mar 2026 09:01:30 GMT"), later]);
    assert_eq!(retry_after(&skewed), secs(30));
    assert_eq!(retry_after(&map(&[later])), None);
    assert_eq!(retry_after(&map(&[("Date", "today"), later])), None);
}

#[test]
fn of_several_waits_the_longest_holds() {
    let headers = map(&[
        ("Retry-After", "5"),
        ("Retry-After", "x"),
        ("Retry-After", "9"),
    ]);
    assert_eq!(retry_after(&headers), secs(9));
}

#[test]
fn every_dialect_tells_the_budget() {
    let told = |allowed, remaining, reset: Option<u64>| Limits {
        allowed,
        remaining,
        reset_in: reset.map(Duration::from_secs),
    };
    let epoch = (NOW + 61).to_string();
    let epoch_ms = ((NOW + 61) * 1000).to_string();
    let rows: &[(&[(&str, &str)], Limits)] = &[
        (&[], Limits::default()),
        // As seen on a 200 of the platform.
        (
            &[
                ("inin-ratelimit-count", "1"),
                ("inin-ratelimit-allowed", "180"),
                ("inin-ratelimit-reset", "61"),
            ],
            told(Some(180), Some(179), Some(61)),
        ),
        (
            &[
                ("ININ-RateLimit-Count", "301"),
                ("ININ-RateLimit-Allowed", "300"),
            ],
            told(Some(300), Some(0), None),
        ),
        (
            &[
                ("X-RateLimit-Limit", "300"),
                ("X-RateLimit-Remaining", "0"),
                ("X-RateLimit-Reset", "42"),
            ],
            told(Some(300), Some(0), Some(42)),
        ),
        (
            &[DATE_LINE, ("X-RateLimit-Reset", &epoch)],
            told(None, None, Some(61)),
        ),
        (
            &[DATE_LINE, ("X-RateLimit-Reset", &epoch_ms)],
            told(None, None, Some(61)),
        ),
        (&[("X-RateLimit-Reset", &epoch)], Limits::default()),
        (
            &[DATE_LINE, ("X-RateLimit-Reset", "1600000000")],
            told(None, None, Some(0)),
        ),
        (
            &[
                (
                    "RateLimit-Policy",
                    r#""burst";q=10;w=1, "day, all";q=1000;w=86400"#,
                ),
                ("RateLimit", r#""burst";r=7;t=1, "day, all";r=3;t=4000"#),
            ],
            told(Some(1000), Some(3), Some(4000)),
        ),
        (
            &[
                (
                    "RateLimit-Policy",
                    r#""bytes";q=65535;qu="content-bytes";w=10"#,
                ),
                ("RateLimit", r#""bytes";r=1;t=9"#),
            ],
            Limits::default(),
        ),
        (
            &[("RateLimit", r#"default;r=50"#)],
            told(None, Some(50), None),
        ),
        (
            &[("RateLimit", "limit=100, remaining=50, reset=30")],
            told(Some(100), Some(50), Some(30)),
        ),
        (
            &[("RateLimit", r#""a";r=x;t=9, "b";r=-1, ;;,=,"never closed"#)],
            Limits::default(),
        ),
        (
            &[
                ("X-RateLimit-Remaining", "9.5"),
                ("inin-ratelimit-count", "many"),
                ("inin-ratelimit-allowed", ""),
            ],
            Limits::default(),
        ),
        // A gateway in front of the platform: the tighter of the two binds.
        (
            &[
                ("inin-ratelimit-count", "1"),
                ("inin-ratelimit-allowed", "180"),
                ("X-RateLimit-Remaining", "2"),
            ],
            told(None, Some(2), None),
        ),
        (
            &[("X-RateLimit-Reset", "999999999")],
            told(None, None, Some(24 * 60 * 60)),
        ),
    ];
    for (lines, expected) in rows {
        assert_eq!(limits(&map(lines)), *expected, "{lines:?}");
    }
}
