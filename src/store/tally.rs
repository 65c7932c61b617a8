//! Counting chunks by state. Totals are never stored as such: they are the ledger's part plus a count of words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{ChunkState, Count, TenantId};

/// Chunks of one tenant by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// All that were accepted here; moved ones are counted where they went.
    pub accepted: Count,
    pub live: Count,
    pub confirming: Count,
    pub delivered: Count,
    pub dead: Count,
    pub purged: Count,
}

impl Tally {
    fn of(&mut self, state: ChunkState) -> Option<&mut Count> {
        Some(match state {
            ChunkState::Live => &mut self.live,
            ChunkState::Confirming => &mut self.confirming,
            ChunkState::Delivered => &mut self.delivered,
            ChunkState::Dead => &mut self.dead,
            ChunkState::Purged => &mut self.purged,
            ChunkState::Moved => return None,
        })
    }

    pub fn accept(&mut self, state: ChunkState, bytes: u64) {
        if let Some(count) = self.of(state) {
            count.add(Count { chunks: 1, bytes });
            self.accepted.add(Count { chunks: 1, bytes });
        }
    }

    pub fn turn(&mut self, from: ChunkState, to: ChunkState, bytes: u64) {
        if let Some(count) = self.of(from) {
            count.chunks = count.chunks.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(bytes);
        }
        if let Some(count) = self.of(to) {
            count.add(Count { chunks: 1, bytes });
        }
    }

    /// A chunk is counted elsewhere from now on.
    pub fn leave(&mut self, state: ChunkState, bytes: u64) {
        self.turn(state, ChunkState::Moved, bytes);
        self.accepted.chunks = self.accepted.chunks.saturating_sub(1);
        self.accepted.bytes = self.accepted.bytes.saturating_sub(bytes);
    }

    pub fn add(&mut self, other: &Self) {
        self.accepted.add(other.accepted);
        self.live.add(other.live);
        self.confirming.add(other.confirming);
        self.delivered.add(other.delivered);
        self.dead.add(other.dead);
        self.purged.add(other.purged);
    }

    /// Chunks that keep their segment.
    pub fn owed(&self) -> u64 {
        self.live.chunks + self.confirming.chunks + self.dead.chunks
    }
}

/// Tallies by tenant.
pub type Tallies = BTreeMap<TenantId, Tally>;

pub fn add_all(into: &mut Tallies, from: &Tallies) {
    for (tenant, tally) in from {
        into.entry(tenant.clone()).or_default().add(tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_in_one_place_whatever_happens_to_it() {
        let mut tally = Tally::default();
        tally.accept(ChunkState::Live, 10);
        tally.accept(ChunkState::Live, 5);
        tally.turn(ChunkState::Live, ChunkState::Dead, 10);
        tally.turn(ChunkState::Live, ChunkState::Delivered, 5);
        assert_eq!(tally.owed(), 1);
        tally.turn(ChunkState::Dead, ChunkState::Purged, 10);
        assert_eq!(tally.owed(), 0);
        let sum = tally.delivered.chunks + tally.purged.chunks + tally.owed();
        assert_eq!(
            (tally.accepted.chunks, tally.accepted.bytes, sum),
            (2, 15, 2)
        );
    }
}
