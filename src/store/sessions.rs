//! What the store knows of each session in memory: bounded by the number of sessions, never by their chunks.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock};

use super::intervals::Intervals;
use crate::clock::Deadline;
use crate::model::{SessionKey, Timestamp};

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
    pub delay: Option<Delay>,
    pub changed_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    pub sequence: u64,
    pub until: Deadline,
}

#[derive(Debug, Default)]
pub struct Sessions {
    pub by_key: HashMap<SessionKey, SessionState>,
}

impl Sessions {
    pub fn entry(&mut self, key: &SessionKey) -> &mut SessionState {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.clone(), SessionState::default());
        }
        self.by_key.get_mut(key).expect("inserted above")
    }

    /// Drops sessions that owe nothing and did not change for the time of remembrance.
    pub fn forget_before(&mut self, horizon: Timestamp) -> Vec<SessionKey> {
        let old = |state: &SessionState| {
            state.owed == 0 && state.leased == 0 && state.changed_at < horizon
        };
        let forgotten = self.by_key.extract_if(|_, state| old(state));
        forgotten.map(|(key, _)| key).collect()
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
