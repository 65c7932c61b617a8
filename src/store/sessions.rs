//! What the store knows of each session in memory: bounded by the number of sessions, never by their chunks.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::intervals::Intervals;
use super::running::milliseconds;
use crate::clock::Deadline;
use crate::model::{SessionKey, TenantId, Timestamp};

#[derive(Debug, Clone, Default)]
pub struct SessionState {
    /// Every sequence that was ever accepted and is remembered.
    pub accepted: Intervals,
    /// Live chunks.
    pub owed: u64,
    /// The highest sequence that was delivered.
    pub delivered_high: Option<u64>,
    /// Leases of the session that are out: one, or those of a group.
    pub leased: u32,
    /// The head failed and waits.
    pub delay: Option<Box<Delay>>,
    pub changed_at: Timestamp,
    /// The last change that the keeper saw; `None`: none yet.
    pub seen: Option<Seen>,
    /// The capture side said that nothing more is to come.
    pub ended_at: Option<Timestamp>,
    /// An operator wants it first in its lane, until it owes nothing.
    pub promoted: bool,
}

/// A change, and the store's running time when it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub changed_at: Timestamp,
    pub running_ms: u64,
}

impl SessionState {
    /// A chunk is settled.
    pub fn owe_one_less(&mut self) {
        self.owed = self.owed.saturating_sub(1);
        self.promoted &= self.owed > 0;
    }

    /// The first end stays; nothing takes it back.
    pub fn end(&mut self, at: Timestamp) {
        self.ended_at.get_or_insert(at);
    }

    /// The running time since which nothing changed.
    pub fn quiet_from(&self, running_ms: u64) -> u64 {
        match self.seen {
            Some(seen) if seen.changed_at == self.changed_at => seen.running_ms,
            _ => running_ms,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    pub sequence: u64,
    pub until: Deadline,
}

#[derive(Debug, Default)]
pub struct Sessions {
    pub by_key: HashMap<SessionKey, SessionState>,
    /// When a chunk of each tenant was delivered last, as far as the index remembers what was before this opening.
    pub last_delivery: HashMap<TenantId, Timestamp>,
}

impl Sessions {
    pub fn entry(&mut self, key: &SessionKey) -> &mut SessionState {
        self.by_key.entry(key.clone()).or_default()
    }

    /// The key of a session that is there, found by its names without making one.
    pub fn key(&self, tenant: &str, session: &str) -> Option<&SessionKey> {
        let names: &dyn Named = &(tenant, session);
        self.by_key.get_key_value(names).map(|(key, _)| key)
    }

    /// Drops sessions that owe nothing and did not change for the time of remembrance, and those that never began.
    pub fn forget(&mut self, running_ms: u64, remember: Duration) -> Vec<SessionKey> {
        let remember_ms = milliseconds(remember);
        let old = |state: &mut SessionState| {
            let quiet_from = state.quiet_from(running_ms);
            state.seen = Some(Seen {
                changed_at: state.changed_at,
                running_ms: quiet_from,
            });
            let aged = running_ms.saturating_sub(quiet_from) > remember_ms;
            state.owed == 0 && state.leased == 0 && (aged || state.accepted.is_empty())
        };
        let forgotten = self.by_key.extract_if(|_, state| old(state));
        forgotten.map(|(key, _)| key).collect()
    }
}

/// What a session is looked up by.
trait Named {
    fn names(&self) -> (&str, &str);
}

impl Named for SessionKey {
    fn names(&self) -> (&str, &str) {
        (self.tenant.as_str(), self.session.as_str())
    }
}

impl Named for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

/// As [`SessionKey`] does it: a map asks for the same hash of both.
impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Named + '_ {}

impl<'a> Borrow<dyn Named + 'a> for SessionKey {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

/// Sessions that got work, until somebody takes them.
#[derive(Default)]
pub struct Arrivals {
    keys: Mutex<HashSet<SessionKey>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Arrivals {
    pub fn add(&self, sessions: impl IntoIterator<Item = SessionKey>) {
        self.keys.lock().expect("no holder panics").extend(sessions);
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    pub fn take(&self) -> Vec<SessionKey> {
        let taken = std::mem::take(&mut *self.keys.lock().expect("no holder panics"));
        let mut keys: Vec<_> = taken.into_iter().collect();
        // A set has no order; a repeatable one makes a run repeatable.
        keys.sort_unstable();
        keys
    }

    /// Sets what is called, from the store's threads, when sessions arrive. The first one stays.
    pub fn on_arrival(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_names() {
        let mut sessions = Sessions::default();
        for n in 0..100 {
            sessions.entry(&SessionKey {
                tenant: format!("t{}", n % 7).parse().unwrap(),
                session: format!("s{n}").parse().unwrap(),
            });
        }
        for n in 0..100 {
            let (tenant, session) = (format!("t{}", n % 7), format!("s{n}"));
            let key = sessions.key(&tenant, &session).unwrap();
            assert_eq!(key.session.as_str(), session);
            assert_eq!(sessions.key(&session, &tenant), None);
        }
        assert_eq!(sessions.by_key.len(), 100);
    }
}
