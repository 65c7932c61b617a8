//! The record log in use: the file, what is in memory of it, and the sessions whose deliveries are counted.

mod keep;
mod page;
mod replay;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use replay::{Replayed, count, damage};

use super::log::{Log, Place};
use super::table::{self, Key, RECORDINGS_MAX, Table};
use super::types::{
    Counted, Entry, Job, Listing, OpenSession, Part, Recording, RecordingFilter, Wanted,
};
use super::{Listed, RecordsError};
use crate::disk::Disk;
use crate::model::{RecordingCounts, RecordingId, RecordingState, SessionKey, TenantId, Timestamp};
use crate::store::types::Damage;

/// What an open session takes of a fresh file, about.
const SESSION_BYTES: u64 = 512;
/// A session's time is written down again when it is this much later.
const TIME_STEP: Duration = Duration::from_secs(600);
/// Records appended in one write.
const AT_ONCE: usize = 512;

pub struct Book {
    store: PathBuf,
    disk: Arc<dyn Disk>,
    log: Log,
    table: Table,
    sessions: HashMap<SessionKey, OpenSession>,
    listings: HashMap<TenantId, Listing>,
    damage: Vec<Damage>,
    /// For whoever goes on with a listing.
    ahead: Option<page::Ahead>,
}

impl Book {
    pub fn open(store: &Path, disk: Arc<dyn Disk>) -> Self {
        let mut damaged = Vec::new();
        let mut replayed = Replayed::default();
        let log = Log::open(
            store,
            Arc::clone(&disk),
            |log, place, entry| replayed.take(log, place, entry),
            |offset, reason| damaged.push(damage(offset, reason)),
        );
        if !damaged.is_empty() {
            tracing::warn!(
                ranges = damaged.len(),
                "the record log is damaged: recordings may have to be fetched again"
            );
        }
        Self {
            store: store.to_owned(),
            disk,
            log,
            table: replayed.table,
            sessions: replayed.sessions,
            listings: replayed.listings,
            damage: damaged,
            ahead: None,
        }
    }

    /// Writes entries and knows them from then on.
    fn write(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        if self.log.is_broken() {
            self.rewrite()?;
        }
        let places = self.log.append(&entries)?;
        for (entry, place) in entries.into_iter().zip(places) {
            match entry {
                Entry::Recording(recording) => self.table.put(&recording, place),
                Entry::Listing(listing) => {
                    self.listings.insert(listing.tenant.clone(), listing);
                }
                Entry::Part(_) | Entry::Session(_) => {}
            }
        }
        Ok(())
    }

    fn room_for(&self, more: usize) -> Result<(), RecordsError> {
        if self.table.len() + more > RECORDINGS_MAX {
            return Err(RecordsError::Full);
        }
        Ok(())
    }

    fn read(&self, place: Place) -> io::Result<Recording> {
        match self.log.read(place)? {
            Entry::Recording(recording) => Ok(*recording),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no recording")),
        }
    }

    /// A record that does not read back any more is forgotten: it can be had again.
    fn read_or_forget(&mut self, key: &Key, place: Place) -> Option<Recording> {
        match self.read(place) {
            Ok(recording) => Some(recording),
            Err(error) => {
                self.damage.push(damage(0, format!("a recording: {error}")));
                self.table.remove(key);
                None
            }
        }
    }

    pub fn get(&mut self, tenant: &TenantId, id: &RecordingId) -> Option<Recording> {
        let key = table::key(tenant, id);
        let line = self.table.get(&key)?;
        self.read_or_forget(&key, line.place)
    }

    pub fn delivered(&mut self, part: Part, counted: bool) -> Result<bool, RecordsError> {
        let key = SessionKey {
            tenant: part.tenant.clone(),
            session: part.session.clone(),
        };
        let known = self.get(&part.tenant, &part.recording);
        let mut entries = Vec::new();
        let is_stale = known.as_ref().is_none_or(|known| {
            known.session.is_none() || part.last || part.at.since(known.at) >= TIME_STEP
        });
        if known.is_none() {
            self.room_for(1)?;
        }
        let own = known.as_ref().and_then(|known| known.own.clone());
        if is_stale {
            let new = || Recording::new(part.tenant.clone(), part.recording.clone(), part.at);
            let mut recording = known.unwrap_or_else(new);
            recording.session = Some(part.session.clone());
            recording.at = part.at;
            entries.push(Entry::Recording(Box::new(recording)));
        }
        if counted {
            entries.push(Entry::Part(part.clone()));
        }
        if !entries.is_empty() {
            self.write(entries)?;
        }
        let news = counted && (part.last || !self.sessions.contains_key(&key));
        if counted {
            count(&mut self.sessions, key, part, || own);
        }
        Ok(news)
    }

    pub fn want(
        &mut self,
        tenant: &TenantId,
        ids: &[RecordingId],
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let wanted = self.ask_for(tenant, ids.iter().map(|id| (id.clone(), None)), now)?;
        self.log.sync()?;
        Ok(wanted)
    }

    fn ask_for(
        &mut self,
        tenant: &TenantId,
        ids: impl Iterator<Item = (RecordingId, Option<Timestamp>)>,
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let mut wanted = Wanted::default();
        let mut entries = Vec::new();
        let mut named = BTreeSet::new();
        for (id, at) in ids {
            if !named.insert(table::key(tenant, &id)) {
                continue;
            }
            let known = self.get(tenant, &id);
            if known.is_none() {
                self.room_for(1 + entries.len())?;
            }
            let new = || Recording::new(tenant.clone(), id, at.unwrap_or(now));
            let mut recording = known.unwrap_or_else(new);
            let asked_before = recording.state == RecordingState::Wanted;
            match &mut recording.job {
                Some(job) if asked_before => job.due = job.due.min(now),
                _ => recording.want(now),
            }
            wanted.already += u64::from(asked_before);
            wanted.added += u64::from(!asked_before);
            entries.push(Entry::Recording(Box::new(recording)));
            if entries.len() >= AT_ONCE {
                self.write(std::mem::take(&mut entries))?;
            }
        }
        if !entries.is_empty() {
            self.write(entries)?;
        }
        Ok(wanted)
    }

    pub fn want_since(
        &mut self,
        tenant: &TenantId,
        since: Timestamp,
        listing: bool,
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let filter = RecordingFilter {
            tenant: Some(tenant.clone()),
            since: Some(since),
            ..RecordingFilter::default()
        };
        let mut wanted = Wanted::default();
        let mut after = None;
        loop {
            let page = self.page(&filter, after.as_ref(), AT_ONCE)?;
            // What is fetched stays as it is: whoever wants it anew names it.
            let open = page.recordings.into_iter().filter(|recording| {
                matches!(
                    recording.state,
                    RecordingState::Known | RecordingState::Wanted | RecordingState::Dead
                )
            });
            let ids = open
                .map(|recording| (recording.id, None))
                .collect::<Vec<_>>();
            let some = self.ask_for(tenant, ids.into_iter(), now)?;
            wanted.added += some.added;
            wanted.already += some.already;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if listing {
            self.write(vec![Entry::Listing(Listing {
                tenant: tenant.clone(),
                since,
                cursor: None,
                job: Job::due_at(now),
                done: false,
            })])?;
        }
        self.log.sync()?;
        Ok(wanted)
    }

    pub fn listing(&self, tenant: &TenantId) -> Option<Listing> {
        self.listings
            .get(tenant)
            .filter(|listing| !listing.done)
            .cloned()
    }

    pub fn put_listing(&mut self, listing: Listing) -> Result<(), RecordsError> {
        Ok(self.write(vec![Entry::Listing(listing)])?)
    }

    pub fn listed(
        &mut self,
        mut listing: Listing,
        page: Listed,
        now: Timestamp,
    ) -> Result<Wanted, RecordsError> {
        let tenant = listing.tenant.clone();
        let fresh: Vec<_> = page
            .recordings
            .into_iter()
            .filter(|(id, _)| {
                let line = self.table.get(&table::key(&tenant, id));
                line.is_none_or(|line| line.state == RecordingState::Known)
            })
            .collect();
        let wanted = self.ask_for(&tenant, fresh.into_iter(), now)?;
        listing.done = page.next.is_none();
        listing.cursor = page.next;
        listing.job = Job::due_at(now);
        self.put_listing(listing)?;
        Ok(wanted)
    }

    pub fn next_due(&self, tenant: &TenantId) -> Option<Timestamp> {
        let listing = self.listing(tenant).map(|listing| listing.job.due);
        [self.table.next_due(tenant), listing]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn take_due(&mut self, tenant: &TenantId, now: Timestamp) -> Option<Recording> {
        loop {
            let (key, place) = self.table.take_due(tenant, now)?;
            if let Some(recording) = self.read_or_forget(&key, place) {
                return Some(recording);
            }
        }
    }

    fn put(&mut self, recording: Recording) -> Result<(), RecordsError> {
        Ok(self.write(vec![Entry::Recording(Box::new(recording))])?)
    }

    pub fn give_back(
        &mut self,
        taken: &Recording,
        change: impl FnOnce(&mut Recording),
    ) -> Result<(), RecordsError> {
        let Some(mut current) = self.get(&taken.tenant, &taken.id) else {
            return Ok(());
        };
        let since = |recording: &Recording| recording.job.as_ref().map(|job| job.since);
        if since(&current) == since(taken) && current.own == taken.own {
            change(&mut current);
        }
        self.put(current)
    }

    pub fn counted(&self, tenant: &TenantId, idle: Duration, now: Timestamp) -> Counted {
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        let mut next: Option<Timestamp> = None;
        for counted in self.sessions.values().filter(|of| of.tenant == *tenant) {
            let idle_at = counted.at.saturating_add(idle);
            if counted.last || idle_at <= now {
                ended.push(counted.session.clone());
            } else {
                open.push(counted.session.clone());
            }
            if idle_at > now {
                next = Some(next.map_or(idle_at, |next| next.min(idle_at)));
            }
        }
        ended.sort_unstable();
        Counted { ended, open, next }
    }

    pub fn compare(&mut self, session: &SessionKey, now: Timestamp) -> Result<(), RecordsError> {
        let Some(open) = self.sessions.get(session).cloned() else {
            return Ok(());
        };
        let known = self.get(&open.tenant, &open.recording);
        let new = || Recording::new(open.tenant, open.recording, open.at);
        let mut recording = known.unwrap_or_else(new);
        recording.session = Some(open.session);
        recording.own = Some(open.tally);
        recording.want(now);
        self.put(recording)?;
        self.sessions.remove(session);
        Ok(())
    }

    pub fn counts(&self, tenant: &TenantId) -> RecordingCounts {
        self.table.counts(tenant)
    }

    pub fn total(&self) -> RecordingCounts {
        self.table.total()
    }
}
