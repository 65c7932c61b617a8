//! What the operator's side asks of whoever holds the store, and what it hears. One type for each side of
//! every operation; the command line renders the same reply whether it came through the socket or from a
//! store that it opened itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    ChunkKey, ChunkMeta, ChunkState, Count, DeadReason, FailureRecord, GateView, RecordingId,
    SessionId, Snapshot, TenantId, TokenView,
};
use crate::store::FsckReport;

use super::recordings::{RecordingsReply, RecordingsRequest};
use super::sessions;

/// An operation without a payload stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// `worker --stats`.
    Stats {},
    /// `worker why`.
    Why {
        tenant: TenantId,
        session: Option<SessionId>,
        sequence: Option<u64>,
    },
    /// Closes a tenant's gate by hand.
    Pause { tenant: TenantId },
    /// Removes that hold and lets every other one try now.
    Resume { tenant: TenantId },
    /// Dead letters, without their histories.
    DeadList { which: Which, limit: usize },
    /// One dead letter with its history.
    DeadShow { which: Which },
    /// Dead becomes live again.
    Redrive { which: Which },
    /// Dead becomes purged.
    Purge { which: Which },
    /// `worker sessions`.
    Sessions { ask: sessions::Ask },
    /// Reads everything.
    Fsck {},
    /// Delivers what stands before the fence and says how it ended.
    Drain(DrainSpec),
    /// Asks every tenant's token endpoint and platform once.
    CheckOnline {},
    /// What is known of recordings, and asking for more.
    Recordings(RecordingsRequest),
    /// A draining holder gives the store to a `worker run`.
    HandOver {},
}

/// The dead letters that an operation is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    pub sequence: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainSpec {
    /// `None`: all.
    pub tenant: Option<TenantId>,
    pub timeout: Option<Duration>,
    pub patience: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "snake_case")]
pub enum Reply {
    Stats(Box<Snapshot>),
    Why(Box<WhyReply>),
    Paused {
        tenant: TenantId,
        was: bool,
    },
    Resumed {
        tenant: TenantId,
        removed: usize,
        /// Somebody delivers.
        served: bool,
    },
    Dead(Vec<DeadView>),
    Redriven(Moved),
    Purged(Moved),
    Sessions(sessions::List),
    Session(Box<sessions::Detail>),
    SessionEnded(sessions::Ended),
    SessionPromoted(sessions::Promoted),
    Fsck(FsckReport),
    Drained(DrainReport),
    Checked(Vec<Finding>),
    Recordings(RecordingsReply),
    HandingOver {},
}

/// What a redrive or purge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub chunks: u64,
    pub bytes: u64,
}

/// A dead letter as shown and exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadView {
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: u64,
    pub reason: DeadReason,
    pub died_at: String,
    /// What its record says; `None` if the record itself is damaged.
    pub about: Option<DeadMeta>,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<FailureRecord>,
}

/// `worker why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply {
    pub tenant: TenantId,
    pub configured: bool,
    /// Somebody works on the store now.
    pub running: bool,
    pub gate: GateView,
    pub token: Option<TokenView>,
    pub backlog: Count,
    pub dead: Count,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionWhy>,
    /// The failure that explains most: the chunk's, else the session's head's, else the lane's newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureRecord>,
    /// Recordings of the session, or of the tenant, that are not as they were delivered; a few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<Mismatch>,
    /// What happens next, and when.
    pub next: String,
    /// What a person can do; empty if there is nothing to do.
    pub remedy: String,
}

/// A recording that is not as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    pub recording: RecordingId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// One sentence each.
    pub differences: Vec<String>,
}

/// The part of `why` that is about one session or chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionWhy {
    pub session: SessionId,
    /// The chunk asked for, else the session's head.
    pub sequence: Option<u64>,
    /// `None`: it is behind another one, or one of what it may be.
    pub state: Option<ChunkState>,
    /// What an accepted chunk that waits no more may have become, where the store cannot tell which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_be: Vec<ChunkState>,
    /// Dead letters of the whole session.
    #[serde(default)]
    pub dead: u64,
    pub failures: u32,
    pub crashes: u32,
    pub ready_in_s: u64,
    /// A missing sequence before it is waited for so long at most.
    #[serde(default)]
    pub gap_wait_s: u64,
    /// The first and the last of those sequences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<(u64, u64)>,
    /// The session's head, when that is another chunk: it goes first.
    pub behind: Option<u64>,
    /// It is lost with a segment of the store; or may be, where it may be something else. Without a sequence: some of the
    /// session's chunks are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// How a drain, or one tenant's part of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainOutcome {
    Drained,
    DeadLeft,
    Blocked,
    Unreachable,
    Throttled,
    Deadline,
    Storage,
}

/// `worker drain --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    pub outcome: DrainOutcome,
    pub delivered: Count,
    pub left: Count,
    pub tenants: BTreeMap<String, DrainedTenant>,
    /// The drain gave the store away before it was done: ask the new holder for the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
    /// What became of recordings to fetch, where there were any; the outcome speaks of chunks alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recordings: BTreeMap<String, DrainedRecordings>,
    /// Chunks of the store that cannot be read, not even their names.
    #[serde(default, skip_serializing_if = "crate::model::is_zero")]
    pub unreadable: u64,
}

/// One tenant's recordings in a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedRecordings {
    pub fetched: u64,
    pub left: u64,
    /// Given up in this drain.
    pub dead: u64,
    /// Why something is left; empty otherwise.
    pub reason: String,
    /// RFC 3339: when it goes on by itself.
    pub until: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedTenant {
    pub outcome: DrainOutcome,
    pub delivered: Count,
    pub left: Count,
    /// Chunks that died in this drain.
    pub dead: u64,
    /// Dead letters from before: named, not counted as a failure of this drain.
    pub dead_before: u64,
    /// Why something is left; empty otherwise.
    pub reason: String,
    /// RFC 3339: when it goes on by itself.
    pub until: Option<String>,
}

/// One thing that `worker check` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `configuration`, `secrets`, `store`, `tenant acme: token`.
    pub what: String,
    pub level: Level,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    Warning,
    Critical,
}

/// `PUT /v1/tenants/{t}/sessions/{s}/chunks/{n|next}`: the query beside the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkQuery {
    /// RFC 3339 with an offset.
    pub started_at: String,
    pub duration_ms: u64,
    pub media_type: String,
    #[serde(default)]
    pub last: bool,
    /// With `next`: add the bytes even if the session has them already.
    #[serde(default)]
    pub append: bool,
}

/// What `enqueue` answers, through the socket and as `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnqueuedView {
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: u64,
    pub bytes: u64,
    pub known: bool,
    /// What became of a known chunk: `live`, `delivered`, `dead`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `GET /v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub pid: u32,
    /// `run` or `drain`.
    pub command: String,
    pub host: String,
    pub version: String,
}

/// The rest of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadMeta {
    pub host: String,
    pub bytes: u64,
    pub digest: String,
    pub media_type: String,
    pub started_at: String,
    pub duration_ms: u64,
    pub last: bool,
}

impl From<&ChunkMeta> for DeadMeta {
    fn from(meta: &ChunkMeta) -> Self {
        Self {
            host: meta.host.to_string(),
            bytes: meta.bytes,
            digest: meta.digest.to_string(),
            media_type: meta.media_type.clone(),
            started_at: meta.started_at.to_string(),
            duration_ms: meta.duration_ms,
            last: meta.last,
        }
    }
}

impl DeadView {
    pub fn key(&self) -> ChunkKey {
        ChunkKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
            sequence: self.sequence,
        }
    }
}
