//! A tenant's request quota, by client or by token: a fixed window that opens with its first request, or one that slides.
//! Told in one of the field's header dialects.

use std::collections::{HashMap, VecDeque};
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

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Per {
    #[default]
    Client,
    Token,
}

/// How requests are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Window {
    /// All at once.
    #[default]
    Fixed,
    /// Each by itself; told is when the oldest goes.
    Sliding,
}

/// A limit and what is used of it. Times count from the emulator's start.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    pub(super) requests: u64,
    pub(super) window: Duration,
    pub(super) dialect: Dialect,
    pub(super) per: Per,
    pub(super) counts: Window,
    /// When each request was counted, oldest first; by token, or under the empty name.
    used: HashMap<String, VecDeque<Duration>>,
}

impl Quota {
    pub(super) fn new(requests: u64, window: Duration, dialect: Dialect) -> Self {
        Self {
            requests,
            window,
            dialect,
            per: Per::default(),
            counts: Window::default(),
            used: HashMap::new(),
        }
    }

    fn name<'a>(&self, token: Option<&'a str>) -> &'a str {
        match self.per {
            Per::Client => "",
            Per::Token => token.unwrap_or_default(),
        }
    }

    fn used(&self, token: Option<&str>) -> u64 {
        let used = self.used.get(self.name(token));
        used.map_or(0, |used| used.len() as u64)
    }

    /// Counts a request; whether it was within the quota. One outside it is not counted.
    pub(super) fn take(&mut self, token: Option<&str>, now: Duration) -> bool {
        let (window, counts) = (self.window, self.counts);
        self.used.retain(|_, used| {
            let over = |at: &Duration| now >= *at + window;
            match counts {
                Window::Fixed if used.front().is_some_and(over) => used.clear(),
                Window::Fixed => {}
                Window::Sliding => used.retain(|at| !over(at)),
            }
            !used.is_empty()
        });
        if self.used(token) >= self.requests {
            return false;
        }
        let name = self.name(token).to_owned();
        self.used.entry(name).or_default().push_back(now);
        true
    }

    /// Whole seconds until the window ends, or its oldest request leaves it; rounded up, at least 1.
    pub(super) fn reset_seconds(&self, token: Option<&str>, now: Duration) -> u64 {
        let oldest = self
            .used
            .get(self.name(token))
            .and_then(|used| used.front());
        let left = oldest.map_or(self.window, |at| (*at + self.window).saturating_sub(now));
        u64::try_from(left.as_millis().div_ceil(1000))
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The same for a message within a socket.
    pub(super) fn limits(&self, token: Option<&str>, now: Duration) -> Option<Value> {
        let told = self.dialect != Dialect::Silent;
        told.then(|| {
            json!({
                "allowed": self.requests,
                "remaining": self.requests.saturating_sub(self.used(token)),
                "reset": self.reset_seconds(token, now),
            })
        })
    }

    /// The headers of a response at `now`, which is `wall_seconds` after the Unix epoch.
    pub(super) fn headers(
        &self,
        token: Option<&str>,
        now: Duration,
        wall_seconds: u64,
    ) -> Vec<(String, String)> {
        let used = self.used(token);
        let remaining = self.requests.saturating_sub(used);
        let reset = self.reset_seconds(token, now);
        let list: Vec<(&str, String)> = match self.dialect {
            Dialect::Inin => vec![
                ("inin-ratelimit-count", used.to_string()),
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
        assert!(quota.take(None, 5 * SECOND) && quota.take(None, 6 * SECOND));
        assert!(!quota.take(None, 14 * SECOND));
        assert_eq!(quota.reset_seconds(None, Duration::from_millis(14_001)), 1);
        assert!(quota.take(None, 15 * SECOND));
    }

    #[test]
    fn a_window_that_slides_gives_back_one_request_after_the_other() {
        let mut quota = Quota::new(2, 10 * SECOND, Dialect::Inin);
        quota.counts = Window::Sliding;
        assert!(quota.take(None, 5 * SECOND) && quota.take(None, 8 * SECOND));
        assert!(!quota.take(None, 14 * SECOND));
        assert_eq!(quota.reset_seconds(None, 14 * SECOND), 1);
        assert!(quota.take(None, 15 * SECOND));
        assert!(!quota.take(None, 16 * SECOND));
        assert_eq!(quota.reset_seconds(None, 16 * SECOND), 2);
    }

    #[test]
    fn by_token_each_token_has_the_whole_quota_and_old_ones_are_forgotten() {
        let mut quota = Quota::new(1, 10 * SECOND, Dialect::Inin);
        quota.per = Per::Token;
        assert!(quota.take(Some("one"), SECOND) && quota.take(Some("two"), SECOND));
        assert!(!quota.take(Some("one"), 2 * SECOND));
        assert!(quota.take(Some("three"), 60 * SECOND));
        assert_eq!(quota.used.len(), 1);
    }

    #[test]
    fn a_quota_of_nothing_refuses_everything() {
        let mut quota = Quota::new(0, SECOND, Dialect::Silent);
        assert!(!quota.take(None, SECOND));
        assert!(!quota.take(None, 100 * SECOND));
        assert!(quota.headers(None, SECOND, 0).is_empty());
    }

    #[test]
    fn each_dialect_tells_the_same_in_its_own_words() {
        let told = |dialect| {
            let mut quota = Quota::new(3, 10 * SECOND, dialect);
            quota.take(None, SECOND);
            quota
                .headers(None, 2 * SECOND, 1000)
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
