//! A segment's header: what it is, and where its predecessor ends. Written twice, never changed.

use std::io;

use super::layout::{FORMAT, Layout, SegmentId};

const MAGIC: [u8; 8] = *b"REELAYSG";
pub const HEADER_BYTES: usize = 64;

/// Where the predecessor's accepted frames end; what follows there was never promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predecessor {
    pub id: SegmentId,
    /// Accepted chunk frames.
    pub chunks: u32,
    /// The end of its accepted frames.
    pub end: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub id: SegmentId,
    pub segment_bytes: u64,
    pub nonce: u64,
    pub predecessor: Option<Predecessor>,
}

/// Why a segment's header is not to be had.
#[derive(Debug)]
pub enum HeaderFault {
    Io(io::Error),
    NewerFormat(u32),
    Damaged,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        if let Some(predecessor) = self.predecessor {
            bytes[32] = 1;
            bytes[36..40].copy_from_slice(&predecessor.id.0.to_le_bytes());
            bytes[40..44].copy_from_slice(&predecessor.chunks.to_le_bytes());
            bytes[44..48].copy_from_slice(&predecessor.end.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderFault> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[0..8] != MAGIC || u32_at(60) != crc32fast::hash(&bytes[..60]) {
            return Err(HeaderFault::Damaged);
        }
        if u32_at(8) > FORMAT {
            return Err(HeaderFault::NewerFormat(u32_at(8)));
        }
        let predecessor = (bytes[32] == 1).then(|| Predecessor {
            id: SegmentId(u32_at(36)),
            chunks: u32_at(40),
            end: u32_at(44),
        });
        let header = Self {
            id: SegmentId(u32_at(12)),
            segment_bytes: u64_at(16),
            nonce: u64_at(24),
            predecessor,
        };
        let sane = (Layout::SMALLEST..=Layout::LARGEST).contains(&header.segment_bytes);
        if sane {
            Ok(header)
        } else {
            Err(HeaderFault::Damaged)
        }
    }
}
