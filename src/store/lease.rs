//! Leasing and settling: the one place where a live chunk's word changes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::error::StoreError;
use super::head::{Candidate, candidate, describe, disagrees};
use super::index::{Change, IndexFault, Owed, RowKey};
use super::inner::{Inner, SegmentSlot, index_lost};
use super::payload::reader;
use super::record::{Burial, Location, Note, bounded_history};
use super::recover::read_chunk;
use super::segment::FrameHead;
use super::sessions::Delay;
use super::types::Head;
use super::word::{Slot, Word};
use crate::clock::Deadline;
use crate::disk::Payload;
use crate::model::{
    ChunkKey, ChunkMeta, ChunkState, DeadReason, Digest, FailureRecord, SessionKey,
};
use crate::sabotage::{Sabotage, stop_at};

/// The right to settle one chunk. Dropping it releases the chunk.
pub struct Lease {
    pub(super) inner: Arc<Inner>,
    slot: Arc<SegmentSlot>,
    pub(super) session: SessionKey,
    row: RowKey,
    pub(super) owed: Owed,
    frame: FrameHead,
    meta: ChunkMeta,
    head: Head,
    sending: bool,
    settled: bool,
}

pub fn lease(inner: &Arc<Inner>, session: &SessionKey) -> Result<Option<Lease>, StoreError> {
    {
        let mut sessions = inner.sessions();
        let Some(state) = sessions.by_key.get_mut(session) else {
            return Ok(None);
        };
        if state.leased > 0 || state.owed == 0 {
            return Ok(None);
        }
        state.leased = 1;
    }
    let taken = take(inner, session);
    if !matches!(taken, Ok(Some(_))) {
        give_back(inner, session);
    }
    taken
}

pub fn give_back(inner: &Inner, session: &SessionKey) {
    if let Some(state) = inner.sessions().by_key.get_mut(session) {
        state.leased = state.leased.saturating_sub(1);
    }
}

/// What a test has this opening's index do at a lease.
fn commit_defects(inner: &Inner) -> Result<(), StoreError> {
    let panics = inner.sabotaged.is(Sabotage::PanicLease);
    if !panics && !inner.sabotaged.is(Sabotage::HangLease) {
        return Ok(());
    }
    let asked = inner.index.ask(move |_| -> Result<(), IndexFault> {
        if panics {
            panic!("sabotaged: the index panics at a lease");
        }
        loop {
            std::thread::park();
        }
    });
    asked.map_err(|fault| index_lost(&fault))
}

fn take(inner: &Arc<Inner>, session: &SessionKey) -> Result<Option<Lease>, StoreError> {
    commit_defects(inner)?;
    while let Some(Candidate {
        row,
        owed,
        slot,
        word,
    }) = candidate(inner, session)?
    {
        let frame = slot.segment.read_frame(owed.start).ok();
        let meta = frame.as_ref().and_then(read_chunk);
        let (Some(frame), Some(meta)) = (frame, meta) else {
            set_aside(inner, session, row, &owed, &slot, word)?;
            continue;
        };
        if meta.key.session_key() != *session || meta.key.sequence != owed.sequence {
            return Err(disagrees(inner, session, "a row points to another chunk"));
        }
        let head = describe(inner, session, &owed, &word);
        let found = Candidate {
            row,
            owed,
            slot,
            word,
        };
        return Ok(Some(Lease::of(inner, found, frame, meta, head)));
    }
    Ok(None)
}

/// Buries a chunk whose frame does not read back; its key stands in the index.
fn set_aside(
    inner: &Inner,
    session: &SessionKey,
    row: RowKey,
    owed: &Owed,
    slot: &Arc<SegmentSlot>,
    word: Word,
) -> Result<(), StoreError> {
    let SessionKey {
        tenant,
        session: name,
    } = session.clone();
    let key = ChunkKey {
        tenant,
        session: name,
        sequence: owed.sequence,
    };
    tracing::error!(chunk = %key, segment = %slot.segment.id, "chunk is damaged and set aside");
    let place = Place {
        slot,
        ordinal: owed.ordinal,
        start: owed.start,
        bytes: owed.bytes,
    };
    write_burial(inner, &place, &key, word, DeadReason::Damaged, None)?;
    // Its digest is as unreadable as it is: its bytes may be given again anyhow.
    settled(inner, session, row, (owed.sequence, None), false);
    Ok(())
}

/// A chunk's place and size, for the verbs that change its word.
pub struct Place<'a> {
    pub slot: &'a SegmentSlot,
    pub ordinal: u32,
    pub start: u32,
    pub bytes: u64,
}

/// Note written and synced, then the word: after it the chunk is dead.
fn write_burial(
    inner: &Inner,
    place: &Place<'_>,
    key: &ChunkKey,
    word: Word,
    reason: DeadReason,
    record: Option<FailureRecord>,
) -> Result<(), StoreError> {
    let asked = key.clone();
    let earlier = inner.index.ask(move |tables| tables.retry(&asked));
    let mut history = earlier
        .ok()
        .flatten()
        .map_or_else(Vec::new, |retry| retry.history);
    history.extend(record);
    let dead = word.turned(ChunkState::Dead);
    inner.commits.note(Note::Bury(Burial {
        at: Location {
            segment: place.slot.segment.id,
            ordinal: place.ordinal,
        },
        version: dead.version,
        tenant: key.tenant.clone(),
        session: key.session.clone(),
        sequence: key.sequence,
        reason,
        died_at: inner.clock.wall(),
        history: bounded_history(history),
    }))?;
    let segment = &place.slot.segment;
    segment.change_word(place.ordinal, place.start, |_| Some(dead))?;
    let states = (ChunkState::Live, ChunkState::Dead);
    inner.turned(place.slot, place.ordinal, &key.tenant, place.bytes, states);
    Ok(())
}

/// The session owes one chunk less: of this sequence and digest, as far as that is known.
pub fn settled(
    inner: &Inner,
    session: &SessionKey,
    row: RowKey,
    (sequence, digest): (u64, Option<Digest>),
    delivered: bool,
) {
    let now = inner.clock.wall();
    let mut sessions = inner.sessions();
    let state = sessions.entry(session);
    state.owe_one_less();
    state.delay = state.delay.take().filter(|it| it.sequence != sequence);
    state.changed_at = now;
    if delivered {
        state.delivered_high = state.delivered_high.max(Some(sequence));
        sessions.last_delivery.insert(session.tenant.clone(), now);
    }
    drop(sessions);
    inner.index.change([Change::Settle {
        session: session.clone(),
        row,
        sequence,
        digest,
        delivered_at: delivered.then_some(now),
    }]);
}

impl Lease {
    pub(super) fn of(
        inner: &Arc<Inner>,
        found: Candidate,
        frame: FrameHead,
        meta: ChunkMeta,
        head: Head,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            slot: found.slot,
            session: meta.key.session_key(),
            row: found.row,
            owed: found.owed,
            frame,
            meta,
            head,
            sending: found.word.sending,
            settled: false,
        }
    }

    pub fn meta(&self) -> &ChunkMeta {
        &self.meta
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// A fresh reader over the payload, verified block by block; a damaged block is an error of kind `InvalidData`.
    pub fn payload(&self) -> io::Result<Box<dyn Payload>> {
        Ok(Box::new(reader(&self.inner, &self.slot, &self.frame)?))
    }

    /// Marks the chunk as being sent; call before the first byte leaves.
    pub fn sending(&mut self) -> Result<(), StoreError> {
        self.change_word(|word| Word {
            sending: true,
            ..word
        })?;
        self.sending = true;
        Ok(())
    }

    /// Delivered.
    pub fn ack(self) -> Result<(), StoreError> {
        self.leave(ChunkState::Delivered)
    }

    /// Stored there, and not yet taken in: out of the queue, and kept.
    pub fn confirm(self) -> Result<(), StoreError> {
        self.leave(ChunkState::Confirming)
    }

    fn leave(mut self, to: ChunkState) -> Result<(), StoreError> {
        stop_at("between_reply_and_ack");
        if !self.inner.sabotaged.is(Sabotage::ForgetWord) {
            self.change_word(|word| word.turned(to))?;
        }
        let (inner, row) = (&self.inner, self.row.clone());
        let known = (self.owed.sequence, Some(self.meta.digest));
        // The index before the books: a segment that owes nothing goes once the index has its digests.
        settled(inner, &self.session, row, known, true);
        let states = (ChunkState::Live, to);
        let (ordinal, tenant) = (self.owed.ordinal, &self.session.tenant);
        inner.turned(&self.slot, ordinal, tenant, self.owed.bytes, states);
        self.end();
        Ok(())
    }

    /// Try again, at the earliest after `delay`. `counted` uses one retry.
    pub fn nack(
        mut self,
        delay: Duration,
        counted: bool,
        record: Option<FailureRecord>,
    ) -> Result<(), StoreError> {
        if counted {
            self.change_word(Word::failed)?;
            self.sending = false;
        }
        let until = Deadline::after(self.inner.clock.as_ref(), delay);
        let sequence = self.owed.sequence;
        let delay = Some(Box::new(Delay { sequence, until }));
        self.inner.sessions().entry(&self.session).delay = delay;
        let key = self.meta.key.clone();
        self.inner
            .index
            .change([Change::Retry { key, until, record }]);
        self.finish()
    }

    /// Back as it was.
    pub fn release(self) -> Result<(), StoreError> {
        self.finish()
    }

    /// Set aside as a dead letter with its history; durable when it returns.
    pub fn bury(
        mut self,
        reason: DeadReason,
        record: Option<FailureRecord>,
    ) -> Result<(), StoreError> {
        let place = Place {
            slot: &self.slot,
            ordinal: self.owed.ordinal,
            start: self.owed.start,
            bytes: self.owed.bytes,
        };
        let word = match self.slot.segment.read_word(self.owed.ordinal)? {
            Slot::Word(word) => word,
            _ => Word::new(self.owed.start),
        };
        write_burial(&self.inner, &place, &self.meta.key, word, reason, record)?;
        let known = (self.owed.sequence, Some(self.meta.digest));
        settled(&self.inner, &self.session, self.row.clone(), known, false);
        self.end();
        Ok(())
    }

    fn change_word(&self, change: impl FnOnce(Word) -> Word) -> io::Result<Word> {
        let Owed { ordinal, start, .. } = self.owed;
        self.slot
            .segment
            .change_word(ordinal, start, |word| Some(change(word)))
    }

    /// Clears the mark of sending and gives the session back.
    fn finish(mut self) -> Result<(), StoreError> {
        let cleared = if self.sending {
            self.change_word(|word| Word {
                sending: false,
                ..word
            })
            .map(drop)
        } else {
            Ok(())
        };
        self.end();
        Ok(cleared?)
    }

    fn end(&mut self) {
        self.settled = true;
        give_back(&self.inner, &self.session);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.sending
            && let Err(error) = self.change_word(|word| Word {
                sending: false,
                ..word
            })
        {
            tracing::warn!(chunk = %self.meta.key, %error, "mark of sending stays set");
        }
        self.end();
    }
}
