//! What is drained: chunks of equal bytes, of many sessions of one tenant.

use std::io::{self, Read};

use reelay::model::Timestamp;
use reelay::store::{NewChunk, SequenceChoice};

pub const TENANT: &str = "acme";
pub const HOST: &str = "bench";
pub const IN_FLIGHT: usize = 16;
/// More than requests, so that the pool is the bound and not the order within a session.
pub const SESSIONS: usize = 64;
pub const DURATION_MS: u64 = 30_000;
pub const MEDIA_TYPE: &str = "video/mp4";

#[derive(Clone, Copy, PartialEq)]
pub enum Transport {
    Json,
    Binary,
}

impl Transport {
    pub fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }
}

/// What is drained.
#[derive(Clone, Copy)]
pub struct Load {
    pub transport: Transport,
    pub chunk: usize,
    pub chunks: usize,
    /// The server reads bodies only once so many have begun.
    pub gather: usize,
    /// They take their chunks in turn.
    pub sessions: usize,
    /// They take their sessions in turn.
    pub tenants: usize,
}

impl Load {
    /// Of 64 sessions of one tenant.
    pub fn of(transport: Transport, chunk: usize, chunks: usize) -> Self {
        Self {
            transport,
            chunk,
            chunks,
            gather: 1,
            sessions: SESSIONS,
            tenants: 1,
        }
    }

    pub fn new_chunk(&self, n: usize) -> NewChunk {
        let session = n % self.sessions;
        NewChunk {
            tenant: tenant_of(session % self.tenants).parse().expect("a name"),
            session: format!("s{session}").parse().expect("a name"),
            sequence: SequenceChoice::Exactly((n / self.sessions) as u64),
            started_at: Timestamp(0),
            duration_ms: DURATION_MS,
            media_type: MEDIA_TYPE.into(),
            last: false,
            length: Some(self.chunk as u64),
        }
    }
}

/// The same bytes for every chunk, of which none is held in memory.
pub struct Pattern {
    at: usize,
    bytes: usize,
}

impl Pattern {
    pub fn of(bytes: usize) -> Self {
        Self { at: 0, bytes }
    }
}

impl Read for Pattern {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.bytes - self.at);
        for (n, byte) in into[..count].iter_mut().enumerate() {
            *byte = (((self.at + n) * 31) >> 3) as u8;
        }
        self.at += count;
        Ok(count)
    }
}

pub fn session_of(n: usize) -> String {
    format!("s{}", n % SESSIONS)
}

pub fn tenant_of(n: usize) -> String {
    match n {
        0 => TENANT.to_owned(),
        later => format!("t{later}"),
    }
}
