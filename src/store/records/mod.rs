//! The record log: what is known of recordings, ours and others', and which of them are to be fetched. Everything in it
//! can be had again from the platform, so its damage costs a fetch and never stops a start. Opened at the first use: a
//! command that has nothing to do with recordings does not read it.

mod book;
mod frame;
mod log;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

pub use table::RECORDINGS_MAX;
pub use tally::Tally;
pub use types::{Counted, Cursor, Job, Listing, Page, Part, Recording, RecordingFilter, Wanted};

use super::types::Damage;
use crate::disk::Disk;
use crate::model::{RecordingCounts, RecordingId, SessionKey, TenantId, Timestamp};
use book::Book;

/// Why a recording is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("{RECORDINGS_MAX} recordings are remembered already; no more are taken")]
    Full,
    #[error("record log")]
    Io(#[from] io::Error),
}

/// The record log of one store. Shared by reference; every call blocks.
pub struct Records {
    store: PathBuf,
    disk: Arc<dyn Disk>,
    book: Mutex<Option<Book>>,
    /// Tenants whose deliveries are counted, so that they can be compared.
    counted: Mutex<BTreeSet<TenantId>>,
    wake: OnceLock<Wake>,
}

/// Told of a tenant that has something new to fetch; must not block.
pub type Wake = Box<dyn Fn(&TenantId) + Send + Sync>;

/// A page of the platform's own list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub recordings: Vec<(RecordingId, Option<Timestamp>)>,
    /// `None`: it was the last.
    pub next: Option<String>,
}

impl Records {
    pub fn new(store: &Path, disk: Arc<dyn Disk>) -> Self {
        Self {
            store: store.to_owned(),
            disk,
            book: Mutex::new(None),
            counted: Mutex::default(),
            wake: OnceLock::new(),
        }
    }

    /// Sets who is told of something new to fetch. The first one stays.
    pub fn on_change(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    /// Something changed for the tenant: a session may have ended.
    pub fn stir(&self, tenant: &TenantId) {
        if let Some(wake) = self.wake.get() {
            wake(tenant);
        }
    }

    /// From now on the deliveries of these tenants are counted.
    pub fn count_for(&self, tenants: BTreeSet<TenantId>) {
        *self.counted.lock().expect("no holder panics") = tenants;
    }

    fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        let mut book: MutexGuard<'_, Option<Book>> = self.book.lock().expect("no holder panics");
        let book = book.get_or_insert_with(|| Book::open(&self.store, Arc::clone(&self.disk)));
        work(book)
    }

    /// A receipt named a chunk of ours and its recording. Call before the chunk is acknowledged: whatever is known as
    /// delivered is then counted here too. A trouble costs the comparison, so it is only told. Whether a count began, or
    /// its session said that it ended: then [`Self::stir`] once the chunk is acknowledged.
    pub fn delivered(&self, part: Part) -> bool {
        let counted = {
            let counted = self.counted.lock().expect("no holder panics");
            counted.contains(&part.tenant)
        };
        match self.with(|book| book.delivered(part, counted)) {
            Ok(news) => news,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the recording of a delivered chunk is not remembered"
                );
                false
            }
        }
    }

    /// Asks for recordings by id; durable when it returns.
    ///
    /// # Errors
    /// The medium's, or there are too many; then none of them is asked for.
    pub fn want(
        &self,
        tenant: &TenantId,
        ids: &[RecordingId],
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let wanted = self.with(|book| book.want(tenant, ids, now));
        self.stir(tenant);
        wanted
    }

    /// Asks for the recordings of our own sessions of that time, and with `listing` for those that the platform lists;
    /// durable when it returns.
    ///
    /// # Errors
    /// As [`Self::want`].
    pub fn want_since(
        &self,
        tenant: &TenantId,
        since: Timestamp,
        listing: bool,
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let wanted = self.with(|book| book.want_since(tenant, since, listing, now));
        self.stir(tenant);
        wanted
    }

    /// The platform's list that is still to be walked.
    pub fn listing(&self, tenant: &TenantId) -> Option<Listing> {
        self.with(|book| book.listing(tenant))
    }

    /// What came of asking for a page.
    ///
    /// # Errors
    /// As [`Self::want`].
    pub fn put_listing(&self, listing: Listing) -> Result<(), RecordsError> {
        self.with(|book| book.put_listing(listing))
    }

    /// A page came: its recordings are wanted, and the listing goes on behind it.
    ///
    /// # Errors
    /// As [`Self::want`].
    pub fn listed(
        &self,
        listing: Listing,
        page: Listed,
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        self.with(|book| book.listed(listing, page, now))
    }

    /// When there is something to fetch for the tenant.
    pub fn next_due(&self, tenant: &TenantId) -> Option<Timestamp> {
        self.with(|book| book.next_due(tenant))
    }

    /// Takes the recording that is due first. It comes back by [`Self::give_back`], or at the next start.
    pub fn take_due(&self, tenant: &TenantId, now: Timestamp) -> Option<Recording> {
        self.with(|book| book.take_due(tenant, now))
    }

    /// What came of a recording that was taken. One that was asked for anew meanwhile, or whose session ended, stays
    /// wanted: the answer may be older than that.
    ///
    /// # Errors
    /// The medium's.
    pub fn give_back(
        &self,
        taken: &Recording,
        change: impl FnOnce(&mut Recording),
    ) -> Result<(), RecordsError> {
        self.with(|book| book.give_back(taken, change))
    }

    pub fn get(&self, tenant: &TenantId, id: &RecordingId) -> Option<Recording> {
        self.with(|book| book.get(tenant, id))
    }

    /// The sessions whose deliveries are counted; those ended that said so in a chunk, or were silent for `idle`.
    pub fn counted(&self, tenant: &TenantId, idle: Duration, now: Timestamp) -> Counted {
        self.with(|book| book.counted(tenant, idle, now))
    }

    /// A session has ended and owes nothing: its recording is wanted, to be compared.
    ///
    /// # Errors
    /// The medium's.
    pub fn compare(&self, session: &SessionKey, now: Timestamp) -> Result<(), RecordsError> {
        self.with(|book| book.compare(session, now))
    }

    pub fn counts(&self, tenant: &TenantId) -> RecordingCounts {
        self.with(|book| book.counts(tenant))
    }

    pub fn total(&self) -> RecordingCounts {
        self.with(|book| book.total())
    }

    /// Recordings in the order of tenant and time, at most `limit`.
    ///
    /// # Errors
    /// The medium's, or a cursor that none of these calls gave.
    pub fn page(
        &self,
        filter: &RecordingFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> io::Result<Page> {
        self.with(|book| book.page(filter, after, limit))
    }

    /// Makes what was noted survive a power cut, and the file smaller where most of it is superseded. Reads nothing if
    /// nothing was used.
    ///
    /// # Errors
    /// The medium's; the next call tries again.
    pub fn maintain(&self) -> io::Result<()> {
        let mut book = self.book.lock().expect("no holder panics");
        match book.as_mut() {
            Some(book) => book.maintain(),
            None => Ok(()),
        }
    }

    /// What of the log does not read back, now and since it was opened.
    pub fn damage(&self) -> Vec<Damage> {
        self.with(|book| book.damage())
    }
}

/// For the fuzzer: a record's body, as it stands in the file and as it might.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    drop(frame::decode(bytes).map(<[u8]>::to_vec));
    let mut framed = Vec::new();
    if frame::encode(bytes, &mut framed) {
        let body = frame::decode(&framed).expect("what we write we read");
        assert_eq!(body, bytes);
        if let Ok(entry) = serde_json::from_slice::<types::Entry>(body) {
            let written = serde_json::to_vec(&entry).expect("plain data is JSON");
            let again = serde_json::from_slice::<types::Entry>(&written);
            assert_eq!(again.expect("what we write we read"), entry);
        }
    }
}
