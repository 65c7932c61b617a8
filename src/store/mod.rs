//! The durable queue: a journal of segments that holds every fact that must survive, a small ledger of what the
//! journal has retired, and a sled index behind both, from which everything is leased.
//!
//! All calls block; async callers go through `spawn_blocking`.

mod admission;
mod commit;
mod confirm;
mod covered;
mod dead;
mod durable;
mod enqueue;
mod error;
mod fate;
mod frame;
mod fsck;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod handover;
mod head;
mod header;
mod index;
mod inner;
mod intervals;
mod inventory;
mod keeper;
mod known;
mod layout;
mod lease;
mod ledger;
mod lost;
mod mend;
mod moving;
mod notes;
mod open;
mod payload;
mod pins;
mod plan;
mod queue;
mod reclaim;
mod record;
pub mod records;
mod recover;
mod reindex;
mod reserve;
mod roll;
mod roster;
mod running;
mod scan;
mod segment;
mod sessions;
mod tail;
mod tally;
mod transfer;
mod twins;
mod types;
mod view;
mod word;

#[cfg(test)]
mod tests;

pub use admission::show_bytes;
pub use confirm::{ConfirmPlace, Confirming};
pub use dead::DeadPayload;
pub use error::{EnqueueError, Full, Latched, OpenError, StoreError};
pub use lease::Lease;
pub use transfer::{ExportError, Exported, ImportError, ImportFault, Imported, Refused};
pub use types::{
    Damage, DeadFilter, DeadLetter, Ending, Enqueued, Fate, FsckReport, Head, HoldKey, IndexCheck,
    NewChunk, Outcome, Promotion, Redriven, SequenceChoice, SessionFilter, SessionList,
    SessionSummary, Settings, StoreView, StoredHold, TenantCounts,
};

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, Deadline};
use crate::disk::{Disk, RealDisk};
use crate::model::{ChunkKey, FailureRecord, SessionKey, TenantId, Timestamp};
use inner::{Inner, index_lost};
use record::{Hold, Note};

/// The open store. Cheap to clone. [`Store::close`] ends it in order; a store that is merely dropped ends like a killed
/// process, which costs the next open some time and nothing else.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Store {
    /// Opens or creates the store and takes its lock. Creates no segment until something is written.
    ///
    /// # Errors
    /// Another holder, another host, a newer format, or the medium's. Damage is no error: it is set aside and reported.
    pub fn open(dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_on(dir, settings, clock, Arc::new(RealDisk))
    }

    fn open_on(
        dir: &Path,
        settings: Settings,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
        let inner = Arc::new(open::open(dir, settings, clock, disk)?);
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&inner))
                .map_err(|source| OpenError::Io {
                    path: dir.to_owned(),
                    source,
                })
        };
        let threads = vec![
            spawn("committer", commit::run)?,
            spawn("syncer", durable::run)?,
            spawn("keeper", keeper::run)?,
        ];
        Ok(Self {
            inner,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    /// Durable when it returns `Ok`. Reads `payload` to its end, in this thread.
    ///
    /// # Errors
    /// Every refusal leaves nothing behind; after [`EnqueueError::Latched`] the chunk may turn out to be known.
    pub fn enqueue(
        &self,
        chunk: NewChunk,
        payload: &mut dyn Read,
    ) -> Result<Enqueued, EnqueueError> {
        enqueue::enqueue(&self.inner, chunk, None, payload)
    }

    /// Calls `wake` from the store's threads when sessions got work; it must not block. The first one stays.
    pub fn on_arrival(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.inner.arrivals.on_arrival(wake);
    }

    /// Sessions that got work since the last call; after open, all that are owed. Each at most once.
    pub fn take_arrivals(&self) -> Vec<SessionKey> {
        self.inner.arrivals.take()
    }

    /// The lowest owed sequence of a session, leased or not, with what the engine decides by.
    pub fn head(&self, session: &SessionKey) -> Result<Option<Head>, StoreError> {
        head::head(&self.inner, session)
    }

    /// Leases the head, whatever its delay. `None`: nothing owed, or another lease of the session is out.
    pub fn lease(&self, session: &SessionKey) -> Result<Option<Lease>, StoreError> {
        lease::lease(&self.inner, session)
    }

    /// Live chunks of the tenant with an enqueue number at most `number`, and those below them in their sessions:
    /// what a drain's fence still encloses.
    pub fn owed_through(&self, tenant: &TenantId, number: u64) -> Result<u64, StoreError> {
        let tenant = tenant.clone();
        let counted = self
            .inner
            .index
            .ask_patiently(move |tables| tables.owed_through(&tenant, number));
        counted.map_err(|fault| index_lost(&fault))
    }

    /// The highest enqueue number given so far; 0 if none.
    pub fn last_number(&self) -> u64 {
        self.inner.next_number.load(Ordering::Relaxed) - 1
    }

    /// Dead letters that match, in the order of their keys.
    pub fn dead(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError> {
        dead::list(&self.inner, filter)
    }

    /// Dead becomes live again; durable when it returns.
    pub fn redrive(&self, key: &ChunkKey) -> Result<Redriven, StoreError> {
        dead::redrive(&self.inner, key)
    }

    /// Dead becomes purged; durable when it returns.
    pub fn purge(&self, key: &ChunkKey) -> Result<Redriven, StoreError> {
        dead::purge(&self.inner, key)
    }

    /// A reader over a dead letter's verified payload, for export.
    pub fn dead_payload(&self, key: &ChunkKey) -> Result<Option<DeadPayload>, StoreError> {
        dead::payload(&self.inner, key)
    }

    /// Keeps a hold durably under its key, replacing the former one.
    pub fn put_hold(&self, hold: StoredHold) -> Result<(), StoreError> {
        let until = hold
            .left
            .map(|left| Deadline::after(self.inner.clock.as_ref(), left));
        let _in_order = self.inner.holding.lock().expect("no holder panics");
        self.inner
            .commits
            .note(Note::Hold(Hold {
                key: hold.key,
                set_at: hold.set_at,
                until,
                reason: hold.reason,
            }))
            .map(drop)
    }

    /// Forgets a hold durably; one that is not there is no error.
    pub fn remove_hold(&self, key: &HoldKey) -> Result<(), StoreError> {
        let _in_order = self.inner.holding.lock().expect("no holder panics");
        if !matches!(self.inner.notes().holds.get(key), Some((Some(_), _))) {
            return Ok(());
        }
        self.inner
            .commits
            .note(Note::HoldEnd(key.clone()))
            .map(drop)
    }

    /// What is known of recordings.
    pub fn records(&self) -> &records::Records {
        &self.inner.records
    }

    /// The holds in force; those whose time is over are left out.
    pub fn holds(&self) -> Vec<StoredHold> {
        let clock = self.inner.clock.as_ref();
        let notes = self.inner.notes();
        let holds = notes
            .holds
            .values()
            .filter_map(|(hold, _)| hold.as_ref())
            .map(|hold| StoredHold {
                key: hold.key.clone(),
                set_at: hold.set_at,
                left: hold.until.map(|until| until.left(clock)),
                reason: hold.reason.clone(),
            });
        holds
            .filter(|hold| hold.left != Some(Duration::ZERO))
            .collect()
    }

    /// Says that a session will get nothing more; durable when it returns. What comes all the same is late capture: it
    /// is accepted and delivered like any chunk, and the session stays ended.
    pub fn end_session(&self, session: &SessionKey, at: Timestamp) -> Result<Ending, StoreError> {
        roster::end(&self.inner, session, at)
    }

    /// Whether somebody said that a session gets nothing more.
    pub fn session_has_ended(&self, session: &SessionKey) -> bool {
        roster::has_ended(&self.inner, session)
    }

    /// Puts a session first in its lane until it owes nothing; in force at once, durable when it returns.
    pub fn promote(&self, session: &SessionKey) -> Result<Promotion, StoreError> {
        roster::promote(&self.inner, session)
    }

    /// The sequences of a session that are to be delivered, as closed intervals, lowest first.
    pub fn owed_of(&self, session: &SessionKey) -> Result<Vec<(u64, u64)>, StoreError> {
        roster::owed(&self.inner, session)
    }

    /// The remembered sessions that match.
    pub fn sessions(&self, filter: &SessionFilter) -> SessionList {
        roster::list(&self.inner, filter)
    }

    /// The organisation that a tenant is pinned to.
    pub fn organisation(&self, tenant: &TenantId) -> Option<String> {
        pins::organisation(&self.inner, tenant)
    }

    /// Pins a tenant to the organisation that its token showed; durable when it returns.
    ///
    /// # Errors
    /// It is pinned to another one; or the medium's, and then nothing is pinned.
    pub fn pin_organisation(
        &self,
        tenant: &TenantId,
        organisation: &str,
    ) -> Result<(), StoreError> {
        pins::pin(&self.inner, tenant, organisation)
    }

    /// An operator moves the tenant to another organisation: the next one seen is pinned. Returns what was lifted.
    pub fn unpin_organisation(&self, tenant: &TenantId) -> Result<Option<String>, StoreError> {
        pins::unpin(&self.inner, tenant)
    }

    /// What the last failures of a live chunk were, oldest first.
    pub fn history(&self, key: &ChunkKey) -> Result<Vec<FailureRecord>, StoreError> {
        let key = key.clone();
        let retry = self.inner.index.ask(move |tables| tables.retry(&key));
        let retry = retry.map_err(|fault| index_lost(&fault))?;
        Ok(retry.map_or_else(Vec::new, |retry| retry.history))
    }

    /// Why the index is lost, if it is: nothing can be leased any more by this process.
    pub fn index_lost(&self) -> Option<String> {
        self.inner.index.lost()
    }

    /// Marks a store's index as lost: its next open makes a fresh one from the journal. Needs no lock, because a
    /// rebuild too many costs only its time.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn distrust_index(dir: &Path) -> io::Result<()> {
        reindex::distrust_index(dir)
    }

    pub fn view(&self) -> StoreView {
        view::view(&self.inner)
    }

    /// Reads everything that is owed and says what does not read back.
    pub fn fsck(&self) -> Result<FsckReport, StoreError> {
        fsck::check(&self.inner)
    }

    /// Waits until everything accepted is in the index, cuts the active segment, writes the ledger and releases the
    /// lock. Leases that are still out stay valid for reading and settle nothing any more.
    pub fn close(self) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.closing.store(true, Ordering::Release);
        keeper::write_owed_burials(inner);
        inner.commits.close();
        inner.keeper.1.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder panics"));
        if threads.is_empty() {
            return Err(StoreError::Closing);
        }
        for thread in threads {
            thread
                .join()
                .map_err(|_| io::Error::other("a thread of the store panicked"))?;
        }
        self.settle_files()?;
        let last = inner.segments().last_key_value().map(|(id, slot)| {
            let end = slot.book().end;
            (*id, slot.segment.nonce, end)
        });
        let edition = inner.ledger.lock().expect("no holder panics").edition;
        let closed = match inner.index.lost() {
            None => inner.index.close(reindex::mark_of(last, edition)),
            Some(_) => Ok(()),
        };
        if closed.is_err() || inner.index.lost().is_some() {
            // The next start shall not trust what is there.
            std::fs::write(inner.index_path.join("lost"), b"")?;
        }
        closed.map_err(|fault| index_lost(&fault))?;
        inner.lock.unlock()?;
        Ok(())
    }

    fn settle_files(&self) -> io::Result<()> {
        let inner = &self.inner;
        let former = inner.active.lock().expect("no holder panics").take();
        if let Some(slot) = former.and_then(|id| inner.slot(id)) {
            roll::cut(&slot);
            // A failed sync would have taken the segment from being active.
            inner.ledger.lock().expect("no holder panics").resumable = former;
        }
        keeper::round(inner)?;
        keeper::keep_records(inner);
        reserve::drop_if_unneeded(inner);
        let edition = inner.ledger.lock().expect("no holder panics").edition;
        if former.is_some() || edition == 0 {
            roll::write_ledger(inner)?;
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The threads hold the inner store too; the last handle outside tells them to end.
        if Arc::strong_count(&self.threads) == 1 {
            self.inner.closing.store(true, Ordering::Release);
            self.inner.commits.close();
            self.inner.keeper.1.notify_all();
        }
    }
}
