//! A tenant's request quota: a fixed window that opens with its first request, told in one of the field's header dialects.

use std::time::Duration;

use serde_json::{Value, json};

/// How a response tells of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `inin-ratelimit-count`, `-allowed`, `-reset` (seconds).
    Inin,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` (seconds).
    X,
    /// The same with `-Reset` as a Unix time.
    XEpoch,
    /// `RateLimit` and `RateLimit-Policy`.
    Draft,
    /// Nothing but `Retry-After`.
    Silent,
}

impl Dialect {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "inin" | "inin-ratelimit" => Self::Inin,
            "x" | "x-ratelimit" => Self::X,
            "x-epoch" | "x-ratelimit-epoch" => Self::XEpoch,
            "ratelimit" => Self::Draft,
            "none" => Self::Silent,
            _ => return None,
        })
    }
}

/// A limit and what is used of it. Times count from the emulator's start.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    pub(super) requests: u64,
    pub(super) window: Duration,
    pub(super) dialect: Dialect,
    opened_at: Duration,
    used: u64,
}

impl Quota {
    pub(super) fn new(requests: u64, window: Duration, dialect: Dialect) -> Self {
        Self {
            requests,
            window,
            dialect,
            opened_at: Duration::ZERO,
            used: 0,
        }
    }

    /// Counts a request; whether it was within the quota. One outside it is not counted.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if self.used == 0 || now >= self.opened_at + self.window {
            self.opened_at = now;
            self.used = 0;
        }
        if self.used >= self.requests {
            return false;
        }
        self.used += 1;
        true
    }

    /// Whole seconds until the window ends, rounded up, at least 1.
    pub(super) fn reset_seconds(&self, now: Duration) -> u64 {
        let left = (self.opened_at + self.window).saturating_sub(now);
        u64::try_from(left.as_millis().div_ceil(1000))
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The same for a message within a socket.
    pub(super) fn limits(&self, now: Duration) -> Option<Value> {
        let told = self.dialect != Dialect::Silent;
        told.then(|| {
            json!({
                "allowed": self.requests,
                "remaining": self.requests.saturating_sub(self.used),
                "reset": self.reset_seconds(now),
            })
        })
    }

    /// The headers of a response at `now`, which is `wall_seconds` after the Unix epoch.
    pub(super) fn headers(&self, now: Duration, wall_seconds: u64) -> Vec<(String, String)> {
        let remaining = self.requests.saturating_sub(self.used);
        let reset = self.reset_seconds(now);
        let list: Vec<(&str, String)> = match self.dialect {
            Dialect::Inin => vec![
                ("inin-ratelimit-count", self.used.to_string()),
                ("inin-ratelimit-allowed", self.requests.to_string()),
                ("inin-ratelimit-reset", reset.to_string()),
            ],
            Dialect::X | Dialect::XEpoch => {
                let at = if self.dialect == Dialect::XEpoch {
                    wall_seconds.saturating_add(reset)
                } else {
                    reset
                };
                vec![
                    ("X-RateLimit-Limit", self.requests.to_string()),
                    ("X-RateLimit-Remaining", remaining.to_string()),
                    ("X-RateLimit-Reset", at.to_string()),
                ]
            }
            Dialect::Draft => vec![
                ("RateLimit", format!("\"default\";r={remaining};t={reset}")),
                (
                    "RateLimit-Policy",
                    format!(
                        "\"default\";q={};w={}",
                        self.requests,
                        self.window.as_secs().max(1)
                    ),
                ),
            ],
            Dialect::Silent => Vec::new(),
        };
        list.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_spent_quota_refuses_until_its_window_ends() {
        let mut quota = Quota::new(2, 10 * SECOND, Dialect::Inin);
        assert!(quota.take(5 * SECOND) && quota.take(6 * SECOND));
        assert!(!quota.take(14 * SECOND));
        assert_eq!(quota.reset_seconds(Duration::from_millis(14_001)), 1);
        assert!(quota.take(15 * SECOND));
    }

    #[test]
    fn a_quota_of_nothing_refuses_everything() {
        let mut quota = Quota::new(0, SECOND, Dialect::Silent);
        assert!(!quota.take(SECOND));
        assert!(!quota.take(100 * SECOND));
        assert!(quota.headers(SECOND, 0).is_empty());
    }

    #[test]
    fn each_dialect_tells_the_same_in_its_own_words() {
        let told = |dialect| {
            let mut quota = Quota::new(3, 10 * SECOND, dialect);
            quota.take(SECOND);
            quota
                .headers(2 * SECOND, 1000)
                .into_iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(
            told(Dialect::Inin),
            "inin-ratelimit-count: 1, inin-ratelimit-allowed: 3, inin-ratelimit-reset: 9"
        );
        assert_eq!(
            told(Dialect::X),
            "X-RateLimit-Limit: 3, X-RateLimit-Remaining: 2, X-RateLimit-Reset: 9"
        );
        assert!(told(Dialect::XEpoch).ends_with("X-RateLimit-Reset: 1009"));
        assert_eq!(
            told(Dialect::Draft),
            "RateLimit: \"default\";r=2;t=9, RateLimit-Policy: \"default\";q=3;w=10"
        );
    }
}
