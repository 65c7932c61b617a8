//! Where things stand in a segment file.
//!
//! ```text
//! page 0, 1   header, twice
//! page 2      synced word
//! page 3 …    state table: one word a KiB of segment
//! then        frames: chunks up to `chunk_end`, notes up to the end
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// The unit that a disk is assumed to write whole or not at all never exceeds this.
pub const PAGE: u64 = 4096;
/// A payload is checked in pieces of this size.
pub const BLOCK: usize = 64 * 1024;
/// The on-disk format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Kept free of chunks, so that notes can be written when nothing else can.
pub const NOTE_RESERVE: u64 = 256 * 1024;
/// Frames begin at multiples of this.
pub const ALIGN: u64 = 16;
/// Above this a payload gets a file of its own.
const INLINE_MAX: u64 = 1 << 20;

pub const HEADER_COPIES: [u64; 2] = [0, PAGE];
pub const SYNCED_AT: u64 = 2 * PAGE;
const TABLE_AT: u64 = 3 * PAGE;

pub fn align(offset: u64, to: u64) -> u64 {
    offset.div_ceil(to) * to
}

/// Identifies a segment; grows by one with each new segment and is never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct SegmentId(pub u32);

impl SegmentId {
    pub fn file_name(self) -> String {
        format!("{self}.seg")
    }

    pub fn from_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".seg")?;
        (digits.len() >= 8)
            .then(|| digits.parse().ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// A point in the journal: everything before it in its segment, and all older segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    pub segment: SegmentId,
    pub offset: u32,
}

impl Position {
    pub fn to_u64(self) -> u64 {
        u64::from(self.segment.0) << 32 | u64::from(self.offset)
    }

    pub fn from_u64(number: u64) -> Self {
        Self {
            segment: SegmentId((number >> 32) as u32),
            offset: number as u32,
        }
    }
}

/// The geometry of segments of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub segment_bytes: u64,
}

impl Layout {
    pub const SMALLEST: u64 = 1 << 20;
    pub const LARGEST: u64 = 64 << 20;

    /// State words, and so chunks, that a segment can hold.
    pub fn words(self) -> u32 {
        (self.segment_bytes / 1024) as u32
    }

    pub fn word_at(self, ordinal: u32) -> u64 {
        TABLE_AT + 8 * u64::from(ordinal)
    }

    pub fn data_start(self) -> u64 {
        TABLE_AT + align(8 * u64::from(self.words()), PAGE)
    }

    /// Chunk frames end at or before this.
    pub fn chunk_end(self) -> u64 {
        self.segment_bytes - NOTE_RESERVE
    }

    /// What chunk frames may fill.
    pub fn chunk_room(self) -> u64 {
        self.chunk_end() - self.data_start()
    }

    /// The largest payload that is written among the frames.
    pub fn inline_max(self) -> u64 {
        INLINE_MAX.min(self.chunk_room() / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_never_reaches_into_the_frames() {
        for mib in [1, 2, 3, 64] {
            let layout = Layout {
                segment_bytes: mib << 20,
            };
            assert!(layout.word_at(layout.words()) <= layout.data_start());
            assert_eq!(layout.data_start() % PAGE, 0);
            assert!(layout.inline_max() > 64 * 1024);
        }
    }

    #[test]
    fn only_segment_names_are_read_as_segments() {
        assert_eq!(
            SegmentId::from_file_name("00000017.seg"),
            Some(SegmentId(17))
        );
        for name in ["17.seg", "00000017.seg.new", "x.seg", "00000017.solo"] {
            assert_eq!(SegmentId::from_file_name(name), None, "{name}");
        }
    }
}
