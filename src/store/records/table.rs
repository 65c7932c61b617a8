//! What is known in memory: a fixed few bytes a recording (docs/FORMAT.md has the bound), never its content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::log::Place;
use super::types::{Recording, RecordingFilter};
use crate::model::{Digest, RecordingCounts, RecordingId, RecordingState, TenantId, Timestamp};

/// More recordings than this are not remembered.
pub const RECORDINGS_MAX: usize = 1_000_000;

/// Tenants of this table, by number.
pub type TenantNumber = u16;
/// The first 12 bytes of the BLAKE3 over tenant and id: short, and no two of a million ever share it.
pub type Key = [u8; 12];

#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub place: Place,
    /// Seconds since the epoch.
    time: u32,
    /// Seconds, too; while it is wanted.
    due: u32,
    tenant: TenantNumber,
    pub state: RecordingState,
}

#[derive(Debug, Default)]
pub struct Table {
    tenants: Vec<TenantId>,
    lines: BTreeMap<Key, Line>,
    /// What is to be fetched and in nobody's hands, by when.
    due: BTreeSet<(TenantNumber, u32, Key)>,
    /// Bytes of the log that are still in force.
    pub live_bytes: u64,
    counts: Vec<RecordingCounts>,
}

/// The place of a recording in the order that is shown: by tenant's name, time, key.
pub type Rank = (String, u32, Key);

pub fn key(tenant: &TenantId, id: &RecordingId) -> Key {
    let text = format!("{tenant}\0{id}");
    *Digest::of(text.as_bytes())
        .0
        .first_chunk()
        .expect("12 of 32 bytes")
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.0.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

impl Table {
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn get(&self, key: &Key) -> Option<Line> {
        self.lines.get(key).copied()
    }

    /// The recording behind this one in the order of keys, or the first.
    pub fn next(&self, after: Option<&Key>) -> Option<(Key, Place)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (key, line) = self
            .lines
            .range::<Key, _>((from, Bound::Unbounded))
            .next()?;
        Some((*key, line.place))
    }

    pub fn number(&mut self, tenant: &TenantId) -> TenantNumber {
        if let Some(number) = self.known(tenant) {
            return number;
        }
        self.tenants.push(tenant.clone());
        self.counts.push(RecordingCounts::default());
        TenantNumber::try_from(self.tenants.len() - 1).expect("no host has 65,536 tenants")
    }

    pub fn known(&self, tenant: &TenantId) -> Option<TenantNumber> {
        let at = self.tenants.iter().position(|known| known == tenant)?;
        TenantNumber::try_from(at).ok()
    }

    /// A recording now stands at `place`. One that is wanted is in nobody's hands again.
    pub fn put(&mut self, recording: &Recording, place: Place) {
        let key = key(&recording.tenant, &recording.id);
        let tenant = self.number(&recording.tenant);
        self.remove(&key);
        let due = match (recording.state, &recording.job) {
            (RecordingState::Wanted, Some(job)) => Some(seconds(job.due)),
            _ => None,
        };
        let line = Line {
            place,
            time: seconds(recording.at),
            due: due.unwrap_or_default(),
            tenant,
            state: recording.state,
        };
        self.lines.insert(key, line);
        self.live_bytes += place.bytes();
        *self.counts[usize::from(tenant)].of(line.state) += 1;
        if let Some(due) = due {
            self.due.insert((tenant, due, key));
        }
    }

    /// Forgets a recording; what was due of it too.
    pub fn remove(&mut self, key: &Key) {
        let Some(old) = self.lines.remove(key) else {
            return;
        };
        self.live_bytes -= old.place.bytes();
        *self.counts[usize::from(old.tenant)].of(old.state) -= 1;
        self.due.remove(&(old.tenant, old.due, *key));
    }

    /// Every recording stands elsewhere now; the places are in the order of keys.
    pub fn move_all(&mut self, places: &[Place]) {
        self.live_bytes = places.iter().map(|place| place.bytes()).sum();
        for (line, place) in self.lines.values_mut().zip(places) {
            line.place = *place;
        }
    }

    /// When the tenant's next recording is due.
    pub fn next_due(&self, tenant: &TenantId) -> Option<Timestamp> {
        let number = self.known(tenant)?;
        let (_, due, _) = self
            .due
            .range((number, 0, [0; 12])..)
            .next()
            .filter(|(of, ..)| *of == number)?;
        Some(Timestamp(i64::from(*due) * 1000))
    }

    /// Takes the recording that is due first, if it is due by `now`.
    pub fn take_due(&mut self, tenant: &TenantId, now: Timestamp) -> Option<(Key, Place)> {
        if self.next_due(tenant)? > now {
            return None;
        }
        let number = self.known(tenant)?;
        let first = *self.due.range((number, 0, [0; 12])..).next()?;
        self.due.remove(&first);
        let key = first.2;
        Some((key, self.lines.get(&key)?.place))
    }

    /// How many of the tenant's wanted recordings wait or are in hand.
    pub fn counts(&self, tenant: &TenantId) -> RecordingCounts {
        let number = self.known(tenant);
        number.map_or_else(RecordingCounts::default, |n| self.counts[usize::from(n)])
    }

    pub fn total(&self) -> RecordingCounts {
        let mut total = RecordingCounts::default();
        for counts in &self.counts {
            let mut counts = *counts;
            for state in RecordingState::ALL {
                *total.of(state) += *counts.of(state);
            }
        }
        total
    }

    /// The lowest `limit` recordings behind `after`, as far as the filter can be told from memory.
    pub fn page(&self, filter: &RecordingFilter, after: Option<&Rank>, limit: usize) -> Vec<Rank> {
        let tenant = match &filter.tenant {
            None => None,
            Some(tenant) => match self.known(tenant) {
                Some(number) => Some(number),
                None => return Vec::new(),
            },
        };
        let since = filter.since.map(seconds);
        // One more would be the largest: dropped at once, so that a page costs its own size.
        let mut lowest: BTreeSet<Rank> = BTreeSet::new();
        for (key, line) in &self.lines {
            let wanted = tenant.is_none_or(|of| of == line.tenant)
                && since.is_none_or(|since| line.time >= since)
                && filter.state.is_none_or(|state| state == line.state);
            if !wanted {
                continue;
            }
            let name = self.tenants[usize::from(line.tenant)].as_str();
            let rank = (name, line.time, *key);
            let behind = after.is_none_or(|(n, t, k)| rank > (n.as_str(), *t, *k));
            let below = lowest.len() < limit
                || lowest
                    .last()
                    .is_some_and(|(n, t, k)| rank < (n.as_str(), *t, *k));
            if !behind || !below {
                continue;
            }
            lowest.insert((name.to_owned(), line.time, *key));
            if lowest.len() > limit {
                lowest.pop_last();
            }
        }
        lowest.into_iter().collect()
    }
}
