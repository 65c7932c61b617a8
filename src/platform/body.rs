//! A request body that is made while it is sent: the parts' payloads one after another, as they are or in base64
//! between a prefix and a suffix. At most two blocks of a payload are in memory. Reading and encoding happen on
//! blocking threads, one block a visit, so that a stalled network holds none of them; a small payload is one block.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::task::JoinHandle;

use super::Part;
use super::progress::Progress;
use super::wire::SUFFIX;

/// Payload bytes read and encoded between two of them: whole groups of three, because padding may stand only at the very
/// end, and whole blocks of the store, which are then read in place.
const STRIDE: usize = 3 * 64 * 1024;
/// Payload bytes a visit to a blocking thread.
const BLOCK: usize = 2 * STRIDE;
/// Of more than this only a stride a visit: the time of a visit weighs less there, and memory more.
const LARGE: u64 = 1 << 20;
const _: () = assert!(STRIDE.is_multiple_of(3));

/// What is handed to the connection at once. The connection buffers up to 16 of these, about 400 KiB at most, and writes
/// them in one call.
const SLICE: usize = 32 * 1024;
/// The same on a slow line, where small ones keep "a byte was accepted" close to the truth.
const SMALL_SLICE: usize = 8 * 1024;
/// A line that takes longer for a slice is slow.
const SLOW: Duration = Duration::from_secs(1);

/// Why a payload could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum PayloadFault {
    #[error("the payload of sequence {sequence} is damaged")]
    Damaged {
        sequence: u64,
        #[source]
        source: io::Error,
    },
    #[error("the payload of sequence {sequence} ends after {found} of {expected} bytes")]
    Short {
        sequence: u64,
        found: u64,
        expected: u64,
    },
    #[error("the payload of sequence {sequence} goes on after its {expected} bytes")]
    Long { sequence: u64, expected: u64 },
    #[error("reading the payload of sequence {sequence}")]
    Unreadable {
        sequence: u64,
        #[source]
        source: io::Error,
    },
}

impl PayloadFault {
    /// Whether the stored bytes are wrong, as opposed to out of reach for now.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Unreadable { .. })
    }
}

/// A payload and how much of it is unread.
pub struct Payload {
    sequence: u64,
    bytes: u64,
    pub left: u64,
    reader: Box<dyn crate::disk::Payload>,
}

impl Payload {
    pub fn of(part: Part) -> Self {
        Self {
            sequence: part.meta.key.sequence,
            bytes: part.meta.bytes,
            left: part.meta.bytes,
            reader: part.payload,
        }
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A payload's checksums may be known only at its end, so its end is reached before its last
    /// block is sent.
    pub fn expect_end(&mut self) -> Result<(), PayloadFault> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(PayloadFault::Long {
                sequence: self.sequence,
                expected: self.bytes,
            }),
        }
    }

    /// At least one of the bytes that are left.
    pub fn read_some(&mut self, into: &mut [u8]) -> Result<usize, PayloadFault> {
        let count = self.read(into)?;
        if count == 0 {
            return Err(PayloadFault::Short {
                sequence: self.sequence,
                found: self.bytes - self.left,
                expected: self.bytes,
            });
        }
        self.left -= count as u64;
        Ok(count)
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

/// In which form the payloads stand in the body.
pub enum Encoding {
    Plain,
    Base64 { engine: Box<Simd>, prefix: Vec<u8> },
}

impl Encoding {
    /// Behind `prefix`, and closed by the json transport's suffix.
    pub fn base64(prefix: Vec<u8>) -> Self {
        let engine = Box::new(Simd::standard(PAD));
        Self::Base64 { engine, prefix }
    }
}

/// Makes the body block by block; knows nothing of tasks.
pub struct Encoder {
    encoding: Encoding,
    payloads: Payloads,
    block: usize,
    /// What base64 is made of, until then unused.
    stride: Vec<u8>,
    ended: bool,
}

impl Encoder {
    pub fn new(encoding: Encoding, parts: Vec<Part>) -> Self {
        let bytes: u64 = parts.iter().map(|part| part.meta.bytes).sum();
        Self {
            encoding,
            block: if bytes > LARGE { STRIDE } else { BLOCK },
            payloads: Payloads(parts.into_iter().map(Payload::of).collect()),
            stride: Vec::new(),
            ended: false,
        }
    }

    /// Whether the last piece was made.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next piece of the body, `None` after the last one.
    ///
    /// # Errors
    /// The body must then not be completed.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, PayloadFault> {
        if self.ended {
            return Ok(None);
        }
        let most = self.payloads.at_most(self.block);
        let block = match &mut self.encoding {
            Encoding::Plain => {
                let mut out = vec![0; most];
                self.payloads.fill(&mut out)?;
                out
            }
            Encoding::Base64 { engine, prefix } => {
                let prefix = std::mem::take(prefix);
                self.stride.resize(most.min(STRIDE), 0);
                encode(engine, &prefix, &mut self.payloads, &mut self.stride, most)?
            }
        };
        self.ended = self.payloads.0.is_empty();
        Ok(Some(Bytes::from(block)))
    }
}

/// `prefix`, then `most` bytes of the payloads in base64, and the suffix behind the last of them.
fn encode(
    engine: &Simd,
    prefix: &[u8],
    payloads: &mut Payloads,
    stride: &mut [u8],
    most: usize,
) -> Result<Vec<u8>, PayloadFault> {
    let mut out = vec![0; prefix.len() + most.div_ceil(3) * 4 + SUFFIX.len()];
    out[..prefix.len()].copy_from_slice(prefix);
    let mut end = prefix.len();
    let mut left = most;
    loop {
        let payload = &mut stride[..left.min(STRIDE)];
        payloads.fill(payload)?;
        end += engine
            .encode_slice(&*payload, &mut out[end..])
            .expect("there is room for the encoded length");
        left -= payload.len();
        if left == 0 {
            break;
        }
    }
    out.truncate(end);
    if payloads.0.is_empty() {
        out.extend_from_slice(SUFFIX);
    }
    Ok(out)
}

/// Those that have not ended, one after another.
struct Payloads(VecDeque<Payload>);

impl Payloads {
    /// How much is left of all, as far as it fits.
    fn at_most(&self, most: usize) -> usize {
        let left = self.0.iter().map(|payload| payload.left);
        let left = left.fold(0, u64::saturating_add);
        usize::try_from(left).unwrap_or(usize::MAX).min(most)
    }

    /// Reads on until `buffer` is full, and over the end of every payload that has no byte left.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PayloadFault> {
        let mut filled = 0;
        while let Some(payload) = self.0.front_mut() {
            if payload.left == 0 {
                payload.expect_end()?;
                self.0.pop_front();
                continue;
            }
            if filled == buffer.len() {
                break;
            }
            let left = usize::try_from(payload.left).unwrap_or(usize::MAX);
            let end = filled + left.min(buffer.len() - filled);
            filled += payload.read_some(&mut buffer[filled..end])?;
        }
        Ok(())
    }
}

/// Reads a payload to its end and rewinds it. `take` says whether to go on. Blocks.
///
/// # Errors
/// The stored bytes are wrong or out of reach.
pub fn read_through(
    part: &mut Part,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), PayloadFault> {
    let mut payload = Payload {
        sequence: part.meta.key.sequence,
        bytes: part.meta.bytes,
        left: part.meta.bytes,
        reader: std::mem::replace(&mut part.payload, Box::new(io::empty())),
    };
    let mut buffer = vec![0; STRIDE];
    while payload.left > 0 {
        let left = usize::try_from(payload.left).unwrap_or(usize::MAX);
        let count = payload.read_some(&mut buffer[..left.min(STRIDE)])?;
        if !take(&buffer[..count]) {
            break;
        }
    }
    if payload.left == 0 {
        payload.expect_end()?;
    }
    let rewound = payload.reader.rewind();
    part.payload = payload.reader;
    rewound.map_err(|source| PayloadFault::Unreadable {
        sequence: part.meta.key.sequence,
        source,
    })
}

type Visit = JoinHandle<(Encoder, Result<Option<Bytes>, PayloadFault>)>;

struct Sending {
    progress: Progress,
    /// Encoded and not yet handed over.
    block: Bytes,
    next: Option<Visit>,
    slice: usize,
}

/// The body as a stream. While one block is being sent, the next is read. A fault ends it early and
/// is left in `progress`.
pub fn stream(encoder: Encoder, progress: Progress) -> impl Stream<Item = io::Result<Bytes>> {
    let sending = Sending {
        progress,
        block: Bytes::new(),
        next: Some(visit(encoder)),
        slice: SLICE,
    };
    stream::unfold(sending, |mut sending| async move {
        let item = sending.next_slice().await?;
        Some((item, sending))
    })
}

fn visit(mut encoder: Encoder) -> Visit {
    tokio::task::spawn_blocking(move || {
        let block = encoder.next_block();
        (encoder, block)
    })
}

impl Sending {
    async fn next_slice(&mut self) -> Option<io::Result<Bytes>> {
        if self.progress.is_abandoned() {
            self.next = None;
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
        }
        if self.block.is_empty() {
            match self.next.take()?.await {
                Ok((encoder, Ok(Some(block)))) => {
                    self.block = block;
                    self.next = (!encoder.has_ended()).then(|| visit(encoder));
                }
                Ok((_, Ok(None))) => return None,
                Ok((_, Err(fault))) => {
                    self.progress.fail(fault);
                    return Some(Err(io::Error::other("the payload cannot be sent")));
                }
                Err(join) => return Some(Err(io::Error::other(join))),
            }
        }
        let slice = self.block.split_to(self.block.len().min(self.slice));
        let waited = self.progress.hand_over(slice.len());
        self.slice = if waited > SLOW { SMALL_SLICE } else { SLICE };
        Some(Ok(slice))
    }
}

#[cfg(test)]
mod tests;
