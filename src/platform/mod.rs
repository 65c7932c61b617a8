//! What stands between a leased chunk and the cloud: transports, wire shapes and the classification
//! of every answer.

mod binary;
mod body;
mod challenge;
mod checksum;
mod classify;
mod client;
mod error_body;
mod exchange;
pub mod fetch;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod json;
mod key;
mod limits;
mod md5;
mod owner;
mod presigned;
mod printable;
mod progress;
mod receipt;
pub mod region;
#[cfg(test)]
mod tests;
mod websocket;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Payload;
use crate::model::{ChunkMeta, FailureRecord, Gap, RecordingId, Route, TenantId, Timestamp, Token};

pub use binary::BinaryPlatform;
pub use json::JsonPlatform;
pub use key::{part_key, request_key};
pub use owner::{OWNER_PATH, Owner, owner};
pub use presigned::PresignedPlatform;
pub use progress::Timeouts;
pub use websocket::{Patience, WebsocketPlatform};

/// Where and how one tenant's chunks are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub tenant: TenantId,
    /// Scheme, host and optional prefix, without a trailing slash.
    pub api_url: String,
    /// Starts with a slash.
    pub path: String,
    pub receipt: ReceiptPolicy,
}

/// What counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiptPolicy {
    /// A body that echoes session, sequences and digests.
    #[default]
    Body,
    /// Any of 200, 201, 208: for platforms that echo nothing.
    Status,
}

/// One chunk of a request. Its payload is read by blocking threads, block by block.
pub struct Part {
    pub meta: ChunkMeta,
    pub payload: Box<dyn Payload>,
}

/// One request: contiguous parts of one session.
pub struct Delivery {
    pub target: Arc<Target>,
    pub token: Token,
    /// At least one; lowest sequence first.
    pub parts: Vec<Part>,
    pub gaps: Vec<Gap>,
    pub late: bool,
    /// Which try of the first part it is, from 1.
    pub attempt: u32,
    pub at: Timestamp,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a request, taken apart at once"
)]
pub enum Verdict {
    /// A receipt names every part.
    Delivered {
        /// Some part was stored before.
        duplicate: bool,
    },
    Failed(Failure),
}

/// A classified failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `at`, `attempt`, token fields and class are filled in; `next_try_at` is the engine's.
    pub record: FailureRecord,
    /// The server's hint, as a span from the answer; clamped to 24 h.
    pub retry_after: Option<Duration>,
    /// Evidence against this very chunk when its class is `Rejected`: another writer used its key.
    pub conflict: bool,
    /// Who failed, or was not reached.
    pub route: Route,
}

/// The request budget that a response's headers tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub allowed: Option<u64>,
    pub remaining: Option<u64>,
    pub reset_in: Option<Duration>,
}

/// A verdict and what its response said of the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub limits: Limits,
    /// The recording that the chunks belong to, where a receipt says so.
    pub recording: Option<RecordingId>,
}

pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A question after uploads that were stored.
#[derive(Debug, Clone)]
pub struct Inquiry {
    pub target: Arc<Target>,
    pub token: Token,
    /// The keys of their parts.
    pub keys: Vec<String>,
    pub at: Timestamp,
}

/// What became of one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingestion {
    Done,
    Pending,
    /// It will not be taken in as it was stored.
    Refused(Box<FailureRecord>),
}

/// What came of an inquiry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a question, taken apart at once"
)]
pub enum Reported {
    /// One for each key, in their order.
    Told(Vec<Ingestion>),
    Failed(Failure),
}

/// With what its answer said of the limits.
pub type Reporting<'a> = Pin<Box<dyn Future<Output = (Reported, Limits)> + Send + 'a>>;

/// The cloud, as the engine sees it. Dropping the future aborts the request: it is then in doubt.
pub trait Platform: Send + Sync + 'static {
    fn deliver(&self, delivery: Delivery) -> Answering<'_>;

    /// How often to ask what became of stored uploads. `None`: a receipt is the last word.
    fn confirms(&self) -> Option<Duration> {
        None
    }

    /// What became of uploads. Asked only where [`Platform::confirms`] says so.
    fn report(&self, inquiry: Inquiry) -> Reporting<'_> {
        let pending = inquiry.keys.iter().map(|_| Ingestion::Pending).collect();
        let told = (Reported::Told(pending), Limits::default());
        Box::pin(std::future::ready(told))
    }
}
