//! One tenant of the emulated platform: its client and settings, what it stored and what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::recordings::Archive;
use super::session::{Change, Session};
use super::settings::Settings;

/// The places that a tenant talks to; each has its own `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Token,
    Deliver,
    /// Metadata of recordings.
    Fetch,
    /// The storage host behind the upload URLs.
    Store,
    /// The upload report.
    Report,
    /// A websocket's handshake: for fault rules only, it counts as a delivery.
    Socket,
}

/// Everything that is counted, once a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    pub(super) delivered: u64,
    /// Of payload, stored.
    pub(super) bytes: u64,
    pub(super) unauthorized: u64,
    pub(super) forbidden: u64,
    pub(super) throttled: u64,
    pub(super) duplicates_suppressed: u64,
    pub(super) order_inversions: u64,
    pub(super) late: u64,
    pub(super) undeclared_gaps: u64,
    pub(super) after_last: u64,
    pub(super) conflicts: u64,
    pub(super) token_requests: u64,
    pub(super) token_refusals: u64,
    pub(super) tokens_issued: u64,
    pub(super) expired_tokens: u64,
    /// Those whose life ended while a request that carried them was arriving.
    pub(super) expired_mid_body: u64,
    pub(super) inside_forbidden_window: u64,
    pub(super) faults: u64,
    pub(super) fetches: u64,
    pub(super) purview_refusals: u64,
    pub(super) urls_issued: u64,
    pub(super) urls_expired: u64,
    /// Uploads to the storage host that showed it a token.
    pub(super) bearer_at_store: u64,
    pub(super) reports: u64,
    pub(super) sockets: u64,
    pub(super) reauthed: u64,
}

impl Counters {
    pub(super) fn stored(&mut self, change: Change) {
        self.delivered += change.stored;
        self.bytes += change.bytes;
        self.duplicates_suppressed += change.duplicates;
        self.order_inversions += change.inversions;
        self.late += change.late;
        self.undeclared_gaps = self.undeclared_gaps.saturating_add(change.undeclared);
        self.after_last += change.after_last;
    }

    pub(super) fn fields(&self) -> [(&'static str, u64); 26] {
        [
            ("delivered", self.delivered),
            ("bytes", self.bytes),
            ("duplicates_suppressed", self.duplicates_suppressed),
            ("order_inversions", self.order_inversions),
            ("late", self.late),
            ("undeclared_gaps", self.undeclared_gaps),
            ("after_last", self.after_last),
            ("conflicts", self.conflicts),
            ("token_requests", self.token_requests),
            ("token_refusals", self.token_refusals),
            ("tokens_issued", self.tokens_issued),
            ("expired_tokens", self.expired_tokens),
            ("expired_mid_body", self.expired_mid_body),
            ("unauthorized", self.unauthorized),
            ("forbidden", self.forbidden),
            ("throttled", self.throttled),
            ("inside_forbidden_window", self.inside_forbidden_window),
            ("faults", self.faults),
            ("fetches", self.fetches),
            ("purview_refusals", self.purview_refusals),
            ("urls_issued", self.urls_issued),
            ("urls_expired", self.urls_expired),
            ("bearer_at_store", self.bearer_at_store),
            ("reports", self.reports),
            ("sockets", self.sockets),
            ("reauthed", self.reauthed),
        ]
    }
}

/// A span that the tenant was asked to stay away for. Times count from the emulator's start.
#[derive(Debug, Clone, Copy)]
struct Forbidden {
    told_at: Duration,
    until: Duration,
}

/// An answer needs this long to reach a sender's other connections; what arrives earlier was under way.
const TELLING: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) client_id: String,
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    /// By host and session id.
    pub(super) sessions: BTreeMap<(String, String), Session>,
    /// Keys of requests that are being worked on.
    pub(super) in_progress: BTreeSet<String>,
    /// Uploads by their keys: host, session, sequence.
    pub(super) uploads: BTreeMap<String, (String, String, u64)>,
    forbidden: [Option<Forbidden>; 6],
    pub(super) archive: Archive,
}

impl Tenant {
    pub(super) fn new(name: &str, secret: String, token_life: Duration) -> Self {
        Self {
            client_id: format!("client-{name}"),
            settings: Settings::new(name, secret, token_life),
            counters: Counters::default(),
            sessions: BTreeMap::new(),
            in_progress: BTreeSet::new(),
            uploads: BTreeMap::new(),
            forbidden: [None; 6],
            archive: Archive::default(),
        }
    }

    /// Notes an arrival: inside a span that the tenant was asked to stay away for, or not.
    pub(super) fn arrived(&mut self, place: Place, now: Duration) {
        let inside = self.forbidden[place as usize]
            .is_some_and(|span| now > span.told_at + TELLING && now < span.until);
        self.counters.inside_forbidden_window += u64::from(inside);
    }

    /// Notes that an answer with `Retry-After` went out. Told again while it holds, the span begins when it was told first:
    /// whoever comes back at once, again and again, gets no time to hear of it each time.
    pub(super) fn told_to_wait(&mut self, place: Place, now: Duration, seconds: u64) {
        let until = now.saturating_add(Duration::from_secs(seconds));
        let before = self.forbidden[place as usize].filter(|span| now < span.until);
        self.forbidden[place as usize] = Some(Forbidden {
            told_at: before.map_or(now, |span| span.told_at),
            until: before.map_or(until, |span| span.until.max(until)),
        });
    }

    /// Sequences declared missing, over all sessions.
    pub(super) fn gaps(&self) -> u64 {
        self.sessions
            .values()
            .map(Session::declared)
            .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_told_and_comes_back_too_early_is_inside_the_window() {
        let mut tenant = Tenant::new("acme", "canary".to_owned(), Duration::ZERO);
        let at = |millis: u64| Duration::from_millis(60_000 + millis);
        tenant.arrived(Place::Deliver, at(0));
        tenant.told_to_wait(Place::Deliver, at(0), 2);
        for (millis, place, inside) in [
            (50, Place::Deliver, 0),
            (500, Place::Token, 0),
            (500, Place::Deliver, 1),
            (1999, Place::Deliver, 2),
            (2000, Place::Deliver, 2),
        ] {
            tenant.arrived(place, at(millis));
            assert_eq!(
                tenant.counters.inside_forbidden_window, inside,
                "{place:?} at {millis} ms"
            );
        }
    }
    #[test]
    fn who_comes_back_at_once_again_and_again_is_inside_the_window() {
        let mut tenant = Tenant::new("acme", "canary".to_owned(), Duration::ZERO);
        for tenth in 0..10 {
            let now = Duration::from_millis(60_000 + tenth * 50);
            tenant.arrived(Place::Deliver, now);
            tenant.told_to_wait(Place::Deliver, now, 2);
        }
        assert_eq!(tenant.counters.inside_forbidden_window, 7);
    }

    #[test]
    fn a_shorter_wait_told_later_does_not_open_the_window() {
        let mut tenant = Tenant::new("acme", "canary".to_owned(), Duration::ZERO);
        let at = |seconds: u64| Duration::from_secs(60 + seconds);
        tenant.told_to_wait(Place::Deliver, at(0), 10);
        tenant.told_to_wait(Place::Deliver, at(1), 1);
        tenant.arrived(Place::Deliver, at(5));
        tenant.arrived(Place::Deliver, at(10));
        assert_eq!(tenant.counters.inside_forbidden_window, 1);
    }
}
