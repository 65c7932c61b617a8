//! A request body that is made while it is sent: the parts' payloads one after another, as they are or in base64
//! between a prefix and a suffix. At most two blocks of a payload are in memory. Reading and encoding happen on
//! blocking threads, one block a visit, so that a stalled network holds none of them.

use std::collections::VecDeque;
use std::io;

use base64::Engine;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::task::JoinHandle;

use super::Part;
use super::progress::Progress;
use super::wire::SUFFIX;

/// Payload bytes encoded at once: whole groups of three, because padding may stand only at the very
/// end.
const BLOCK: usize = 64 * 1024 + 2;
const _: () = assert!(BLOCK.is_multiple_of(3));

/// What is handed to the connection at once. The connection buffers up to 16 of these; small ones
/// keep "a byte was accepted" close to the truth on a slow line.
const SLICE: usize = 8 * 1024;

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

struct Payload {
    sequence: u64,
    bytes: u64,
    left: u64,
    reader: Box<dyn crate::disk::Payload>,
}

impl Payload {
    /// A payload's checksums may be known only at its end, so its end is reached before its last
    /// block is sent.
    fn expect_end(&mut self) -> Result<(), PayloadFault> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(PayloadFault::Long {
                sequence: self.sequence,
                expected: self.bytes,
            }),
        }
    }

    /// At least one of the bytes that are left.
    fn read_some(&mut self, into: &mut [u8]) -> Result<usize, PayloadFault> {
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

    /// The next piece of the body; `ended` says that it is the last.
    fn block(&mut self, payload: &[u8], ended: bool) -> Bytes {
        let Self::Base64 { engine, prefix } = self else {
            return Bytes::copy_from_slice(payload);
        };
        let mut out = std::mem::take(prefix);
        let start = out.len();
        out.resize(start + payload.len().div_ceil(3) * 4, 0);
        engine
            .encode_slice(payload, &mut out[start..])
            .expect("the slice has the encoded length");
        if ended {
            out.extend_from_slice(SUFFIX);
        }
        Bytes::from(out)
    }
}

/// Makes the body block by block; knows nothing of tasks.
pub struct Encoder {
    encoding: Encoding,
    payloads: VecDeque<Payload>,
    buffer: Box<[u8]>,
    ended: bool,
}

impl Encoder {
    pub fn new(encoding: Encoding, parts: Vec<Part>) -> Self {
        let payloads = parts.into_iter().map(|part| Payload {
            sequence: part.meta.key.sequence,
            bytes: part.meta.bytes,
            left: part.meta.bytes,
            reader: part.payload,
        });
        Self {
            encoding,
            payloads: payloads.collect(),
            buffer: vec![0; BLOCK].into_boxed_slice(),
            ended: false,
        }
    }

    /// The next piece of the body, `None` after the last one.
    ///
    /// # Errors
    /// The body must then not be completed.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, PayloadFault> {
        if self.ended {
            return Ok(None);
        }
        let filled = self.fill()?;
        self.ended = self.payloads.is_empty();
        let block = self.encoding.block(&self.buffer[..filled], self.ended);
        Ok(Some(block))
    }

    /// Reads on until the buffer is full or every payload has ended, and says how far the buffer is
    /// filled.
    fn fill(&mut self) -> Result<usize, PayloadFault> {
        let mut filled = 0;
        while let Some(payload) = self.payloads.front_mut() {
            if payload.left == 0 {
                payload.expect_end()?;
                self.payloads.pop_front();
                continue;
            }
            if filled == self.buffer.len() {
                break;
            }
            let left = usize::try_from(payload.left).unwrap_or(usize::MAX);
            let end = filled + left.min(self.buffer.len() - filled);
            filled += payload.read_some(&mut self.buffer[filled..end])?;
        }
        Ok(filled)
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
    let mut buffer = vec![0; BLOCK];
    while payload.left > 0 {
        let left = usize::try_from(payload.left).unwrap_or(usize::MAX);
        let count = payload.read_some(&mut buffer[..left.min(BLOCK)])?;
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
}

/// The body as a stream. While one block is being sent, the next is read. A fault ends it early and
/// is left in `progress`.
pub fn stream(encoder: Encoder, progress: Progress) -> impl Stream<Item = io::Result<Bytes>> {
    let sending = Sending {
        progress,
        block: Bytes::new(),
        next: Some(visit(encoder)),
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
                    self.next = Some(visit(encoder));
                }
                Ok((_, Ok(None))) => return None,
                Ok((_, Err(fault))) => {
                    self.progress.fail(fault);
                    return Some(Err(io::Error::other("the payload cannot be sent")));
                }
                Err(join) => return Some(Err(io::Error::other(join))),
            }
        }
        let slice = self.block.split_to(self.block.len().min(SLICE));
        self.progress.hand_over(slice.len());
        Some(Ok(slice))
    }
}

#[cfg(test)]
mod tests;
