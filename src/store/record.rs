//! Versioned records: a version byte, then bincode 1.3.3 with fixed-width little-endian integers, a bound and no trailing
//! bytes. A changed record is a new version; old ones decode for ever. The only user of bincode.

use bincode::Options;
use serde::{Deserialize, Serialize};

use super::layout::SegmentId;
use super::types::HoldKey;
use crate::clock::Deadline;
use crate::model::{
    ChunkKey, ChunkMeta, DeadReason, Digest, FailureRecord, HostName, SessionId, SessionKey,
    TenantId, Timestamp,
};

/// No record is larger, whatever its bytes claim.
pub const RECORD_MAX: u64 = 64 << 10;
/// A dead letter keeps at most so much of its history.
const HISTORY_RECORDS: usize = 8;
const HISTORY_BYTES: usize = 4 << 10;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record is empty")]
    Empty,
    #[error("record version {0} is newer than this program")]
    NewerVersion(u8),
    #[error("record does not decode")]
    Malformed,
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(limit)
        .reject_trailing_bytes()
}

/// Encodes with a version byte in front.
pub fn encode<T: Serialize>(version: u8, value: &T, limit: u64) -> Vec<u8> {
    let mut bytes = vec![version];
    options(limit)
        .serialize_into(&mut bytes, value)
        .expect("every field is bounded before a record is built");
    bytes
}

/// Decodes what [`encode`] wrote, if it has this version.
pub fn decode<'a, T: Deserialize<'a>>(
    version: u8,
    bytes: &'a [u8],
    limit: u64,
) -> Result<T, RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&found, _)) if found > version => Err(RecordError::NewerVersion(found)),
        Some((&found, rest)) if found == version => options(limit)
            .deserialize(rest)
            .map_err(|_| RecordError::Malformed),
        Some(_) => Err(RecordError::Malformed),
    }
}

/// A chunk's metadata as written; lengths and the moment of acceptance stand in the frame's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord {
    tenant: TenantId,
    host: HostName,
    session: SessionId,
    sequence: u64,
    started_at: Timestamp,
    duration_ms: u64,
    media_type: String,
    last: bool,
    digest: [u8; 32],
}

impl ChunkRecord {
    const VERSION: u8 = 1;

    pub fn encode(meta: &ChunkMeta) -> Vec<u8> {
        let record = Self {
            tenant: meta.key.tenant.clone(),
            host: meta.host.clone(),
            session: meta.key.session.clone(),
            sequence: meta.key.sequence,
            started_at: meta.started_at,
            duration_ms: meta.duration_ms,
            media_type: meta.media_type.clone(),
            last: meta.last,
            digest: meta.digest.0,
        };
        encode(Self::VERSION, &record, RECORD_MAX)
    }

    pub fn decode(bytes: &[u8], payload_bytes: u64) -> Result<ChunkMeta, RecordError> {
        let record: Self = decode(Self::VERSION, bytes, RECORD_MAX)?;
        Ok(ChunkMeta {
            key: ChunkKey {
                tenant: record.tenant,
                session: record.session,
                sequence: record.sequence,
            },
            host: record.host,
            started_at: record.started_at,
            duration_ms: record.duration_ms,
            media_type: record.media_type,
            last: record.last,
            bytes: payload_bytes,
            digest: Digest(record.digest),
        })
    }
}

/// The same as it stands in its bytes; names are not looked at.
#[derive(Debug, Deserialize)]
pub struct RawChunk<'a> {
    pub tenant: &'a str,
    pub host: &'a str,
    pub session: &'a str,
    pub sequence: u64,
    _started_at: Timestamp,
    _duration_ms: u64,
    _media_type: &'a str,
    pub last: bool,
    pub digest: [u8; 32],
}

impl<'a> RawChunk<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        decode(ChunkRecord::VERSION, bytes, RECORD_MAX)
    }
}

/// Where a chunk's frame and word are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    pub segment: SegmentId,
    pub ordinal: u32,
}

/// What a word cannot hold. A note about a chunk carries the word version that it makes true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The chunk is a dead letter.
    Bury(Burial),
    /// The dead letter is owed again.
    Redrive {
        at: Location,
        version: u16,
    },
    /// The dead letter was removed by a person.
    Purge {
        at: Location,
        version: u16,
    },
    Hold(Hold),
    HoldEnd(HoldKey),
    /// The capture side said that nothing more is to come. Since version 2.
    SessionEnd {
        session: SessionKey,
        at: Timestamp,
    },
}

/// A hold of a lane, as it survives restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub key: HoldKey,
    pub set_at: Timestamp,
    /// `None`: until it is removed.
    pub until: Option<Deadline>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burial {
    pub at: Location,
    pub version: u16,
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: u64,
    pub reason: DeadReason,
    pub died_at: Timestamp,
    pub history: Vec<FailureRecord>,
}

impl Burial {
    pub fn key(&self) -> ChunkKey {
        ChunkKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
            sequence: self.sequence,
        }
    }
}

impl Note {
    const VERSION: u8 = 2;
    /// The same, but for what it did not know yet.
    const FIRST: u8 = 1;

    pub fn encode(&self) -> Vec<u8> {
        encode(Self::VERSION, self, RECORD_MAX)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let version = match bytes.first() {
            Some(&Self::FIRST) => Self::FIRST,
            _ => Self::VERSION,
        };
        decode(version, bytes, RECORD_MAX)
    }
}

/// The youngest failures that fit a dead letter's bound, oldest first.
pub fn bounded_history(mut history: Vec<FailureRecord>) -> Vec<FailureRecord> {
    let surplus = history.len().saturating_sub(HISTORY_RECORDS);
    history.drain(..surplus);
    let size = |records: &[FailureRecord]| {
        bincode::DefaultOptions::new()
            .with_fixint_encoding()
            .serialized_size(records)
            .map_or(usize::MAX, |bytes| bytes as usize)
    };
    while history.len() > 1 && size(&history) > HISTORY_BYTES {
        history.remove(0);
    }
    if let Some(only) = history.first_mut()
        && size(std::slice::from_ref(only)) > HISTORY_BYTES
    {
        only.body.clear();
        only.fields.truncate(8);
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureClass;

    fn meta() -> ChunkMeta {
        ChunkMeta {
            key: ChunkKey {
                tenant: "acme".parse().unwrap(),
                session: "s1".parse().unwrap(),
                sequence: 7,
            },
            host: "rec-017".parse().unwrap(),
            started_at: Timestamp(1_772_359_200_000),
            duration_ms: 30_000,
            media_type: "video/mp4".into(),
            last: true,
            bytes: 3,
            digest: Digest::of(b"abc"),
        }
    }

    #[test]
    fn metadata_reads_back_and_refuses_what_follows_or_is_missing() {
        let bytes = ChunkRecord::encode(&meta());
        assert_eq!(ChunkRecord::decode(&bytes, 3), Ok(meta()));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(ChunkRecord::decode(&longer, 3), Err(RecordError::Malformed));
        assert_eq!(
            ChunkRecord::decode(&bytes[..bytes.len() - 1], 3),
            Err(RecordError::Malformed)
        );
        assert_eq!(ChunkRecord::decode(&[], 3), Err(RecordError::Empty));
        assert_eq!(
            ChunkRecord::decode(&[2, 0], 3),
            Err(RecordError::NewerVersion(2))
        );
    }

    /// The first released encoding: these bytes decode for ever.
    #[test]
    fn version_1_metadata_is_what_it_always_was() {
        let bytes = ChunkRecord::encode(&meta());
        let expected_start = [1, 4, 0, 0, 0, 0, 0, 0, 0, b'a', b'c', b'm', b'e', 7, 0];
        assert_eq!(bytes[..15], expected_start);
        assert_eq!(bytes.len(), 1 + 12 + 15 + 10 + 8 + 8 + 8 + 17 + 1 + 32);
    }

    /// The first encoding of each note: these bytes decode for ever.
    #[test]
    fn version_1_notes_are_what_they_always_were() {
        let at = Location {
            segment: SegmentId(3),
            ordinal: 9,
        };
        let key = HoldKey {
            tenant: "acme".parse().unwrap(),
            name: "operator".into(),
        };
        let purge = [1, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 5, 0];
        let mut end = vec![1, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        end.extend(b"acme\x08\0\0\0\0\0\0\0operator");
        assert_eq!(Note::decode(&purge), Ok(Note::Purge { at, version: 5 }));
        assert_eq!(Note::decode(&end), Ok(Note::HoldEnd(key)));
        assert_eq!(Note::decode(&[3, 0]), Err(RecordError::NewerVersion(3)));
    }

    #[test]
    fn a_name_that_was_never_valid_does_not_decode() {
        let mut bytes = ChunkRecord::encode(&meta());
        bytes[9] = b'/';
        assert_eq!(ChunkRecord::decode(&bytes, 3), Err(RecordError::Malformed));
    }

    #[test]
    fn a_history_keeps_its_youngest_within_the_bound() {
        let record = |attempt| FailureRecord {
            at: Timestamp(0),
            class: FailureClass::Transient,
            status: Some(503),
            code: None,
            correlation_id: None,
            fields: vec![],
            missing: None,
            message: "x".repeat(700),
            body: "y".repeat(500),
            token_generation: None,
            token_fingerprint: None,
            attempt,
            next_try_at: None,
        };
        let kept = bounded_history((0..20).map(record).collect());
        assert_eq!(kept.last().map(|r| r.attempt), Some(19));
        assert!((1..=3).contains(&kept.len()), "{}", kept.len());
        let mut huge = record(1);
        huge.body = "z".repeat(10_000);
        assert_eq!(bounded_history(vec![huge]).len(), 1);
    }
}
