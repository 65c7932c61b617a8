//! What producers wait for the committer with.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::error::{EnqueueError, Latched, StoreError};
use super::handover::{Gathering, Waits};
use super::moving::{Copied, CopyRequest};
use super::record::Note;
use super::types::SequenceChoice;
use crate::model::{ChunkMeta, TenantId, Timestamp};

/// A chunk whose bytes are ready to be written.
pub struct ChunkRequest {
    /// The sequence is filled in by the committer if `choice` leaves it open.
    pub meta: ChunkMeta,
    pub choice: SequenceChoice,
    pub block_crcs: Vec<u8>,
    /// Empty for a solo.
    pub payload: Vec<u8>,
    pub solo: Option<u64>,
    /// The stored bytes of this very key are damaged: these take their place.
    pub replaces: bool,
    /// When another host accepted it; `None`: now.
    pub accepted_at: Option<Timestamp>,
}

/// What became of a chunk request.
pub enum Committed {
    Accepted(u64),
    /// The sequence was accepted before: compare the digests.
    Member,
}

pub enum Request {
    Chunk(
        Box<ChunkRequest>,
        SyncSender<Result<Committed, EnqueueError>>,
    ),
    Note(Box<Note>, SyncSender<Result<NoteAt, StoreError>>),
    Copy(Box<CopyRequest>, SyncSender<Result<Copied, StoreError>>),
}

/// Where a note was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteAt {
    pub segment: super::layout::SegmentId,
    pub start: u32,
}

impl Waits for Request {
    fn bytes(&self) -> u64 {
        match self {
            Self::Chunk(chunk, _) => chunk.payload.len() as u64 + 512,
            Self::Copy(copy, _) => copy.frame.bytes(),
            Self::Note(..) => 512,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Chunk(chunk, _) => Some(&chunk.meta.key.tenant),
            Self::Copy(copy, _) => Some(&copy.source.meta.key.tenant),
            Self::Note(..) => None,
        }
    }
}

impl Request {
    pub fn latched(self, latched: &Latched) {
        match self {
            Self::Chunk(_, reply) => drop(reply.send(Err(EnqueueError::Latched(latched.clone())))),
            Self::Note(_, reply) => drop(reply.send(Err(StoreError::Latched(latched.clone())))),
            Self::Copy(_, reply) => drop(reply.send(Err(StoreError::Latched(latched.clone())))),
        }
    }
}

/// Where producers wait for the committer.
pub type CommitQueue = Gathering<Request>;

impl CommitQueue {
    pub fn chunk(
        &self,
        chunk: ChunkRequest,
    ) -> Result<Receiver<Result<Committed, EnqueueError>>, EnqueueError> {
        let (reply, answer) = sync_channel(1);
        let request = Request::Chunk(Box::new(chunk), reply);
        self.submit(request).map_err(|()| EnqueueError::Closing)?;
        Ok(answer)
    }

    /// Writes a note durably.
    pub fn note(&self, note: Note) -> Result<NoteAt, StoreError> {
        let _inside = self.producers.enter();
        let (reply, answer) = sync_channel(1);
        self.submit(Request::Note(Box::new(note), reply))
            .map_err(|()| StoreError::Closing)?;
        answer.recv().unwrap_or(Err(StoreError::Closing))
    }

    /// Writes a frame once more, as it is.
    pub fn copy(
        &self,
        copy: CopyRequest,
    ) -> Result<Receiver<Result<Copied, StoreError>>, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.submit(Request::Copy(Box::new(copy), reply))
            .map_err(|()| StoreError::Closing)?;
        Ok(answer)
    }
}
