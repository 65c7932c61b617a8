//! The state word: 64 bits that say what became of one chunk. The word alone is the state, and settling is one write of it.
//!
//! From the lowest bit: start ÷ 16 (22) · state (3) · sending (1) · crashes (3) · counted failures (6) · version (13) · check (16).

use super::layout::ALIGN;
use crate::model::ChunkState;

const START_BITS: u32 = 22;
const CRASHES_MAX: u8 = 7;
pub const FAILURES_MAX: u8 = 63;
const VERSION_MAX: u16 = (1 << 13) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Where the chunk's frame begins in its segment; a multiple of [`ALIGN`].
    pub start: u32,
    pub state: ChunkState,
    /// A request with this chunk may be on the wire.
    pub sending: bool,
    /// Times the process ended while `sending` was set; stops at its maximum.
    pub crashes: u8,
    /// Counted failures; stops at its maximum.
    pub failures: u8,
    /// Grows by one with each change of `state`; stops at its maximum.
    pub version: u16,
}

/// What a slot of the state table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// No chunk was ever written here.
    Unused,
    Word(Word),
    /// The check does not fit: the chunk counts as live.
    Unreadable,
}

impl Word {
    pub fn new(start: u32) -> Self {
        Self {
            start,
            state: ChunkState::Live,
            sending: false,
            crashes: 0,
            failures: 0,
            version: 0,
        }
    }

    /// The word after a change of state; nothing is on the wire then.
    #[must_use]
    pub fn turned(self, state: ChunkState) -> Self {
        let version = (self.version + 1).min(VERSION_MAX);
        Self {
            state,
            sending: false,
            version,
            ..self
        }
    }

    #[must_use]
    pub fn failed(self) -> Self {
        Self {
            failures: (self.failures + 1).min(FAILURES_MAX),
            sending: false,
            ..self
        }
    }

    #[must_use]
    pub fn crashed(self) -> Self {
        Self {
            crashes: (self.crashes + 1).min(CRASHES_MAX),
            sending: false,
            ..self
        }
    }

    pub fn encode(self, nonce: u64, ordinal: u32) -> [u8; 8] {
        let value = u64::from(self.start / ALIGN as u32)
            | (self.state as u64) << START_BITS
            | u64::from(self.sending) << 25
            | u64::from(self.crashes) << 26
            | u64::from(self.failures) << 29
            | u64::from(self.version) << 35;
        (value | u64::from(check(value, nonce, ordinal)) << 48).to_le_bytes()
    }

    pub fn decode(bytes: [u8; 8], nonce: u64, ordinal: u32) -> Slot {
        let all = u64::from_le_bytes(bytes);
        if all == 0 {
            return Slot::Unused;
        }
        let value = all & ((1 << 48) - 1);
        let Some(state) = ChunkState::from_number((value >> START_BITS & 7) as u8) else {
            return Slot::Unreadable;
        };
        if check(value, nonce, ordinal) != (all >> 48) as u16 {
            return Slot::Unreadable;
        }
        Slot::Word(Self {
            start: (value & ((1 << START_BITS) - 1)) as u32 * ALIGN as u32,
            state,
            sending: value >> 25 & 1 == 1,
            crashes: (value >> 26 & 7) as u8,
            failures: (value >> 29 & 63) as u8,
            version: (value >> 35 & u64::from(VERSION_MAX)) as u16,
        })
    }
}

pub fn check(value: u64, nonce: u64, ordinal: u32) -> u16 {
    let mut hasher = crc32fast::Hasher::new_with_initial((nonce ^ nonce >> 32) as u32 ^ ordinal);
    hasher.update(&value.to_le_bytes()[..6]);
    let sum = hasher.finalize();
    (sum ^ sum >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Word {
        Word {
            start: 63 << 20,
            state: ChunkState::Dead,
            sending: true,
            crashes: 5,
            failures: 60,
            version: 8000,
        }
    }

    #[test]
    fn a_word_reads_back_as_written() {
        for word in [Word::new(0), Word::new(532_480), sample()] {
            assert_eq!(Word::decode(word.encode(7, 3), 7, 3), Slot::Word(word));
        }
        assert_eq!(Word::decode([0; 8], 7, 3), Slot::Unused);
    }

    #[test]
    fn a_flipped_bit_makes_a_word_unreadable() {
        let bytes = sample().encode(0x1234_5678_9abc_def0, 41);
        let mut survived = 0;
        for bit in 0..64 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            if matches!(
                Word::decode(flipped, 0x1234_5678_9abc_def0, 41),
                Slot::Word(_)
            ) {
                survived += 1;
            }
        }
        assert_eq!(survived, 0);
    }

    #[test]
    fn a_word_of_another_segment_or_slot_is_unreadable() {
        let bytes = Word::new(4096).encode(1, 1);
        assert_eq!(Word::decode(bytes, 1, 2), Slot::Unreadable);
        assert_eq!(Word::decode(bytes, 2, 1), Slot::Unreadable);
    }

    #[test]
    fn counters_stop_at_their_maximum() {
        let mut word = Word::new(16);
        for _ in 0..10_000 {
            word = word.turned(ChunkState::Live).failed().crashed();
        }
        assert_eq!((word.version, word.failures, word.crashes), (8191, 63, 7));
        assert_eq!(Word::decode(word.encode(0, 0), 0, 0), Slot::Word(word));
    }
}
