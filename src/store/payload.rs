//! Reading a payload back: block by block, each checked before a byte of it is handed out.

use std::io::{self, Read};
use std::sync::Arc;

use super::layout::BLOCK;
use super::segment::read_patiently;
use crate::disk::{DiskFile, Payload};

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

    fn load_block(&mut self) -> io::Result<()> {
        let done = (self.next_block * BLOCK) as u64;
        let length = (self.bytes - done).min(BLOCK as u64) as usize;
        self.block.resize(length, 0);
        self.taken = length;
        let read = read_patiently(self.file.as_ref(), &mut self.block, self.at + done)
            .map_err(|error| damaged(&error.to_string()))?;
        let expected = self.block_crcs.get(self.next_block).copied();
        let intact = read == length && Some(crc32fast::hash(&self.block)) == expected;
        if self.check && !intact {
            return Err(damaged(&format!(
                "block {} does not match its checksum",
                self.next_block
            )));
        }
        self.next_block += 1;
        self.taken = 0;
        Ok(())
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
            if (self.next_block * BLOCK) as u64 >= self.bytes {
                return Ok(0);
            }
            self.load_block()?;
        }
        let count = out.len().min(self.block.len() - self.taken);
        out[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
