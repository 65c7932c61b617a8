//! Plain words: the nouns that every other part speaks in. No clock, no I/O, no async, no logging.

mod chunk;
mod digest;
mod failure;
mod ids;
mod lifecycle;
mod recording;
mod snapshot;
mod time;
mod token;

pub use chunk::{ChunkKey, ChunkMeta, Gap, GapReason};
pub use digest::{Digest, DigestParseError};
pub use failure::{DeadReason, FailureClass, FailureRecord, Missing, Route};
pub use ids::{HostName, IdError, RecordingId, SessionId, SessionKey, TenantId};
pub use lifecycle::ChunkState;
pub use recording::{RecordingCounts, RecordingFacts, RecordingState};
pub use snapshot::{
    Balance, Count, Counts, DiskUse, GapWaitView, GateState, GateView, HoldView, PAUSED, PaceView,
    Snapshot, TenantView, TokenView, WorkersView, is_zero,
};
pub use time::{Timestamp, TimestampError};
pub use token::{Generation, Token};
