//! The stream: a header, then frames. Each frame is checked on its own, with a seed and a number that no other place of
//! this or another stream has, so that what is read is what was written there, and all of it up to the end.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::model::{
    ChunkKey, ChunkMeta, DeadReason, Digest, FailureRecord, HostName, SessionKey, TenantId,
    Timestamp,
};
use crate::store::record::{self, RecordError};

const MAGIC: [u8; 8] = *b"REELAYEX";
/// The stream's version; a higher one is refused before anything is taken in.
pub const FORMAT: u32 = 1;
const HEADER: usize = 24;
const FRAME: usize = 16;
/// A payload travels in pieces of this size.
pub const BLOCK: usize = 64 << 10;
/// The version of the records in it.
const VERSION: u8 = 1;
const ENTRY: u8 = 1;
const PAYLOAD: u8 = 2;

/// One record of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    Begin(Begin),
    Pin {
        tenant: TenantId,
        organisation: String,
    },
    /// Followed by its payload.
    Chunk(Box<Chunk>),
    Session(Box<Session>),
    End(End),
}

/// Whose backlog it is, and about how much: for progress only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    pub host: HostName,
    pub at: Timestamp,
    pub bytes: u64,
}

/// A chunk as its own host accepted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub session: SessionKey,
    pub sequence: u64,
    pub host: HostName,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub media_type: String,
    pub last: bool,
    pub bytes: u64,
    pub digest: [u8; 32],
    pub accepted_at: Timestamp,
    /// A dead letter's end.
    pub death: Option<Death>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    pub reason: DeadReason,
    pub died_at: Timestamp,
    pub history: Vec<FailureRecord>,
}

/// What is known of a session besides its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub key: SessionKey,
    /// Accepted sequences as closed intervals, whatever became of them.
    pub accepted: Vec<(u64, u64)>,
    pub delivered_high: Option<u64>,
    pub changed_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub promoted: bool,
}

/// Nothing is missing before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub chunks: u64,
    pub sessions: u64,
}

impl Chunk {
    pub fn new(meta: ChunkMeta, accepted_at: Timestamp, death: Option<Death>) -> Self {
        Self {
            session: meta.key.session_key(),
            sequence: meta.key.sequence,
            host: meta.host,
            started_at: meta.started_at,
            duration_ms: meta.duration_ms,
            media_type: meta.media_type,
            last: meta.last,
            bytes: meta.bytes,
            digest: meta.digest.0,
            accepted_at,
            death,
        }
    }

    pub fn key(&self) -> ChunkKey {
        let SessionKey { tenant, session } = self.session.clone();
        ChunkKey {
            tenant,
            session,
            sequence: self.sequence,
        }
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the export is damaged or cut short at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error("the export has format {found}; this worker reads up to {FORMAT}: install a newer one")]
    Newer { found: u32 },
    #[error("export read")]
    Io(#[from] io::Error),
}

fn check(seed: u32, head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// Folds the nonce.
fn seed(nonce: u64) -> u32 {
    (nonce ^ nonce >> 32) as u32
}

pub struct Writer<'a> {
    to: &'a mut dyn Write,
    seed: u32,
    number: u32,
}

impl<'a> Writer<'a> {
    pub fn begin(to: &'a mut dyn Write, nonce: u64) -> io::Result<Self> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[12..20].copy_from_slice(&nonce.to_le_bytes());
        let crc = crc32fast::hash(&header[..20]);
        header[20..].copy_from_slice(&crc.to_le_bytes());
        to.write_all(&header)?;
        Ok(Self {
            to,
            seed: seed(nonce),
            number: 0,
        })
    }

    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.frame(ENTRY, &record::encode(VERSION, entry, record::RECORD_MAX))
    }

    /// At most [`BLOCK`] bytes of the chunk before.
    pub fn payload(&mut self, block: &[u8]) -> io::Result<()> {
        self.frame(PAYLOAD, block)
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut head = [0; FRAME];
        head[0] = kind;
        head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&self.number.to_le_bytes());
        let crc = check(self.seed, &head[..12], body);
        head[12..].copy_from_slice(&crc.to_le_bytes());
        self.number = self.number.wrapping_add(1);
        self.to.write_all(&head)?;
        self.to.write_all(body)
    }
}

pub struct Reader<'a> {
    from: &'a mut dyn Read,
    seed: u32,
    number: u32,
    at: u64,
}

impl<'a> Reader<'a> {
    pub fn begin(from: &'a mut dyn Read) -> Result<Self, Fault> {
        let mut reader = Self {
            from,
            seed: 0,
            number: 0,
            at: 0,
        };
        let mut header = [0; HEADER];
        reader.fill(&mut header)?;
        let u32_at =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        if header[..8] != MAGIC {
            return Err(reader.damaged("it does not begin like an export of this program"));
        }
        if u32_at(20) != crc32fast::hash(&header[..20]) {
            return Err(reader.damaged("its header does not check"));
        }
        if u32_at(8) > FORMAT {
            return Err(Fault::Newer { found: u32_at(8) });
        }
        let nonce = u64::from_le_bytes(header[12..20].try_into().expect("8 bytes"));
        reader.seed = seed(nonce);
        Ok(reader)
    }

    pub fn entry(&mut self) -> Result<Entry, Fault> {
        let body = self.frame(ENTRY)?;
        record::decode(VERSION, &body, record::RECORD_MAX).map_err(|error| match error {
            RecordError::NewerVersion(found) => Fault::Newer {
                found: found.into(),
            },
            _ => self.damaged("a record does not decode"),
        })
    }

    /// The payload of the chunk that was read last.
    pub fn payload<'b>(&'b mut self, chunk: &Chunk) -> Payload<'a, 'b> {
        Payload {
            reader: self,
            left: chunk.bytes,
            digest: Digest(chunk.digest),
            hasher: blake3::Hasher::new(),
            block: Vec::new(),
            taken: 0,
            fault: None,
        }
    }

    /// Nothing follows the last record.
    pub fn expect_end(&mut self) -> Result<(), Fault> {
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.damaged("it goes on after its end")),
        }
    }

    pub fn damaged(&self, what: &'static str) -> Fault {
        Fault::Damaged { at: self.at, what }
    }

    fn frame(&mut self, kind: u8) -> Result<Vec<u8>, Fault> {
        let mut head = [0; FRAME];
        self.fill(&mut head)?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        // Before its length is trusted with memory.
        let length = u32_at(4) as usize;
        if length > BLOCK + 1 {
            return Err(self.damaged("a frame is longer than any"));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        if u32_at(12) != check(self.seed, &head[..12], &body) || u32_at(8) != self.number {
            return Err(self.damaged("a frame does not check"));
        }
        if head[0] != kind {
            return Err(self.damaged("a frame is not what must come here"));
        }
        self.number = self.number.wrapping_add(1);
        Ok(body)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        match self.from.read_exact(buffer) {
            Ok(()) => {
                self.at += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends here"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A chunk's payload as it comes, verified against its digest before its last byte is handed out.
pub struct Payload<'a, 'b> {
    reader: &'b mut Reader<'a>,
    /// Bytes that no frame was read for yet.
    left: u64,
    digest: Digest,
    hasher: blake3::Hasher,
    block: Vec<u8>,
    taken: usize,
    fault: Option<Fault>,
}

impl Payload<'_, '_> {
    /// Reads what nobody wanted, so that the next record can be read; what was wrong, if anything was.
    pub fn finish(mut self) -> Result<(), Fault> {
        while self.fault.is_none() && self.left > 0 {
            self.next_block();
        }
        self.fault.map_or(Ok(()), Err)
    }

    fn next_block(&mut self) {
        let read = self.reader.frame(PAYLOAD).and_then(|block| {
            if block.is_empty() || block.len() as u64 > self.left {
                return Err(self.reader.damaged("a payload has another length"));
            }
            Ok(block)
        });
        match read {
            Ok(block) => {
                self.hasher.update(&block);
                self.left -= block.len() as u64;
                self.block = block;
                self.taken = 0;
            }
            Err(fault) => self.fault = Some(fault),
        }
        let whole = self.left == 0 && self.fault.is_none();
        if whole && Digest(*self.hasher.finalize().as_bytes()) != self.digest {
            self.fault = Some(self.reader.damaged("a payload has another digest"));
        }
    }
}

impl Read for Payload<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() && self.left > 0 && self.fault.is_none() {
            self.next_block();
        }
        if self.fault.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = into.len().min(self.block.len() - self.taken);
        into[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// The same stream with every check and number made right, as far as its lengths make sense.
#[cfg(any(test, feature = "fuzzing"))]
pub fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = Writer::begin(&mut stream, 7).expect("a vector takes all");
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_first_chunk::<FRAME>() {
        let length = u32::from_le_bytes(head[4..8].try_into().expect("4 bytes")) as usize;
        let (body, next) = behind.split_at(length.min(behind.len()));
        let kind = if head[0] & 1 == 1 { ENTRY } else { PAYLOAD };
        writer.frame(kind, body).expect("a vector takes all");
        rest = next;
    }
    stream
}
