//! Accepting a chunk: read, check and hash in the producer's thread, then one commit.

use std::io::{self, Read};
use std::path::PathBuf;

use super::error::EnqueueError;
use super::frame;
use super::handover::Inside;
use super::inner::{Inner, solo_name};
use super::known::{compare, refuse_repeat};
use super::layout::{BLOCK, Layout};
use super::queue::{ChunkRequest, Committed};
use super::types::{Enqueued, NewChunk, Origin, Outcome, SequenceChoice};
use crate::model::{ChunkKey, ChunkMeta, DeadReason, Digest, SessionKey};

/// Leaves room for arithmetic on sequences everywhere.
const SEQUENCE_MAX: u64 = 1 << 53;
const MEDIA_TYPE_MAX: usize = 255;

/// A payload that was read to its end.
struct Gathered<'a> {
    /// From here on it is at most a moment until the committer has it.
    inside: Inside<'a>,
    bytes: u64,
    digest: Digest,
    /// Empty for a solo.
    payload: Vec<u8>,
    block_crcs: Vec<u8>,
    solo: Option<u64>,
}

pub fn enqueue(
    inner: &Inner,
    chunk: NewChunk,
    origin: Option<Origin>,
    payload: &mut dyn Read,
) -> Result<Enqueued, EnqueueError> {
    check(inner, &chunk)?;
    let gathered = gather(inner, &chunk, payload)?;
    let solo = gathered.solo;
    let answer = settle(inner, chunk, origin, gathered);
    let accepted = matches!(
        &answer,
        Ok(Enqueued {
            outcome: Outcome::Accepted,
            ..
        })
    );
    // After a latch nobody knows whether the frame reached the disk; a file too many is removed at the next open.
    let unsure = matches!(
        &answer,
        Err(EnqueueError::Latched(_) | EnqueueError::Closing)
    );
    if let Some(solo) = solo
        && !accepted
        && !unsure
        && let Err(error) = inner.disk.remove(&inner.solo_path(solo))
    {
        tracing::warn!(file = solo_name(solo), %error, "payload file of a refused chunk stays");
    }
    answer
}

fn check(inner: &Inner, chunk: &NewChunk) -> Result<(), EnqueueError> {
    let tenants = &inner.settings.tenants;
    if !tenants.contains(&chunk.tenant) {
        let names: Vec<&str> = tenants.iter().map(|tenant| tenant.as_str()).collect();
        return Err(EnqueueError::UnknownTenant {
            tenant: chunk.tenant.to_string(),
            configured: names.join(", "),
        });
    }
    if let Some(latched) = inner.latched() {
        return Err(EnqueueError::Latched(latched));
    }
    if let SequenceChoice::Exactly(sequence) = chunk.sequence
        && sequence > SEQUENCE_MAX
    {
        return Err(EnqueueError::SequenceTooHigh {
            sequence,
            limit: SEQUENCE_MAX,
        });
    }
    let visible = |c: char| c.is_ascii_graphic() || c == ' ';
    if chunk.media_type.len() > MEDIA_TYPE_MAX || !chunk.media_type.chars().all(visible) {
        return Err(EnqueueError::MediaType);
    }
    if let Some(length) = chunk.length {
        if length > inner.settings.max_chunk_bytes {
            return Err(EnqueueError::TooLarge {
                limit: inner.settings.max_chunk_bytes,
            });
        }
        admit(inner, chunk, length)?;
    }
    Ok(())
}

/// Room for so many bytes of this chunk. One that was accepted before needs none: its producer wants to hear so.
fn admit(inner: &Inner, chunk: &NewChunk, bytes: u64) -> Result<(), EnqueueError> {
    if let SequenceChoice::Exactly(sequence) = chunk.sequence {
        let session = SessionKey {
            tenant: chunk.tenant.clone(),
            session: chunk.session.clone(),
        };
        let sessions = inner.sessions();
        let known = sessions.by_key.get(&session);
        if known.is_some_and(|state| state.accepted.contains(sequence)) {
            return Ok(());
        }
    }
    inner
        .admit(&chunk.tenant, bytes)
        .map_err(|full| EnqueueError::Full(*full))
}

fn gather<'a>(
    inner: &'a Inner,
    chunk: &NewChunk,
    payload: &mut dyn Read,
) -> Result<Gathered<'a>, EnqueueError> {
    let inline_max = Layout {
        segment_bytes: inner.settings.segment_bytes,
    }
    .inline_max();
    let mut buffer = Vec::with_capacity(chunk.length.unwrap_or(0).min(inline_max) as usize + 1);
    payload
        .take(inline_max + 1)
        .read_to_end(&mut buffer)
        .map_err(EnqueueError::Payload)?;
    if buffer.len() as u64 <= inline_max {
        let gathered = Gathered {
            inside: inner.commits.producers.enter(),
            bytes: buffer.len() as u64,
            digest: Digest::of(&buffer),
            block_crcs: frame::block_checksums(&buffer),
            payload: buffer,
            solo: None,
        };
        check_length(inner, chunk, gathered.bytes)?;
        if chunk.length.is_none() {
            admit(inner, chunk, gathered.bytes)?;
        }
        return Ok(gathered);
    }
    let solo = super::roll::fresh_nonce();
    let written = write_solo(inner, chunk, solo, buffer, payload);
    if written.is_err() {
        // It may not even exist.
        let _ = inner.disk.remove(&inner.solo_path(solo));
    }
    written
}

fn check_length(inner: &Inner, chunk: &NewChunk, given: u64) -> Result<(), EnqueueError> {
    if given == 0 {
        return Err(EnqueueError::Empty);
    }
    if given > inner.settings.max_chunk_bytes {
        return Err(EnqueueError::TooLarge {
            limit: inner.settings.max_chunk_bytes,
        });
    }
    match chunk.length {
        Some(expected) if expected != given => Err(EnqueueError::LengthChanged { expected, given }),
        _ => Ok(()),
    }
}

/// Streams a large payload into its own file, block by block, and makes it durable.
fn write_solo<'a>(
    inner: &'a Inner,
    chunk: &NewChunk,
    solo: u64,
    mut buffer: Vec<u8>,
    payload: &mut dyn Read,
) -> Result<Gathered<'a>, EnqueueError> {
    let path: PathBuf = inner.solo_path(solo);
    let file = inner.disk.create(&path).map_err(EnqueueError::Io)?;
    let mut hasher = blake3::Hasher::new();
    let mut crcs = Vec::new();
    let mut bytes = 0;
    loop {
        // Whole blocks, so that the checksums fall on their borders; the first pass has a megabyte at hand.
        let whole = buffer.len() / BLOCK * BLOCK;
        let ended = whole == 0;
        let piece = if ended { &buffer[..] } else { &buffer[..whole] };
        hasher.update(piece);
        crcs.extend(frame::block_checksums(piece));
        admit(inner, chunk, bytes + piece.len() as u64)?;
        file.write_at(&[piece], bytes).map_err(EnqueueError::Io)?;
        file.begin_writing(bytes, piece.len() as u64);
        bytes += piece.len() as u64;
        if bytes > inner.settings.max_chunk_bytes {
            return Err(EnqueueError::TooLarge {
                limit: inner.settings.max_chunk_bytes,
            });
        }
        if ended {
            break;
        }
        buffer.drain(..whole);
        let wanted = (4 * BLOCK - buffer.len()) as u64;
        (&mut *payload)
            .take(wanted)
            .read_to_end(&mut buffer)
            .map_err(EnqueueError::Payload)?;
    }
    check_length(inner, chunk, bytes)?;
    file.write_at(&[&crcs], bytes).map_err(EnqueueError::Io)?;
    file.sync().map_err(EnqueueError::Io)?;
    inner
        .disk
        .sync_dir(&inner.segments_dir())
        .map_err(EnqueueError::Io)?;
    let digest = Digest(*hasher.finalize().as_bytes());
    Ok(Gathered {
        inside: inner.commits.producers.enter(),
        bytes,
        digest,
        payload: Vec::new(),
        block_crcs: Vec::new(),
        solo: Some(solo),
    })
}

/// One commit, or the answer for a sequence that was accepted before.
fn settle(
    inner: &Inner,
    chunk: NewChunk,
    origin: Option<Origin>,
    gathered: Gathered<'_>,
) -> Result<Enqueued, EnqueueError> {
    let sequence = match chunk.sequence {
        SequenceChoice::Exactly(sequence) => sequence,
        SequenceChoice::Next { .. } => 0,
    };
    let mut key = ChunkKey {
        tenant: chunk.tenant,
        session: chunk.session,
        sequence,
    };
    if let SequenceChoice::Next {
        refuse_repeat: true,
    } = chunk.sequence
    {
        refuse_repeat(inner, &key, gathered.digest)?;
    }
    let lost = inner.is_lost(&key);
    let replaces = lost || is_damaged(inner, &key);
    let Gathered {
        inside,
        bytes,
        digest,
        payload,
        block_crcs,
        solo,
    } = gathered;
    let accepted_at = origin.as_ref().map(|origin| origin.accepted_at);
    let meta = ChunkMeta {
        key: key.clone(),
        host: origin.map_or_else(|| inner.settings.host.clone(), |origin| origin.host),
        started_at: chunk.started_at,
        duration_ms: chunk.duration_ms,
        media_type: chunk.media_type,
        last: chunk.last,
        bytes,
        digest,
    };
    let request = ChunkRequest {
        meta,
        choice: chunk.sequence,
        block_crcs,
        payload,
        solo,
        replaces,
        accepted_at,
    };
    let answer = inner.commits.chunk(request)?;
    let answer = answer.recv();
    drop(inside);
    match answer.unwrap_or(Err(EnqueueError::Closing))? {
        Committed::Accepted(sequence) => {
            key.sequence = sequence;
            if lost {
                inner.is_given_again(&key);
            }
            if replaces && let Err(error) = super::dead::purge_replaced(inner, &key) {
                tracing::warn!(chunk = %key, %error, "replaced, and still listed as dead");
                inner.owe_purge(key.clone());
            }
            Ok(Enqueued {
                key,
                bytes,
                digest,
                outcome: Outcome::Accepted,
            })
        }
        Committed::Member => compare(inner, key, bytes, digest),
    }
}

/// A chunk that was set aside because its stored bytes are damaged may be given again.
fn is_damaged(inner: &Inner, key: &ChunkKey) -> bool {
    let notes = inner.notes();
    notes
        .burials
        .get(key)
        .is_some_and(|burial| burial.reason == DeadReason::Damaged)
}

impl From<io::Error> for EnqueueError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
