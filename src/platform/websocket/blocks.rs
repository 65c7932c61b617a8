//! A delivery's payload, frame by frame. Knows nothing of tasks: its reader blocks, on a thread that may.
//! At most one frame of a delivery is in memory here.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::wire::{FRAME_HEAD, FRAME_MAX};
use crate::platform::Part;
use crate::platform::body::PayloadFault;

/// The parts' payloads one after another.
pub struct Blocks {
    parts: VecDeque<Reading>,
}

struct Reading {
    sequence: u64,
    bytes: u64,
    left: u64,
    reader: Box<dyn Read + Send>,
}

impl Blocks {
    pub fn of(parts: Vec<Part>) -> Self {
        let parts = parts.into_iter().map(|part| Reading {
            sequence: part.meta.key.sequence,
            bytes: part.meta.bytes,
            left: part.meta.bytes,
            reader: part.payload,
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// Leaves out the parts beyond these; none was begun.
    pub fn keep(&mut self, first: u64, last: u64) {
        self.parts
            .retain(|part| (first..=last).contains(&part.sequence));
    }

    /// The next frame, its head not yet filled in; empty after the last one.
    ///
    /// # Errors
    /// The payload must then not be completed.
    pub fn next(&mut self) -> Result<Vec<u8>, PayloadFault> {
        let mut block = vec![0; FRAME_MAX];
        let mut filled = FRAME_HEAD;
        while let Some(part) = self.parts.front_mut() {
            if part.left == 0 {
                // A payload's checksums may be known only at its end, so its end is reached before
                // its last block is sent.
                part.expect_end()?;
                self.parts.pop_front();
                continue;
            }
            if filled == block.len() {
                break;
            }
            let room = (block.len() - filled) as u64;
            let end = filled + usize::try_from(part.left.min(room)).expect("at most a frame");
            filled += part.fill(&mut block[filled..end])?;
        }
        if filled == FRAME_HEAD {
            return Ok(Vec::new());
        }
        block.truncate(filled);
        Ok(block)
    }
}

impl Reading {
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, PayloadFault> {
        match self.read(into)? {
            0 => Err(PayloadFault::Short {
                sequence: self.sequence,
                found: self.bytes - self.left,
                expected: self.bytes,
            }),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }

    fn expect_end(&mut self) -> Result<(), PayloadFault> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(PayloadFault::Long {
                sequence: self.sequence,
                expected: self.bytes,
            }),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, PayloadFault> {
        let sequence = self.sequence;
        loop {
            return match self.reader.read(into) {
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                    Err(PayloadFault::Damaged { sequence, source })
                }
                Err(source) => Err(PayloadFault::Unreadable { sequence, source }),
            };
        }
    }
}
