//! Reading a payload back: block by block, each checked before a byte of it is handed out.

use std::io::{self, Read};
use std::sync::Arc;

use super::frame::Kind;
use super::inner::{Inner, SegmentSlot};
use super::layout::BLOCK;
use super::segment::{FrameHead, read_patiently};
use crate::disk::{DiskFile, Payload};
use crate::sabotage::Sabotage;

/// A checked reader over one payload. A damaged block is an error of kind `InvalidData`, and so is every read after it.
pub struct PayloadReader {
    file: Arc<dyn DiskFile>,
    at: u64,
    bytes: u64,
    block_crcs: Vec<u32>,
    next_block: usize,
    block: Vec<u8>,
    /// How much of `block` was handed out.
    taken: usize,
    check: bool,
}

impl PayloadReader {
    pub fn new(
        file: Arc<dyn DiskFile>,
        at: u64,
        bytes: u64,
        block_crcs: Vec<u32>,
        check: bool,
    ) -> Self {
        Self {
            file,
            at,
            bytes,
            block_crcs,
            next_block: 0,
            block: Vec::new(),
            taken: 0,
            check,
        }
    }

    /// Over a payload in a file of its own, whose checksums follow it.
    pub fn solo(file: Arc<dyn DiskFile>, bytes: u64, check: bool) -> io::Result<Self> {
        let mut table = vec![0; 4 * super::frame::blocks(bytes)];
        if read_patiently(file.as_ref(), &mut table, bytes)? < table.len() {
            return Err(damaged("its checksums are cut off"));
        }
        let crcs = table
            .chunks_exact(4)
            .map(|crc| u32::from_le_bytes(crc.try_into().expect("4 bytes")))
            .collect();
        Ok(Self::new(file, 0, bytes, crcs, check))
    }

    /// How long the next block is; 0 after the last.
    fn next_length(&self) -> usize {
        let done = (self.next_block * BLOCK) as u64;
        self.bytes.saturating_sub(done).min(BLOCK as u64) as usize
    }

    fn load_block(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        block.resize(self.next_length(), 0);
        let loaded = self.read_blocks(&mut block);
        self.taken = block.len();
        self.block = block;
        loaded?;
        self.taken = 0;
        Ok(())
    }

    /// Reads as many whole blocks as fit, at least one, and says how many bytes they are. What does not match its checksum
    /// ends it, and is an error where nothing lies before it.
    fn read_blocks(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let done = (self.next_block * BLOCK) as u64;
        let left = usize::try_from(self.bytes - done).unwrap_or(usize::MAX);
        let most = match out.len() {
            length if length >= left => left,
            length => length - length % BLOCK,
        };
        let read = read_patiently(self.file.as_ref(), &mut out[..most], self.at + done)
            .map_err(|error| damaged(&error.to_string()))?;
        let mut whole = 0;
        for block in out[..most].chunks(BLOCK) {
            let end = whole + block.len();
            let expected = self.block_crcs.get(self.next_block).copied();
            let intact = read >= end && Some(crc32fast::hash(block)) == expected;
            if self.check && !intact {
                break;
            }
            self.next_block += 1;
            whole = end;
        }
        if whole == 0 {
            return Err(damaged(&format!(
                "block {} does not match its checksum",
                self.next_block
            )));
        }
        Ok(whole)
    }
}

impl Payload for PayloadReader {
    fn rewind(&mut self) -> io::Result<()> {
        self.next_block = 0;
        self.block.clear();
        self.taken = 0;
        Ok(())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("stored payload is damaged: {what}"),
    )
}

impl Read for PayloadReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() {
            match self.next_length() {
                0 => return Ok(0),
                // In place, without a copy.
                length if out.len() >= length => return self.read_blocks(out),
                _ => self.load_block()?,
            }
        }
        let count = out.len().min(self.block.len() - self.taken);
        out[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// A checked reader over a chunk's payload.
pub fn reader(inner: &Inner, slot: &SegmentSlot, frame: &FrameHead) -> io::Result<PayloadReader> {
    let check = !inner.sabotaged.is(Sabotage::SkipBlockChecksum);
    match frame.header.kind {
        Kind::Chunk {
            payload_bytes,
            solo: Some(solo),
            ..
        } => {
            let file = match inner.disk.open(&inner.solo_path(solo)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let gone = "stored payload is damaged: its file is gone";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, gone));
                }
                other => other?,
            };
            PayloadReader::solo(file, payload_bytes, check)
        }
        Kind::Chunk {
            payload_bytes,
            solo: None,
            ..
        } => {
            let (file, crcs) = (slot.segment.file()?, frame.block_crcs.clone());
            Ok(PayloadReader::new(
                file,
                frame.payload_at(),
                payload_bytes,
                crcs,
                check,
            ))
        }
        Kind::Note => unreachable!("a chunk's frame is no note"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, RealDisk};
    use crate::store::frame::block_checksums;

    #[test]
    fn of_many_blocks_read_at_once_those_before_a_damaged_one_are_given_and_nothing_behind() {
        const BLOCKS: usize = 4;
        for damaged in 0..BLOCKS {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes: Vec<u8> = (0..BLOCKS * BLOCK - 7).map(|n| n as u8).collect();
            let crcs = block_checksums(&bytes);
            let crcs = crcs
                .chunks_exact(4)
                .map(|crc| u32::from_le_bytes(crc.try_into().unwrap()));
            bytes[damaged * BLOCK + 9] ^= 4;
            let path = dir.path().join("payload");
            std::fs::write(&path, &bytes).unwrap();
            let file = RealDisk.open(&path).unwrap();
            let mut reader = PayloadReader::new(file, 0, bytes.len() as u64, crcs.collect(), true);
            let mut out = vec![0; bytes.len() + 100];
            let mut filled = 0;
            while filled < damaged * BLOCK {
                filled += reader.read(&mut out[filled..]).unwrap();
            }
            assert_eq!(out[..filled], bytes[..damaged * BLOCK]);
            for _ in 0..2 {
                let error = reader.read(&mut out[filled..]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let small = reader.read(&mut out[..100]).unwrap_err();
                assert_eq!(small.kind(), io::ErrorKind::InvalidData);
            }
        }
    }
}
