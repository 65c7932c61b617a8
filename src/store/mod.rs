//! The durable queue: a journal of segments that holds every fact that must survive, a small ledger of what the
//! journal has retired, and a sled index behind both, from which everything is leased.
//!
//! All calls block; async callers go through `spawn_blocking`.

mod error;
mod types;

pub use error::{EnqueueError, OpenError, StoreError};
pub use types::{
    Damage, DeadFilter, DeadLetter, Enqueued, FsckReport, Head, HoldKey, IndexCheck, NewChunk,
    Outcome, Redriven, SequenceChoice, Settings, StoreView, StoredHold, TenantCounts,
};

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{ChunkKey, ChunkMeta, DeadReason, FailureRecord, SessionKey, TenantId};

/// The open store. Cheap to clone; the last [`Store::close`] or drop closes it.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates the store and takes its lock. Creates no segment until something is written.
    pub fn open(
        _dir: &Path,
        _settings: Settings,
        _clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        unreachable!()
    }

    /// Durable when it returns `Ok`. Reads `payload` to its end, in this thread.
    pub fn enqueue(
        &self,
        _chunk: NewChunk,
        _payload: &mut dyn Read,
    ) -> Result<Enqueued, EnqueueError> {
        unreachable!()
    }

    /// Called from the store's threads when sessions got work; must not block.
    pub fn on_arrival(&self, _wake: Box<dyn Fn() + Send + Sync>) {
        unreachable!()
    }

    /// Sessions that got work since the last call; after open, all that are owed. Each at most once.
    pub fn take_arrivals(&self) -> Vec<SessionKey> {
        unreachable!()
    }

    /// The lowest owed sequence of a session that is not leased, with what the engine decides by.
    pub fn head(&self, _session: &SessionKey) -> Result<Option<Head>, StoreError> {
        unreachable!()
    }

    /// Leases the head, whatever its delay. `None`: nothing owed, or another lease of the session is out.
    pub fn lease(&self, _session: &SessionKey) -> Result<Option<Lease>, StoreError> {
        unreachable!()
    }

    /// Chunks of the tenant with an enqueue number at most `number` that are neither delivered, dead nor purged, and
    /// chunks below those in their sessions: what a drain's fence still encloses.
    pub fn owed_through(&self, _tenant: &TenantId, _number: u64) -> Result<u64, StoreError> {
        unreachable!()
    }

    /// The highest enqueue number given so far; 0 if none.
    pub fn last_number(&self) -> u64 {
        unreachable!()
    }

    pub fn dead(&self, _filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError> {
        unreachable!()
    }

    /// Dead becomes live again; durable when it returns.
    pub fn redrive(&self, _key: &ChunkKey) -> Result<Redriven, StoreError> {
        unreachable!()
    }

    /// Dead becomes purged; durable when it returns.
    pub fn purge(&self, _key: &ChunkKey) -> Result<Redriven, StoreError> {
        unreachable!()
    }

    /// A reader over a dead letter's verified payload, for export.
    pub fn dead_payload(
        &self,
        _key: &ChunkKey,
    ) -> Result<Option<(ChunkMeta, Box<dyn Read + Send>)>, StoreError> {
        unreachable!()
    }

    /// Keeps a hold durably under its key, replacing the former one.
    pub fn put_hold(&self, _hold: StoredHold) -> Result<(), StoreError> {
        unreachable!()
    }

    pub fn remove_hold(&self, _key: &HoldKey) -> Result<(), StoreError> {
        unreachable!()
    }

    pub fn holds(&self) -> Vec<StoredHold> {
        unreachable!()
    }

    /// What the last failures of a live chunk were, oldest first.
    pub fn history(&self, _key: &ChunkKey) -> Result<Vec<FailureRecord>, StoreError> {
        unreachable!()
    }

    pub fn view(&self) -> StoreView {
        unreachable!()
    }

    /// Reads everything, changes nothing but a missing or wrong index if `rebuild`.
    pub fn fsck(&self, _rebuild: bool) -> Result<FsckReport, StoreError> {
        unreachable!()
    }

    /// Waits until everything accepted is in the index, cuts the active segment and releases the lock.
    pub fn close(self) -> Result<(), StoreError> {
        unreachable!()
    }
}

/// The right to settle one chunk. Dropping it releases the chunk.
pub struct Lease {}

impl Lease {
    pub fn meta(&self) -> &ChunkMeta {
        unreachable!()
    }

    pub fn head(&self) -> &Head {
        unreachable!()
    }

    /// A fresh reader over the payload, verified block by block; a damaged block is `InvalidData`.
    pub fn payload(&self) -> Result<Box<dyn Read + Send>, StoreError> {
        unreachable!()
    }

    /// Marks the chunk as being sent; call before the first byte leaves.
    pub fn sending(&mut self) -> Result<(), StoreError> {
        unreachable!()
    }

    /// Delivered.
    pub fn ack(self) -> Result<(), StoreError> {
        unreachable!()
    }

    /// Try again, at the earliest after `delay`. `counted` uses one retry.
    pub fn nack(
        self,
        _delay: Duration,
        _counted: bool,
        _record: Option<FailureRecord>,
    ) -> Result<(), StoreError> {
        unreachable!()
    }

    /// Back as it was.
    pub fn release(self) -> Result<(), StoreError> {
        unreachable!()
    }

    /// Set aside as a dead letter with its history; durable when it returns.
    pub fn bury(
        self,
        _reason: DeadReason,
        _record: Option<FailureRecord>,
    ) -> Result<(), StoreError> {
        unreachable!()
    }
}
