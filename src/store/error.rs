//! What the store refuses and what can go wrong in it.

use std::io;
use std::path::PathBuf;

use crate::model::{Digest, TenantId, Timestamp};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store {path} is held by {holder}", path = path.display())]
    Held {
        path: PathBuf,
        holder: String,
        pid: Option<u32>,
    },
    #[error("store {path} has format {found}; this worker reads up to {known}: install a newer one", path = path.display())]
    NewerFormat {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("store {path} belongs to host {pinned}; host.name is {given}", path = path.display())]
    OtherHost {
        path: PathBuf,
        pinned: String,
        given: String,
    },
    #[error("store {path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("store {path}: {message}", path = path.display())]
    Settings { path: PathBuf, message: String },
}

/// Why a chunk was not accepted. The source stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("unknown tenant {tenant:?}; configured: {configured}")]
    UnknownTenant { tenant: String, configured: String },
    #[error("the payload is empty")]
    Empty,
    #[error("the payload has {given} bytes; {expected} were announced")]
    LengthChanged { expected: u64, given: u64 },
    #[error("the payload is larger than max_chunk_bytes ({limit})")]
    TooLarge { limit: u64 },
    #[error("session {session} sequence {sequence} exists with other bytes (stored {stored}…, given {given}…)", stored = stored.short(), given = given.short())]
    Conflict {
        session: String,
        sequence: u64,
        stored: Digest,
        given: Digest,
    },
    #[error(
        "session {session} sequence {sequence} was accepted before and its digest is no longer known, so the bytes cannot be compared"
    )]
    CannotTell { session: String, sequence: u64 },
    #[error(
        "these bytes are sequence {sequence} of session {session}; to repeat them safely give --sequence {sequence}, to add them again give --append"
    )]
    Repeat { session: String, sequence: u64 },
    #[error(
        "session {session} has more than {limit} gaps in its sequences; end it and start another"
    )]
    TooManyGaps { session: String, limit: usize },
    #[error("sequence {sequence} is above the highest allowed one ({limit})")]
    SequenceTooHigh { sequence: u64, limit: u64 },
    #[error("the media type is longer than 255 characters or holds unprintable ones")]
    MediaType,
    #[error("{0}")]
    Full(Full),
    #[error("{0}")]
    Latched(Latched),
    #[error("payload read")]
    Payload(#[source] io::Error),
    #[error("store write")]
    Io(#[source] io::Error),
    #[error("the store is closing")]
    Closing,
}

/// A limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store full: {what}; {refused} more bytes refused; nothing was removed.{most}", refused = thousands(*refused))]
pub struct Full {
    /// Which limit, and by how much.
    pub what: String,
    pub refused: u64,
    /// ` Most is acme: 41 GiB`, or empty.
    pub most: String,
    /// Who holds most, for a caller that knows why.
    pub holder: Option<TenantId>,
}

/// The storage error that stops intake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "disk sync failed at {at}: {cause} (segment {segment}). Accepting nothing until a sync succeeds; {safe} earlier chunks are safe and still being delivered",
    safe = thousands(*safe)
)]
pub struct Latched {
    pub at: Timestamp,
    pub cause: String,
    pub segment: String,
    pub safe: u64,
}

/// Anything else that a verb of the store can meet.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store's index is lost ({cause}); it is rebuilt at the next start")]
    IndexLost { cause: String },
    #[error("store i/o")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Latched(Latched),
    #[error("the chunk's stored record is damaged")]
    Damaged,
    #[error("tenant {tenant} is pinned to organisation {pinned}; {given} is another one")]
    OtherOrganisation {
        tenant: TenantId,
        pinned: String,
        given: String,
    },
    #[error("the store is closing")]
    Closing,
}

/// `262,144`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_says_when_why_and_what_is_safe_word_for_word() {
        let latched = Latched {
            at: Timestamp::parse("2026-03-01T14:02:07Z").unwrap(),
            cause: "Input/output error".into(),
            segment: "000017".into(),
            safe: 1_204,
        };
        assert_eq!(
            latched.to_string(),
            "disk sync failed at 2026-03-01T14:02:07.000Z: Input/output error (segment 000017). Accepting nothing until a \
             sync succeeds; 1,204 earlier chunks are safe and still being delivered"
        );
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 17, 999, 1204, 262_144, 1_000_000].map(thousands);
        assert_eq!(shown, ["0", "17", "999", "1,204", "262,144", "1,000,000"]);
    }
}
