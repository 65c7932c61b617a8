//! A delivery's payload, frame by frame. Knows nothing of tasks: its reader blocks, on a thread that may.
//! At most one frame of a delivery is in memory here.

use std::collections::VecDeque;

use super::wire::{FRAME_HEAD, FRAME_MAX};
use crate::platform::Part;
use crate::platform::body::{Payload, PayloadFault};

/// The parts' payloads one after another.
pub struct Blocks {
    parts: VecDeque<Payload>,
}

impl Blocks {
    pub fn of(parts: Vec<Part>) -> Self {
        Self {
            parts: parts.into_iter().map(Payload::of).collect(),
        }
    }

    /// Leaves out the parts beyond these; none was begun.
    pub fn keep(&mut self, first: u64, last: u64) {
        self.parts
            .retain(|part| (first..=last).contains(&part.sequence()));
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
            filled += part.read_some(&mut block[filled..end])?;
        }
        if filled == FRAME_HEAD {
            return Ok(Vec::new());
        }
        block.truncate(filled);
        Ok(block)
    }
}
