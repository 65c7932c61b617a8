//! Frames: the units that a segment is filled with. Pure encoding; no file is touched here.
//!
//! ```text
//! header 64 | record | CRC-32 a block (inline payloads) | payload (inline) | zeros up to 16
//! ```
//!
//! Both checks start from a seed made of the segment's nonce and the frame's offset, so bytes that were copied from
//! elsewhere, or left by an earlier life of the disk, are never taken for a frame.

use super::layout::{ALIGN, BLOCK, Position, align};
use super::record::RECORD_MAX;
use super::segment::{FrameHead, Unreadable};
use crate::model::Timestamp;

pub const HEADER: usize = 64;
const MAGIC: u32 = 0x5246_5231;
const ENDS_COMMIT: u8 = 1;
const SOLO: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Chunk {
        /// Its slot in the state table.
        ordinal: u32,
        payload_bytes: u64,
        /// The payload's own file, if it has one.
        solo: Option<u64>,
    },
    Note,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub record_bytes: u32,
    /// The order of acceptance over the whole store; notes have one too.
    pub number: u64,
    /// The journal position that was known durable before this frame's commit.
    pub synced: Position,
    pub accepted_at: Timestamp,
    /// The next frame, if any, begins at the next page.
    pub ends_commit: bool,
    pub body_crc: u32,
}

impl Header {
    /// Block checksums that stand in the frame.
    pub fn inline_blocks(&self) -> usize {
        match self.kind {
            Kind::Chunk {
                payload_bytes,
                solo: None,
                ..
            } => blocks(payload_bytes),
            _ => 0,
        }
    }

    /// Bytes between the header and the payload.
    pub fn body_bytes(&self) -> usize {
        self.record_bytes as usize + 4 * self.inline_blocks()
    }

    /// The whole frame, padded to [`ALIGN`].
    pub fn frame_bytes(&self) -> u64 {
        let payload = match self.kind {
            Kind::Chunk {
                payload_bytes,
                solo: None,
                ..
            } => payload_bytes,
            _ => 0,
        };
        align((HEADER + self.body_bytes()) as u64 + payload, ALIGN)
    }

    pub fn encode(&self, seed: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let (kind, ordinal, payload_bytes, solo) = match self.kind {
            Kind::Chunk {
                ordinal,
                payload_bytes,
                solo,
            } => (1, ordinal, payload_bytes, solo),
            Kind::Note => (2, u32::MAX, 0, None),
        };
        let mut flags = if self.ends_commit { ENDS_COMMIT } else { 0 };
        if solo.is_some() {
            flags |= SOLO;
        }
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = kind;
        bytes[5] = flags;
        bytes[8..12].copy_from_slice(&ordinal.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.record_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&payload_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.to_u64().to_le_bytes());
        bytes[40..48].copy_from_slice(&solo.unwrap_or(0).to_le_bytes());
        bytes[48..56].copy_from_slice(&self.accepted_at.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(seed, &[&bytes[..60]]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if this is no frame header of this place.
    pub fn decode(bytes: &[u8; HEADER], seed: u32) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if u32_at(0) != MAGIC || u32_at(60) != checksum(seed, &[&bytes[..60]]) {
            return None;
        }
        let kind = match bytes[4] {
            1 => Kind::Chunk {
                ordinal: u32_at(8),
                payload_bytes: u64_at(16),
                solo: (bytes[5] & SOLO != 0).then(|| u64_at(40)),
            },
            2 => Kind::Note,
            _ => return None,
        };
        let header = Self {
            kind,
            record_bytes: u32_at(12),
            number: u64_at(24),
            synced: Position::from_u64(u64_at(32)),
            accepted_at: Timestamp(u64_at(48) as i64),
            ends_commit: bytes[5] & ENDS_COMMIT != 0,
            body_crc: u32_at(56),
        };
        let inline_too_long = matches!(kind, Kind::Chunk { payload_bytes, solo: None, .. } if payload_bytes > 1 << 20);
        (u64::from(header.record_bytes) <= RECORD_MAX + 1 && !inline_too_long).then_some(header)
    }
}

/// What some bytes are as a frame.
pub enum Decoded {
    Head(FrameHead),
    /// More of it must be read: so many bytes from its start on.
    Needs(usize),
}

/// The frame that begins with `bytes`, which stand at `start` of the segment with this nonce.
pub fn decode(nonce: u64, start: u32, bytes: &[u8]) -> Result<Decoded, Unreadable> {
    let Some(head) = bytes.first_chunk::<HEADER>() else {
        return Ok(Decoded::Needs(HEADER));
    };
    let seed = seed(nonce, u64::from(start));
    let header = Header::decode(head, seed).ok_or(Unreadable)?;
    let wanted = HEADER + header.body_bytes();
    let Some(body) = bytes.get(HEADER..wanted) else {
        return Ok(Decoded::Needs(wanted));
    };
    if checksum(seed, &[body]) != header.body_crc {
        return Err(Unreadable);
    }
    let (record, crcs) = body.split_at(header.record_bytes as usize);
    let block_crcs = crcs
        .chunks_exact(4)
        .map(|crc| u32::from_le_bytes(crc.try_into().expect("4 bytes")))
        .collect();
    Ok(Decoded::Head(FrameHead {
        start,
        header,
        record: record.to_vec(),
        block_crcs,
    }))
}

/// The initial CRC value of a frame at `offset` of the segment with this nonce.
pub fn seed(nonce: u64, offset: u64) -> u32 {
    let mixed =
        (nonce ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 32) as u32
}

pub fn checksum(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Blocks of a payload.
pub fn blocks(payload_bytes: u64) -> usize {
    payload_bytes.div_ceil(BLOCK as u64) as usize
}

/// CRC-32 of each block, little-endian, one after another.
pub fn block_checksums(payload: &[u8]) -> Vec<u8> {
    payload
        .chunks(BLOCK)
        .flat_map(|block| crc32fast::hash(block).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::layout::SegmentId;
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Chunk {
                ordinal: 3,
                payload_bytes: 70_000,
                solo: None,
            },
            record_bytes: 111,
            number: 42,
            synced: Position {
                segment: SegmentId(7),
                offset: 8192,
            },
            accepted_at: Timestamp(-5),
            ends_commit: true,
            body_crc: 99,
        }
    }

    #[test]
    fn a_header_reads_back_at_its_place_and_nowhere_else() {
        let bytes = header().encode(seed(1, 4096));
        assert_eq!(Header::decode(&bytes, seed(1, 4096)), Some(header()));
        assert_eq!(Header::decode(&bytes, seed(1, 8192)), None);
        assert_eq!(Header::decode(&bytes, seed(2, 4096)), None);
        assert_eq!(Header::decode(&[0; HEADER], seed(1, 4096)), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let bytes = header().encode(5);
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn a_solo_payload_takes_no_room_in_its_frame() {
        let solo = Header {
            kind: Kind::Chunk {
                ordinal: 0,
                payload_bytes: 1 << 30,
                solo: Some(9),
            },
            ..header()
        };
        assert_eq!(solo.frame_bytes(), 176);
        assert_eq!(Header::decode(&solo.encode(5), 5), Some(solo));
        assert_eq!(header().frame_bytes(), align(64 + 111 + 8 + 70_000, 16));
    }
}
