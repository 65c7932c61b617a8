//! A chunk: one captured piece of a recording.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Digest, HostName, SessionId, SessionKey, TenantId, Timestamp};

/// What a chunk is called: unique on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkKey {
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: u64,
}

impl SessionKey {
    /// The keys of everything that the session can hold.
    pub fn all_chunks(&self) -> RangeInclusive<ChunkKey> {
        let at = |sequence| ChunkKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
            sequence,
        };
        at(0)..=at(u64::MAX)
    }
}

impl ChunkKey {
    pub fn session_key(&self) -> SessionKey {
        SessionKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
        }
    }
}

impl fmt::Display for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.session, self.sequence)
    }
}

/// Everything about a chunk but its bytes. Never changes once accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMeta {
    pub key: ChunkKey,
    /// The recording host, set at enqueue.
    pub host: HostName,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub media_type: String,
    /// No chunk of this session follows.
    pub last: bool,
    /// Payload length.
    pub bytes: u64,
    pub digest: Digest,
}

/// Sequences of a session that its platform will not get before the chunk that declares them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
    pub reason: GapReason,
}

/// `sequence 4`, or `sequences 4 to 6`.
pub fn sequences(first: u64, last: u64) -> String {
    if first == last {
        format!("sequence {first}")
    } else {
        format!("sequences {first} to {last}")
    }
}

/// Why a sequence was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It was never enqueued while the next one waited.
    Missing,
    /// It is a dead letter.
    Dead,
    /// An operator purged it.
    Purged,
}
