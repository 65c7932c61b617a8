//! Moving owed chunks out of segments that are mostly dead, so that those can be unlinked.
//!
//! In this order, a batch at a time: the sessions are leased, so that nobody settles meanwhile; the frames are copied by
//! the committer like any others and synced; books and index follow; dead letters get a note with their new place; only
//! then the old words say *moved*. A crash in between leaves a chunk twice, never not at all, and the next open sees by
//! its enqueue number that it is one ([`super::twins`]).

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::error::StoreError;
use super::frame::Kind;
use super::index::{Change, Owed, RowKey, print_of};
use super::inner::{Inner, SegmentSlot};
use super::lease::give_back;
use super::notes::BurialRef;
use super::payload::reader;
use super::queue::NoteAt;
use super::reclaim::{choose, contents};
use super::record::{Burial, Location, Note};
use super::recover::read_chunk;
use super::segment::{FrameHead, NewFrame};
use super::word::{Slot, Word};
use crate::model::{ChunkKey, ChunkMeta, ChunkState, DeadReason, SessionKey, Timestamp};
use crate::sabotage::{Sabotage, stop_at};

/// So much payload is in memory at once.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_CHUNKS: usize = 1024;

/// Where a chunk that is copied comes from.
pub struct Source {
    pub slot: Arc<SegmentSlot>,
    pub ordinal: u32,
    /// Its word, which the copy takes over but for its place.
    pub word: Word,
    pub meta: ChunkMeta,
    /// Of a live chunk: where the index has it.
    row: Option<RowKey>,
}

/// A frame that is written again elsewhere as it is.
pub struct CopyRequest {
    pub frame: NewFrame,
    pub source: Source,
}

/// A copy that is durable.
pub struct Copied {
    pub place: Location,
    pub start: u32,
    pub number: u64,
    pub accepted_at: Timestamp,
    pub source: Source,
}

/// Moves what is owed out of the emptiest segments, if too much is dead.
pub fn reclaim(inner: &Inner) -> Result<(), StoreError> {
    for id in choose(
        contents(inner),
        inner.settings.segment_bytes,
        inner.settings.max_bytes,
    ) {
        if inner.latched().is_some() {
            break;
        }
        if let Some(slot) = inner.slot(id) {
            empty(inner, &slot)?;
        }
    }
    Ok(())
}

/// Moves out what can be moved; what is leased just now waits for a later round.
pub fn empty(inner: &Inner, slot: &Arc<SegmentSlot>) -> Result<(), StoreError> {
    let chunks = slot.book().chunks;
    let mut ordinal = 0;
    while ordinal < chunks && !inner.closing.load(Ordering::Acquire) {
        // Verbs that change a word without a lease wait meanwhile.
        let _placing = inner.placing.write().expect("no holder panics");
        let mut batch = Batch::default();
        let filled = batch.fill(inner, slot, &mut ordinal, chunks);
        let moved = filled.and_then(|()| {
            batch.find_rows(inner, slot);
            batch.copy(inner)
        });
        batch.release(inner);
        moved?;
    }
    slot.segment.close_file();
    Ok(())
}

#[derive(Default)]
struct Batch {
    copies: Vec<CopyRequest>,
    bytes: u64,
    /// Leased by the batch.
    sessions: BTreeSet<SessionKey>,
    busy: BTreeSet<SessionKey>,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.bytes < BATCH_BYTES && self.copies.len() < BATCH_CHUNKS
    }

    fn fill(
        &mut self,
        inner: &Inner,
        slot: &Arc<SegmentSlot>,
        ordinal: &mut u32,
        chunks: u32,
    ) -> Result<(), StoreError> {
        while *ordinal < chunks && self.has_room() {
            self.take(inner, slot, *ordinal)?;
            *ordinal += 1;
        }
        Ok(())
    }

    /// Takes a chunk along, if it is owed, free and whole.
    fn take(&mut self, inner: &Inner, slot: &Arc<SegmentSlot>, ordinal: u32) -> io::Result<()> {
        let Some(word) = owed_word(slot, ordinal)? else {
            return Ok(());
        };
        let head = slot.segment.read_frame(word.start).ok();
        let Some((head, meta)) = head.and_then(|head| read_chunk(&head).map(|meta| (head, meta)))
        else {
            stay(inner, slot, "its frame does not read back");
            return Ok(());
        };
        if word.state == ChunkState::Live && !self.lease(inner, &meta.key.session_key()) {
            return Ok(());
        }
        // Settled before it was leased.
        let Some(word) = owed_word(slot, ordinal)? else {
            return Ok(());
        };
        if is_damaged(inner, &meta, &word) {
            stay(inner, slot, "a dead letter in it is damaged");
            return Ok(());
        }
        let Ok(frame) = read_whole(inner, slot, &head) else {
            stay(inner, slot, "a payload in it is damaged");
            return Ok(());
        };
        self.bytes += frame.bytes();
        let source = Source {
            slot: Arc::clone(slot),
            ordinal,
            word,
            meta,
            row: None,
        };
        self.copies.push(CopyRequest { frame, source });
        Ok(())
    }

    /// Whether nobody else has a lease of the session; the batch has it then.
    fn lease(&mut self, inner: &Inner, session: &SessionKey) -> bool {
        if self.sessions.contains(session) {
            return true;
        }
        if self.busy.contains(session) {
            return false;
        }
        let mut sessions = inner.sessions();
        let Some(state) = sessions.by_key.get_mut(session) else {
            return false;
        };
        if state.leased > 0 {
            self.busy.insert(session.clone());
            return false;
        }
        state.leased = 1;
        self.sessions.insert(session.clone());
        true
    }

    /// Where the index has the live ones. What it does not have there stays.
    fn find_rows(&mut self, inner: &Inner, slot: &SegmentSlot) {
        let asked: Vec<_> = self
            .copies
            .iter()
            .map(|copy| &copy.source)
            .map(|source| {
                (
                    source.word.state == ChunkState::Live,
                    source.meta.key.clone(),
                )
            })
            .collect();
        if asked.is_empty() {
            return;
        }
        let found = inner.index.ask_patiently(move |tables| {
            let row_of = |(live, key): (bool, ChunkKey)| match live {
                true => tables.owed(&key.session_key(), key.sequence),
                false => Ok(None),
            };
            asked.into_iter().map(row_of).collect::<Result<Vec<_>, _>>()
        });
        let mut rows = found.unwrap_or_default().into_iter();
        self.copies.retain_mut(|copy| {
            let found = rows.next().flatten();
            let here = found.filter(|(_, owed)| owed.segment == slot.segment.id);
            copy.source.row = here.map(|(row, _)| row);
            copy.source.row.is_some() || copy.source.word.state != ChunkState::Live
        });
    }

    fn copy(&mut self, inner: &Inner) -> Result<(), StoreError> {
        if inner.sabotaged.is(Sabotage::MoveBeforeCopy) {
            for CopyRequest { source, .. } in &self.copies {
                leave(source)?;
            }
        }
        let mut answers: Vec<Receiver<Result<Copied, StoreError>>> = Vec::new();
        for copy in std::mem::take(&mut self.copies) {
            answers.push(inner.commits.copy(copy)?);
        }
        let mut result = Ok(());
        for answer in answers {
            match answer.recv().unwrap_or(Err(StoreError::Closing)) {
                Ok(copied) => result = finish(inner, &copied).map_err(StoreError::Io).and(result),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Gives the sessions back, and tells the lanes, who may have found them taken.
    fn release(self, inner: &Inner) {
        for session in &self.sessions {
            give_back(inner, session);
        }
        inner.arrivals.add(self.sessions);
    }
}

/// A durable copy takes its source's place in the books and in the index; called by the syncer.
pub fn arrived(inner: &Inner, slot: &SegmentSlot, copied: &Copied) {
    let Source {
        slot: from,
        ordinal,
        word,
        meta,
        row,
    } = &copied.source;
    {
        // Whoever adds up the books sees the chunk once.
        let _all = inner.segments.write().expect("no holder panics");
        let solo = {
            let mut book = from.book();
            let tally = book.tallies.entry(meta.key.tenant.clone()).or_default();
            tally.leave(word.state, meta.bytes);
            book.moved += 1;
            book.solos.remove(ordinal)
        };
        let mut book = slot.book();
        let tally = book.tallies.entry(meta.key.tenant.clone()).or_default();
        tally.accept(word.state, meta.bytes);
        if let Some(solo) = solo {
            book.solos.insert(copied.place.ordinal, solo);
        }
    }
    if let Some(row) = row {
        let owed = Owed {
            sequence: meta.key.sequence,
            number: copied.number,
            ordinal: copied.place.ordinal,
            start: copied.start,
            bytes: meta.bytes,
            accepted_at: copied.accepted_at,
            segment: copied.place.segment,
            print: print_of(&meta.digest),
        };
        let row = row.clone();
        inner.index.change([Change::Move { row, owed }]);
    }
}

/// A dead letter's note names its new place; only then the old word says where it went.
fn finish(inner: &Inner, copied: &Copied) -> io::Result<()> {
    stop_at("between_copy_and_moved");
    let source = &copied.source;
    if source.word.state == ChunkState::Dead {
        let known = inner.notes().burials.get(&source.meta.key).cloned();
        if let Some(known) = known {
            renew_burial(inner, copied, &known);
        }
    }
    leave(source)
}

fn renew_burial(inner: &Inner, copied: &Copied, known: &BurialRef) {
    let key = &copied.source.meta.key;
    let burial = Burial {
        at: copied.place,
        version: copied.source.word.version,
        tenant: key.tenant.clone(),
        session: key.session.clone(),
        sequence: key.sequence,
        reason: known.reason,
        died_at: known.died_at,
        history: super::dead::history(inner, key, known),
    };
    // Written after this one it would name the place that the chunk has left.
    inner.forget_owed_burial(key);
    if inner.commits.note(Note::Bury(burial.clone())).is_err() {
        // In force from its new segment until it is written.
        let at = NoteAt {
            segment: copied.place.segment,
            start: u32::MAX,
        };
        inner.noted(Note::Bury(burial.clone()), at);
        inner.owe_burial(burial);
    }
}

fn leave(source: &Source) -> io::Result<()> {
    let segment = &source.slot.segment;
    let before = source.word;
    let after = segment.change_word(source.ordinal, before.start, |word| {
        (word == before).then(|| word.turned(ChunkState::Moved))
    })?;
    debug_assert!(after.state == ChunkState::Moved, "nobody else had a lease");
    Ok(())
}

fn owed_word(slot: &SegmentSlot, ordinal: u32) -> io::Result<Option<Word>> {
    Ok(match slot.segment.read_word(ordinal)? {
        Slot::Word(word) if word.state.is_owed() => Some(word),
        _ => None,
    })
}

/// Its bytes are known to be wrong, or may be given again at any time: nothing that should look like new.
fn is_damaged(inner: &Inner, meta: &ChunkMeta, word: &Word) -> bool {
    let notes = inner.notes();
    let burial = notes.burials.get(&meta.key);
    word.state == ChunkState::Dead && burial.is_none_or(|it| it.reason == DeadReason::Damaged)
}

/// A segment that keeps something which must not be copied keeps it; its chunk is set aside when its turn comes.
fn stay(inner: &Inner, slot: &SegmentSlot, why: &str) {
    let mut unmovable = inner.unmovable.lock().expect("no holder panics");
    if unmovable.insert(slot.segment.id) {
        tracing::warn!(segment = %slot.segment.id, why, "segment is not emptied");
    }
}

/// The frame with its payload, every block checked. A payload in its own file stays there.
fn read_whole(inner: &Inner, slot: &SegmentSlot, head: &FrameHead) -> io::Result<NewFrame> {
    let mut payload = Vec::new();
    let mut checked = reader(inner, slot, head)?;
    if matches!(head.header.kind, Kind::Chunk { solo: None, .. }) {
        checked.read_to_end(&mut payload)?;
    }
    Ok(NewFrame {
        kind: head.header.kind,
        record: head.record.clone(),
        block_crcs: head
            .block_crcs
            .iter()
            .flat_map(|crc| crc.to_le_bytes())
            .collect(),
        payload,
        number: head.header.number,
        accepted_at: head.header.accepted_at,
    })
}
