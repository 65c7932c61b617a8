//! The shared words for what went wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a lane talks to. A hold closes one of these, or all that use a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Uploads to the platform.
    Deliver,
    /// Metadata, verification and reports.
    Fetch,
    /// A presigned storage host.
    StoreHost,
}

/// What a failed request means. Decided once, by `platform::classify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A 2xx or 3xx that is no receipt: a proxy, a captive portal, another endpoint.
    Unrecognised,
    /// The token was not accepted.
    Unauthorized,
    /// A presigned URL ran out.
    UrlExpired,
    /// The token was accepted and lacks a right.
    Forbidden,
    /// The endpoint itself refuses: wrong path, method, plan or region.
    Endpoint,
    /// Too many requests; a hint may say when to come back.
    Throttled,
    /// 422 naming purview.
    PurviewPending,
    /// Bytes were sent and no verdict came.
    InDoubt,
    /// The platform will not take this chunk.
    Rejected,
    /// The platform received other bytes than the digest names.
    DigestMismatch,
    /// Network, timeout, torn response, 5xx.
    Transient,
    /// The chunk's own bytes fail their checksum.
    Damaged,
}

impl FailureClass {
    /// The word used in JSON, logs and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unrecognised => "unrecognised",
            Self::Unauthorized => "unauthorized",
            Self::UrlExpired => "url_expired",
            Self::Forbidden => "forbidden",
            Self::Endpoint => "endpoint",
            Self::Throttled => "throttled",
            Self::PurviewPending => "purview_pending",
            Self::InDoubt => "in_doubt",
            Self::Rejected => "rejected",
            Self::DigestMismatch => "digest_mismatch",
            Self::Transient => "transient",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The right that a refusal says is missing, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    Scope(String),
    Permission(String),
    Unnamed,
}

/// One failure of one chunk, as kept in its history and shown by `worker why`. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    pub at: Timestamp,
    pub class: FailureClass,
    /// HTTP status, if an answer came.
    pub status: Option<u16>,
    /// The platform's machine code, such as `bad.credentials`.
    pub code: Option<String>,
    pub correlation_id: Option<String>,
    /// `details[].fieldName` of the error body.
    pub fields: Vec<String>,
    pub missing: Option<Missing>,
    /// One sentence: the platform's message, or the I/O error.
    pub message: String,
    /// The first KiB of the error body, printable characters only.
    pub body: String,
    pub token_generation: Option<u64>,
    pub token_fingerprint: Option<String>,
    /// Which try of this chunk it was, from 1.
    pub attempt: u32,
    pub next_try_at: Option<Timestamp>,
}

/// Why a chunk became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The platform will not take it, and takes others.
    Rejected,
    /// Its retries are used up, over at least the minimum span.
    RetriesExhausted,
    /// Its bytes on disk are damaged.
    Damaged,
    /// Sending it ended the process too often.
    CrashedWorker,
    /// The record of why is damaged; the chunk itself is as it was.
    ReasonLost,
}

impl DeadReason {
    pub fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Damaged => "damaged",
            Self::CrashedWorker => "crashed_worker",
            Self::ReasonLost => "reason_lost",
        }
    }
}
