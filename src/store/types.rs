//! What goes into the store's verbs and what comes out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Balance, ChunkKey, ChunkMeta, ChunkState, Count, DeadReason, Digest, FailureRecord, Gap,
    HostName, SessionId, SessionKey, TenantId, Timestamp,
};
use crate::sabotage::Sabotaged;

/// Limits and habits of one store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 1 to 64 MiB.
    pub segment_bytes: u64,
    /// Above this, enqueue is refused.
    pub max_bytes: u64,
    /// Enqueue is refused while the filesystem has less.
    pub min_free_bytes: u64,
    pub max_chunk_bytes: u64,
    /// How long a settled session's sequences and digests are known.
    pub remember: Duration,
    /// Configured tenants: above 70 % of `max_bytes` each may hold at most its share.
    pub tenants: Vec<TenantId>,
    /// Written into every chunk, and pinned at the first start.
    pub host: HostName,
    /// Deliberate defects, for tests.
    pub sabotaged: Sabotaged,
}

/// A chunk to accept.
#[derive(Debug, Clone)]
pub struct NewChunk {
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: SequenceChoice,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub media_type: String,
    pub last: bool,
    /// Payload length if it is known; it decides where the payload is written.
    pub length: Option<u64>,
}

/// Where and when a chunk was accepted first, if another host did that.
pub struct Origin {
    pub host: HostName,
    pub accepted_at: Timestamp,
}

/// How a chunk gets its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceChoice {
    /// Safe to repeat.
    Exactly(u64),
    /// One above the session's highest.
    Next {
        /// Refuse if the digest is among the session's last 64 remembered.
        refuse_repeat: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    pub key: ChunkKey,
    pub bytes: u64,
    pub digest: Digest,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The same bytes were accepted before; what became of them.
    Known(ChunkState),
}

/// The next chunk of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    /// Enqueue number: the order of acceptance over all sessions.
    pub number: u64,
    pub bytes: u64,
    pub accepted_at: Timestamp,
    /// Zero when it may go now.
    pub ready_in: Duration,
    /// Counted failures.
    pub failures: u32,
    /// Times that the process ended while this chunk was on the wire.
    pub crashes: u32,
    /// A higher sequence of the session was delivered before.
    pub late: bool,
    /// An operator wants the session first in its lane.
    pub promoted: bool,
    /// Sequences between the last delivered one (or, before any, the session's lowest) and this one that will not come,
    /// lowest first.
    pub gaps: Vec<Gap>,
    /// Live chunks of the session, this one among them.
    pub owed: u64,
}

#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    pub sequence: Option<u64>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: ChunkKey,
    /// `None` if the chunk's record is damaged.
    pub meta: Option<ChunkMeta>,
    pub reason: DeadReason,
    pub died_at: Timestamp,
    /// Oldest first, at most eight.
    pub history: Vec<FailureRecord>,
}

/// What an operator's verb on a dead letter found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    Done,
    NotDead,
}

/// What ending a session found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is ended now, and durably so.
    Ended,
    /// Since then.
    EndedBefore(Timestamp),
    /// Nothing of it is remembered.
    Unknown,
}

/// What promoting a session found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    Promoted,
    /// There is nothing to put first.
    NothingOwed,
    /// Nothing of it is remembered.
    Unknown,
}

#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    /// Only those with chunks to deliver.
    pub owed: bool,
    /// At most so many.
    pub limit: usize,
}

/// The sessions that match, in the order of their keys, and how many were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionList {
    pub sessions: Vec<SessionSummary>,
    pub left_out: u64,
}

/// What the store remembers of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    pub key: SessionKey,
    /// Accepted sequences as closed intervals, lowest first.
    pub accepted: Vec<(u64, u64)>,
    pub owed: u64,
    pub dead: u64,
    /// Gone with their segment, and not given again.
    pub lost: u64,
    pub purged: u64,
    pub leased: bool,
    pub promoted: bool,
    pub ended_at: Option<Timestamp>,
    /// The last acceptance or settling.
    pub changed_at: Timestamp,
}

impl SessionSummary {
    /// How many chunks were ever accepted.
    pub fn chunks(&self) -> u64 {
        self.accepted.iter().map(|(low, high)| high - low + 1).sum()
    }

    pub fn delivered(&self) -> u64 {
        let elsewhere = self.owed + self.dead + self.lost + self.purged;
        self.chunks().saturating_sub(elsewhere)
    }

    /// Sequences that never came, between those that did.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let pairs = self.accepted.windows(2);
        pairs.map(|pair| (pair[0].1 + 1, pair[1].0 - 1)).collect()
    }
}

/// What a stored hold is about. One hold a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldKey {
    pub tenant: TenantId,
    /// The hold's kind and route as the engine spells them.
    pub name: String,
}

/// A hold as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHold {
    pub key: HoldKey,
    pub set_at: Timestamp,
    /// How long it still lasts from now; `None`: until it is removed.
    pub left: Option<Duration>,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantCounts {
    /// Live, leased or not; includes delayed.
    pub live: Count,
    pub leased: Count,
    /// Live with a `not_before` in the future.
    pub delayed: Count,
    pub confirming: Count,
    pub dead: Count,
    pub delivered: Count,
    pub purged: Count,
    /// Acceptance times of the oldest and the newest owed chunk.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// When its last chunk was delivered, as far as that is remembered.
    pub last_delivery: Option<Timestamp>,
}

/// What became of an accepted chunk that waits no more, as far as the store can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// One: it is that. Several: one of them.
    pub may_be: Vec<ChunkState>,
    /// It is lost with its segment; or may be, where it may be something else.
    pub lost: bool,
}

/// The store's part of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct StoreView {
    pub tenants: Vec<(TenantId, TenantCounts)>,
    pub used_bytes: u64,
    pub free_bytes: u64,
    pub quota_bytes: u64,
    pub balance: Balance,
    /// The storage error that stops intake.
    pub latched: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub segment: String,
    pub offset: u64,
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    pub sequence: Option<u64>,
    pub reason: String,
}

impl Damage {
    /// Of a place that no one chunk has to itself.
    pub fn at(place: impl Into<String>, offset: u64, reason: impl Into<String>) -> Self {
        Self {
            segment: place.into(),
            offset,
            tenant: None,
            session: None,
            sequence: None,
            reason: reason.into(),
        }
    }

    #[must_use]
    pub fn of(self, key: Option<&ChunkKey>) -> Self {
        Self {
            tenant: key.map(|key| key.tenant.clone()),
            session: key.map(|key| key.session.clone()),
            sequence: key.map(|key| key.sequence),
            ..self
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexCheck {
    Ok,
    Rebuilt,
}

/// `worker fsck --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckReport {
    pub damaged: Vec<Damage>,
    /// What did not read back and was made right, by this or by the opening before it; nothing is owed because of it.
    #[serde(default)]
    pub repaired: Vec<Damage>,
    pub balance: Balance,
    pub index: IndexCheck,
    pub segments: u64,
    pub chunks_checked: u64,
    pub bytes_checked: u64,
}
