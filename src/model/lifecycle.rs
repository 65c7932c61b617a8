//! What an accepted chunk can be.

use serde::{Deserialize, Serialize};

/// The persisted state of a chunk; its number is the one in the state word and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ChunkState {
    /// Owed: ready, delayed, held or leased. Ends by ack, bury, purge or move.
    Live = 1,
    /// Stored by the platform, not yet ingested. Ends by ack, or becomes live again.
    Confirming = 2,
    /// Acknowledged by a receipt. Final.
    Delivered = 3,
    /// Set aside for a person, with its history. Ends by redrive or purge.
    Dead = 4,
    /// Removed by a person. Final.
    Purged = 5,
    /// Rewritten into a younger segment, which now owns it. Final here.
    Moved = 6,
}

impl ChunkState {
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Live,
            2 => Self::Confirming,
            3 => Self::Delivered,
            4 => Self::Dead,
            5 => Self::Purged,
            6 => Self::Moved,
            _ => return None,
        })
    }

    /// Whether the segment that holds the chunk must stay.
    pub fn is_owed(self) -> bool {
        matches!(self, Self::Live | Self::Confirming | Self::Dead)
    }
}
