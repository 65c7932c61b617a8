//! What was accepted before: whether a chunk is a repeat, and what became of it. The index tells; the digest of a chunk that is
//! still owed stands in its frame.

use std::time::Duration;

use super::error::EnqueueError;
use super::index::{Known, Owed};
use super::inner::Inner;
use super::recover::read_chunk;
use super::types::{Enqueued, Outcome};
use super::word::Slot;
use crate::model::{ChunkKey, ChunkMeta, ChunkState, Digest, SessionKey};

/// How long a digest is waited for before the answer is "cannot tell".
const DIGEST_PATIENCE: Duration = Duration::from_secs(1);
/// Digests of a session that a repeat is looked for in.
const REPEAT_WINDOW: usize = 64;

/// Refuses what a session has among its youngest already.
pub fn refuse_repeat(inner: &Inner, key: &ChunkKey, digest: Digest) -> Result<(), EnqueueError> {
    let session = key.session_key();
    let asked = session.clone();
    let may_be = inner.index.ask_briefly(DIGEST_PATIENCE, move |tables| {
        tables.repeats(&asked, digest, REPEAT_WINDOW)
    });
    // Without the index there is no memory of digests, and adding is what was asked for.
    let found = may_be.unwrap_or_default().into_iter().find_map(|known| {
        let known = match known {
            Known::Settled(seen) => (seen.sequence, Digest(seen.digest)),
            Known::Owed(owed) => (owed.sequence, owed_digest(inner, &session, &owed)?),
        };
        (known.1 == digest).then_some(known)
    });
    match found {
        Some((sequence, _)) => Err(EnqueueError::Repeat {
            session: key.session.to_string(),
            sequence,
        }),
        None => Ok(()),
    }
}

/// Same digest: known. Another: conflict. None to be had: the source must stay.
pub fn compare(
    inner: &Inner,
    key: ChunkKey,
    bytes: u64,
    given: Digest,
) -> Result<Enqueued, EnqueueError> {
    let (session, sequence) = (key.session.to_string(), key.sequence);
    match known_digest(inner, &key) {
        Some(stored) if stored == given => {
            let outcome = Outcome::Known(state_of(inner, &key));
            Ok(Enqueued {
                key,
                bytes,
                digest: given,
                outcome,
            })
        }
        Some(stored) => Err(EnqueueError::Conflict {
            session,
            sequence,
            stored,
            given,
        }),
        None => Err(EnqueueError::CannotTell { session, sequence }),
    }
}

fn known_digest(inner: &Inner, key: &ChunkKey) -> Option<Digest> {
    // A chunk may be settled, and its segment go, between the question and the look at its frame: then the next answer
    // has the digest.
    for _ in 0..2 {
        let asked = key.clone();
        let indexed = inner
            .index
            .ask_briefly(DIGEST_PATIENCE, move |tables| tables.known(&asked));
        match indexed {
            Ok(Some(Known::Settled(seen))) => return Some(Digest(seen.digest)),
            Ok(Some(Known::Owed(owed))) => {
                let digest = owed_digest(inner, &key.session_key(), &owed);
                if digest.is_some() {
                    return digest;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    // A dead letter's frame is found without the index.
    let at = inner.notes().burials.get(key)?.at;
    let slot = inner.slot(at.segment)?;
    let Slot::Word(word) = slot.segment.read_word(at.ordinal).ok()? else {
        return None;
    };
    read_chunk(&slot.segment.read_frame(word.start).ok()?).map(|meta| meta.digest)
}

/// The digest of a chunk that the index owes, from its frame. `None`: it does not read back, or is another's.
pub fn owed_digest(inner: &Inner, session: &SessionKey, owed: &Owed) -> Option<Digest> {
    let slot = inner.slot(owed.segment)?;
    let meta: ChunkMeta = read_chunk(&slot.segment.read_frame(owed.start).ok()?)?;
    let same = meta.key.session_key() == *session && meta.key.sequence == owed.sequence;
    same.then_some(meta.digest)
}

fn state_of(inner: &Inner, key: &ChunkKey) -> ChunkState {
    if inner.notes().burials.contains_key(key) {
        return ChunkState::Dead;
    }
    let asked = key.clone();
    let found = inner.index.ask_briefly(DIGEST_PATIENCE, move |tables| {
        let owed = tables.owed(&asked.session_key(), asked.sequence)?.is_some();
        Ok((owed, tables.is_purged(&asked)?))
    });
    match found {
        Ok((true, _)) => ChunkState::Live,
        Ok((false, true)) => ChunkState::Purged,
        Ok((false, false)) => ChunkState::Delivered,
        // The index knew the digest a moment ago and is lost now.
        Err(_) => ChunkState::Live,
    }
}
