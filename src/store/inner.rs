//! What the store's threads share, and the few ways in which a fact becomes visible to all of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::durable::Stage;
use super::error::{Latched, StoreError};
use super::frame::Kind;
use super::index::{Change, Index, IndexFault, Owed, print_of};
use super::layout::SegmentId;
use super::ledger::Ledger;
use super::notes::Notes;
use super::queue::{CommitQueue, NoteAt};
use super::record::{Burial, Note};
use super::segment::{NewFrame, Segment};
use super::sessions::{Arrivals, Sessions};
use super::tally::{Tallies, add_all};
use super::types::{Damage, Settings};
use super::view::Ages;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::model::{ChunkKey, ChunkMeta, ChunkState, TenantId};
use crate::sabotage::Sabotaged;

/// A segment in use, and what is known of its content.
pub struct SegmentSlot {
    pub segment: Segment,
    book: Mutex<Book>,
}

#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Accepted chunk frames, readable or not.
    pub chunks: u32,
    /// The end of the accepted frames.
    pub end: u32,
    pub tallies: Tallies,
    /// Chunks whose record is unreadable: their tenant is not known.
    pub unreadable: u64,
    /// Chunks that a younger segment owns.
    pub moved: u64,
    /// Payload files of this segment's chunks, with the ordinal of their chunk.
    pub solos: BTreeMap<u32, Solo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solo {
    pub id: u64,
    pub bytes: u64,
    /// Its chunk is settled for good: the file may go once the word is durable.
    pub finished: bool,
}

impl Book {
    pub fn owed(&self) -> u64 {
        self.unreadable
            + self
                .tallies
                .values()
                .map(super::tally::Tally::owed)
                .sum::<u64>()
    }

    /// What the segment takes of the quota.
    pub fn bytes(&self) -> u64 {
        u64::from(self.end) + self.solos.values().map(|solo| solo.bytes).sum::<u64>()
    }
}

/// A durable chunk, as the committer placed it.
pub struct Accepted {
    pub ordinal: u32,
    pub start: u32,
    pub frame: NewFrame,
    pub meta: ChunkMeta,
}

impl Accepted {
    fn owed(&self, segment: SegmentId) -> Owed {
        Owed {
            segment,
            print: print_of(&self.meta.digest),
            sequence: self.meta.key.sequence,
            number: self.frame.number,
            ordinal: self.ordinal,
            start: self.start,
            bytes: self.meta.bytes,
            accepted_at: self.frame.accepted_at,
        }
    }
}

impl SegmentSlot {
    pub fn new(segment: Segment, book: Book) -> Self {
        Self {
            segment,
            book: Mutex::new(book),
        }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder panics")
    }
}

pub struct Inner {
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub sabotaged: Sabotaged,
    /// Held as long as the store is open.
    pub lock: File,
    pub segments: RwLock<BTreeMap<SegmentId, Arc<SegmentSlot>>>,
    pub sessions: Mutex<Sessions>,
    pub notes: Mutex<Notes>,
    pub ledger: Mutex<Ledger>,
    /// One writing at a time, in the order of editions.
    pub ledger_writing: Mutex<()>,
    /// The running time that the ledger's files tell.
    pub written_running_ms: AtomicU64,
    /// One note of a hold at a time: the last one written is the one in force.
    pub holding: Mutex<()>,
    /// One change of a tenant's organisation at a time.
    pub pinning: Mutex<()>,
    /// Damaged chunks whose replacement is on its way or here.
    pub replaced: Mutex<HashSet<ChunkKey>>,
    pub index: Index,
    pub index_path: PathBuf,
    /// The index did not belong to the journal at open, so it was filled anew.
    pub index_rebuilt: bool,
    /// A leaf: nobody is called while it is held.
    pub ages: Mutex<Ages>,
    pub commits: CommitQueue,
    pub stage: Stage,
    /// Chunks that a frame was planned for and that are not members of their session yet.
    pub planned: Mutex<HashSet<ChunkKey>>,
    pub next_number: AtomicU64,
    /// Bytes that count against the quota.
    pub used: AtomicU64,
    /// Chunks in segments whose header is gone.
    pub headless: u64,
    pub latched: Mutex<Option<Latched>>,
    /// The segment that this opening appends to.
    pub active: Mutex<Option<SegmentId>>,
    pub arrivals: Arc<Arrivals>,
    pub closing: AtomicBool,
    pub keeper: (Mutex<()>, Condvar),
    /// The keeper writes the ledger before it sleeps again.
    pub ledger_wanted: AtomicBool,
    /// Chunks found damaged at open whose burial is not written yet.
    pub burials_owed: Mutex<Vec<Burial>>,
    /// Damaged chunks whose replacement is here and whose purge could not be written.
    pub purges_owed: Mutex<Vec<ChunkKey>>,
    /// Retired segments whose files are still there. Locked by the keeper only.
    pub unlinking: Mutex<Vec<Arc<SegmentSlot>>>,
    /// Found at open or since, for `fsck` and the operator.
    pub damage: Mutex<Vec<Damage>>,
    /// Found at open and made right by it, for `fsck`.
    pub mended: Mutex<Vec<Damage>>,
    pub records: super::records::Records,
    /// Written by who moves chunks or notes, or ends a dead letter; read by who else goes by a chunk's place without a lease.
    pub placing: RwLock<()>,
    pub reserve: super::reserve::Reserve,
    /// Segments that keep something which must not be copied.
    pub unmovable: Mutex<BTreeSet<SegmentId>>,
}

impl Inner {
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("no holder panics")
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no holder panics")
    }

    /// Taken before the sessions, never the other way round: a chunk leaves here after it became a member there.
    pub fn under_way(&self) -> MutexGuard<'_, HashSet<ChunkKey>> {
        self.planned.lock().expect("no holder panics")
    }

    pub fn segments(&self) -> RwLockReadGuard<'_, BTreeMap<SegmentId, Arc<SegmentSlot>>> {
        self.segments.read().expect("no holder panics")
    }

    pub fn slot(&self, id: SegmentId) -> Option<Arc<SegmentSlot>> {
        self.segments().get(&id).cloned()
    }

    pub fn segments_dir(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub fn solo_path(&self, solo: u64) -> PathBuf {
        self.segments_dir().join(solo_name(solo))
    }

    /// Enqueue numbers start at 1.
    pub fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// A commit of so many chunks ends here now.
    pub fn grow(&self, slot: &SegmentSlot, end: u32, chunks: u32) {
        let mut book = slot.book();
        self.used
            .fetch_add(u64::from(end - book.end), Ordering::Relaxed);
        book.end = end;
        book.chunks += chunks;
    }

    /// Durable chunks become members of their sessions and go to the index.
    pub fn accepted(&self, slot: &SegmentSlot, chunks: &[Accepted]) {
        let mut book = slot.book();
        for Accepted {
            ordinal,
            frame,
            meta,
            ..
        } in chunks
        {
            book.tallies
                .entry(meta.key.tenant.clone())
                .or_default()
                .accept(ChunkState::Live, meta.bytes);
            if let Kind::Chunk { solo: Some(id), .. } = frame.kind {
                let solo = Solo {
                    id,
                    bytes: meta.bytes,
                    finished: false,
                };
                book.solos.insert(*ordinal, solo);
                self.used.fetch_add(meta.bytes, Ordering::Relaxed);
            }
        }
        drop(book);
        let mut sessions = self.sessions();
        for Accepted { frame, meta, .. } in chunks {
            let state = sessions.entry(&meta.key.session_key());
            state.accepted.insert(meta.key.sequence);
            state.owed += 1;
            state.changed_at = frame.accepted_at;
            if meta.last {
                state.end(frame.accepted_at);
            }
        }
        drop(sessions);
        let segment = slot.segment.id;
        self.index.change(chunks.iter().map(|chunk| Change::Owe {
            session: chunk.meta.key.session_key(),
            owed: chunk.owed(segment),
        }));
    }

    /// A durable note is in force, or one that stands for it until it is written.
    pub fn noted(&self, note: Note, at: NoteAt) {
        if let Note::SessionEnd { session, at } = &note
            && let Some(state) = self.sessions().by_key.get_mut(session)
        {
            state.end(*at);
        }
        let letter = {
            let mut notes = self.notes();
            let letter = notes.letter_of(&note);
            notes.apply(note, at);
            letter
        };
        let letter = letter.map(|(key, segment)| Change::Dead { key, segment });
        self.index.change(letter);
    }

    /// Whether this is the first replacement of a damaged chunk; it is taken as made.
    pub fn replaced(&self, key: &ChunkKey) -> bool {
        self.replaced
            .lock()
            .expect("no holder panics")
            .insert(key.clone())
    }

    /// Takes a replacement back that was not written after all; whether there was one.
    pub fn is_not_replaced(&self, key: &ChunkKey) -> bool {
        self.replaced.lock().expect("no holder panics").remove(key)
    }

    /// A burial that could not be written now is tried again by the keeper, unless a later one takes its place.
    pub fn owe_burial(&self, burial: Burial) {
        let mut owed = self.burials_owed.lock().expect("no holder panics");
        owed.retain(|older| older.key() != burial.key());
        owed.push(burial);
    }

    /// Another burial of this chunk says more than the one that is owed.
    pub fn forget_owed_burial(&self, key: &ChunkKey) {
        let mut owed = self.burials_owed.lock().expect("no holder panics");
        owed.retain(|older| older.key() != *key);
    }

    /// A purge that could not be written now is tried again by the keeper.
    pub fn owe_purge(&self, key: ChunkKey) {
        let mut owed = self.purges_owed.lock().expect("no holder panics");
        owed.push(key);
    }

    /// Books a change of a chunk's state.
    pub fn turned(
        &self,
        slot: &SegmentSlot,
        ordinal: u32,
        tenant: &TenantId,
        bytes: u64,
        (from, to): (ChunkState, ChunkState),
    ) {
        let mut book = slot.book();
        book.tallies
            .entry(tenant.clone())
            .or_default()
            .turn(from, to, bytes);
        if !to.is_owed()
            && let Some(solo) = book.solos.get_mut(&ordinal)
        {
            solo.finished = true;
        }
    }

    /// A ledger that nobody waits for.
    pub fn want_ledger(&self) {
        self.ledger_wanted.store(true, Ordering::Release);
        self.keeper.1.notify_all();
    }

    pub fn latched(&self) -> Option<Latched> {
        self.latched.lock().expect("no holder panics").clone()
    }

    /// Stops intake until a fresh segment syncs. The first cause stays.
    pub fn latch(&self, error: &io::Error, slot: &SegmentSlot) -> Latched {
        if let Some(latched) = self.latched() {
            return latched;
        }
        let safe = self
            .segments()
            .values()
            .map(|slot| slot.book().owed())
            .sum();
        let latched = Latched {
            at: self.clock.wall(),
            cause: describe(error),
            segment: slot.segment.id.to_string(),
            safe,
        };
        tracing::error!("{latched}");
        *self.latched.lock().expect("no holder panics") = Some(latched.clone());
        *self.active.lock().expect("no holder panics") = None;
        latched
    }

    pub fn unlatch(&self) {
        *self.latched.lock().expect("no holder panics") = None;
        tracing::info!("a sync succeeded: accepting again");
    }

    pub fn ages(&self) -> MutexGuard<'_, Ages> {
        self.ages.lock().expect("no holder panics")
    }

    pub fn tallies(&self) -> Tallies {
        let mut sum = self.ledger.lock().expect("no holder panics").totals.clone();
        for slot in self.segments().values() {
            add_all(&mut sum, &slot.book().tallies);
        }
        sum
    }
}

pub fn solo_name(solo: u64) -> String {
    format!("{solo:016x}.solo")
}

pub fn index_lost(fault: &IndexFault) -> StoreError {
    StoreError::IndexLost {
        cause: fault.to_string(),
    }
}

/// An I/O error in the words of the system's manual, without the number.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
