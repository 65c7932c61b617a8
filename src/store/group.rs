//! Several chunks of a session for one request: each has a lease of its own and is settled by its own word.

use super::error::StoreError;
use super::head::{describe_following, disagrees, following};
use super::lease::{Lease, give_back};
use super::recover::read_chunk;
use super::types::Head;
use crate::model::ChunkMeta;

impl Lease {
    /// Leases the chunk directly behind this one as well, if it is owed, reads back, and `admits` says that it may come
    /// along. The session is free again when the last of its leases ends.
    ///
    /// # Errors
    /// The index is lost or disagrees, or a word cannot be read.
    pub fn following(
        &self,
        admits: impl FnOnce(&Head, &ChunkMeta) -> bool,
    ) -> Result<Option<Lease>, StoreError> {
        {
            let mut sessions = self.inner.sessions();
            let state = sessions.entry(&self.session);
            if state.owed <= u64::from(state.leased) {
                return Ok(None);
            }
            state.leased += 1;
        }
        let taken = self.take_following(admits);
        if !matches!(taken, Ok(Some(_))) {
            give_back(&self.inner, &self.session);
        }
        taken
    }

    fn take_following(
        &self,
        admits: impl FnOnce(&Head, &ChunkMeta) -> bool,
    ) -> Result<Option<Lease>, StoreError> {
        let (inner, session) = (&self.inner, &self.session);
        let Some(sequence) = self.owed.sequence.checked_add(1) else {
            return Ok(None);
        };
        let Some(found) = following(inner, session, sequence)? else {
            return Ok(None);
        };
        let frame = found.slot.segment.read_frame(found.owed.start).ok();
        let meta = frame.as_ref().and_then(read_chunk);
        let (Some(frame), Some(meta)) = (frame, meta) else {
            // Damaged: it is set aside when its own turn comes.
            return Ok(None);
        };
        if meta.key.session_key() != *session || meta.key.sequence != sequence {
            return Err(disagrees(inner, session, "a row points to another chunk"));
        }
        let head = describe_following(inner, session, &found.owed, &found.word);
        if !admits(&head, &meta) {
            return Ok(None);
        }
        Ok(Some(Lease::of(inner, found, frame, meta, head)))
    }
}
