//! Walking a segment's frames from its first to its end, past whatever is damaged.
//!
//! A frame is found by the end of the one before it, or by its word; either suffices. Payload is never searched.

use std::io;

use super::frame::{self, Decoded, Kind};
use super::segment::{FrameHead, Segment, Unreadable, read_patiently};
use super::word::{Slot, Word};

/// One step of the walk.
#[derive(Debug)]
pub enum Found {
    Chunk {
        ordinal: u32,
        head: FrameHead,
        /// As read; an unreadable or missing one counts as live.
        word: Word,
        word_was_readable: bool,
    },
    Note {
        head: FrameHead,
    },
    /// A chunk's frame does not read back; its word does.
    DamagedChunk {
        ordinal: u32,
        start: u32,
        word: Word,
    },
    /// Bytes that belong to no frame that can be found: lost notes, or a chunk whose word is unreadable too.
    DamagedRange {
        start: u32,
        end: u32,
    },
}

impl Found {
    pub fn start(&self) -> u32 {
        match self {
            Self::Chunk { head, .. } | Self::Note { head } => head.start,
            Self::DamagedChunk { start, .. } | Self::DamagedRange { start, .. } => *start,
        }
    }
}

/// Walks the frames that begin below `end` (if it is known), in order.
///
/// # Errors
/// Only those of the medium, after a few tries, on words; an unreadable frame is damage like any other.
pub fn walk(
    segment: &Segment,
    end: Option<u32>,
    mut visit: impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    let limit = u64::from(end.unwrap_or(segment.layout.segment_bytes as u32));
    let words = Words::read(segment)?;
    let mut window = Window::default();
    let mut at = segment.layout.data_start();
    let mut ordinal = 0;
    while at < limit {
        match window.frame(segment, at as u32) {
            Ok(head) => {
                at = head.next();
                match head.header.kind {
                    Kind::Note => visit(Found::Note { head })?,
                    Kind::Chunk {
                        ordinal: written, ..
                    } => {
                        // Chunks before this one whose frames and starts are both gone. However far the frame says it is:
                        // there are no more words than were read.
                        for missing in ordinal..written.min(words.count()) {
                            if let Some(word) = words.get(missing) {
                                visit(Found::DamagedChunk {
                                    ordinal: missing,
                                    start: word.start,
                                    word,
                                })?;
                            }
                        }
                        ordinal = written.saturating_add(1);
                        let read = words.get(written).filter(|word| word.start == head.start);
                        let word = read.unwrap_or_else(|| Word::new(head.start));
                        let word_was_readable = read.is_some();
                        visit(Found::Chunk {
                            ordinal: written,
                            head,
                            word,
                            word_was_readable,
                        })?;
                    }
                }
            }
            Err(Unreadable) => {
                let here = words
                    .get(ordinal)
                    .filter(|word| u64::from(word.start) == at);
                if let Some(word) = here {
                    visit(Found::DamagedChunk {
                        ordinal,
                        start: at as u32,
                        word,
                    })?;
                    ordinal += 1;
                }
                let next = words.next_start(ordinal, at);
                let stop = next.map_or(limit, u64::from).min(limit);
                if here.is_none() && (next.is_some() || end.is_some()) {
                    visit(Found::DamagedRange {
                        start: at as u32,
                        end: stop as u32,
                    })?;
                }
                match next {
                    Some(start) => at = u64::from(start),
                    None => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

/// Reads many small frames at once; large ones singly, because only their heads are wanted.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// Whether the last frame was small.
    small: bool,
}

impl Window {
    const BYTES: usize = 256 << 10;
    const SMALL: u64 = 16 << 10;

    fn frame(&mut self, segment: &Segment, at: u32) -> Result<FrameHead, Unreadable> {
        let mut found = self.held(segment, at);
        if found.is_none() && self.small {
            self.fill(segment, at.into());
            found = self.held(segment, at);
        }
        let head = match found {
            Some(head) => head?,
            None => segment.read_frame(at)?,
        };
        self.small = head.header.frame_bytes() <= Self::SMALL;
        Ok(head)
    }

    fn held(&self, segment: &Segment, at: u32) -> Option<Result<FrameHead, Unreadable>> {
        let from = u64::from(at).checked_sub(self.start)?;
        let bytes = self.bytes.get(from as usize..)?;
        match frame::decode(segment.nonce, at, bytes) {
            Ok(Decoded::Head(head)) => Some(Ok(head)),
            Ok(Decoded::Needs(_)) => None,
            Err(unreadable) => Some(Err(unreadable)),
        }
    }

    fn fill(&mut self, segment: &Segment, at: u64) {
        self.bytes.resize(Self::BYTES, 0);
        let read = segment
            .file()
            .and_then(|file| read_patiently(file.as_ref(), &mut self.bytes, at));
        self.start = at;
        // A window that cannot be read says nothing of the frames in it: each is read singly.
        self.bytes.truncate(read.unwrap_or(0));
    }
}

struct Words(Vec<Slot>);

impl Words {
    /// The used part of the table, read in pieces.
    fn read(segment: &Segment) -> io::Result<Self> {
        const PIECE: u32 = 8192;
        let mut slots = Vec::new();
        let mut first = 0;
        while first < segment.layout.words() {
            let piece = segment.read_words(first, PIECE)?;
            let used = piece
                .iter()
                .rposition(|slot| *slot != Slot::Unused)
                .map_or(0, |at| at + 1);
            let full = used == piece.len();
            slots.extend_from_slice(&piece[..used]);
            if !full {
                break;
            }
            first += PIECE;
        }
        Ok(Self(slots))
    }

    fn count(&self) -> u32 {
        self.0.len() as u32
    }

    fn get(&self, ordinal: u32) -> Option<Word> {
        match self.0.get(ordinal as usize) {
            Some(Slot::Word(word)) => Some(*word),
            _ => None,
        }
    }

    /// The first readable start at or after `ordinal` that lies beyond `at`.
    fn next_start(&self, ordinal: u32, at: u64) -> Option<u32> {
        (ordinal..self.0.len() as u32)
            .filter_map(|ordinal| self.get(ordinal))
            .map(|word| word.start)
            .find(|start| u64::from(*start) > at)
    }
}
