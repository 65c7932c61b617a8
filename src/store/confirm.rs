//! Chunks that their platform has stored and not yet taken in. They are out of the queue, and keep their segment until the
//! platform says what became of them.

use std::time::Duration;

use super::Store;
use super::error::StoreError;
use super::index::{Change, Owed, print_of};
use super::inner::Inner;
use super::record::Location;
use super::recover::read_chunk;
use super::word::{Slot, Word};
use crate::clock::Deadline;
use crate::model::{ChunkKey, ChunkMeta, ChunkState, FailureRecord, TenantId, Timestamp};

/// A chunk in the state *confirming*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirming {
    pub meta: ChunkMeta,
    pub place: ConfirmPlace,
    start: u32,
    number: u64,
    accepted_at: Timestamp,
}

/// Where it stands, in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfirmPlace(Location);

impl Store {
    /// At most `limit` chunks that the tenant's platform stored and did not yet take in, behind `after`.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn confirming(
        &self,
        tenant: &TenantId,
        after: Option<ConfirmPlace>,
        limit: usize,
    ) -> Result<Vec<Confirming>, StoreError> {
        find(&self.inner, tenant, after, limit, |_| true)
    }

    /// Delivered. Nothing happens to a chunk that is confirming no more.
    pub fn confirmed(&self, chunk: &Confirming) -> Result<(), StoreError> {
        confirmed(&self.inner, chunk)
    }

    /// Owed again, with one retry used; `record` says why.
    pub fn unconfirmed(&self, chunk: &Confirming, record: FailureRecord) -> Result<(), StoreError> {
        unconfirmed(&self.inner, chunk, record)
    }
}

/// Whether the platform has stored this chunk, and not yet said that it took it in.
pub fn is_confirming(inner: &Inner, key: &ChunkKey) -> Result<bool, StoreError> {
    let found = find(inner, &key.tenant, None, 1, |meta| meta.key == *key)?;
    Ok(!found.is_empty())
}

/// At most `limit` of a tenant's that are wanted, behind `after`.
fn find(
    inner: &Inner,
    tenant: &TenantId,
    after: Option<ConfirmPlace>,
    limit: usize,
    is_wanted: impl Fn(&ChunkMeta) -> bool,
) -> Result<Vec<Confirming>, StoreError> {
    let mut found = Vec::new();
    let slots: Vec<_> = inner.segments().values().cloned().collect();
    for slot in slots {
        let (chunks, confirming) = {
            let book = slot.book();
            let tally = book.tallies.get(tenant);
            (book.chunks, tally.map_or(0, |t| t.confirming.chunks))
        };
        if confirming == 0 {
            continue;
        }
        for ordinal in 0..chunks {
            let segment = slot.segment.id;
            let place = ConfirmPlace(Location { segment, ordinal });
            if after.is_some_and(|after| place <= after) {
                continue;
            }
            let word = match slot.segment.read_word(ordinal)? {
                Slot::Word(word) if word.state == ChunkState::Confirming => word,
                _ => continue,
            };
            let Ok(head) = slot.segment.read_frame(word.start) else {
                continue;
            };
            let of_tenant = |meta: &ChunkMeta| meta.key.tenant == *tenant && is_wanted(meta);
            let Some(meta) = read_chunk(&head).filter(of_tenant) else {
                continue;
            };
            found.push(Confirming {
                meta,
                place,
                start: word.start,
                number: head.header.number,
                accepted_at: head.header.accepted_at,
            });
            if found.len() == limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// It was taken in: delivered. Nothing happens to one that is confirming no more.
fn confirmed(inner: &Inner, chunk: &Confirming) -> Result<(), StoreError> {
    turn(inner, chunk, |word| word.turned(ChunkState::Delivered)).map(drop)
}

/// It was not taken in: owed again, with one retry used.
fn unconfirmed(inner: &Inner, chunk: &Confirming, record: FailureRecord) -> Result<(), StoreError> {
    if !turn(inner, chunk, |word| word.turned(ChunkState::Live).failed())? {
        return Ok(());
    }
    let (key, session) = (chunk.meta.key.clone(), chunk.meta.key.session_key());
    {
        let mut sessions = inner.sessions();
        let state = sessions.entry(&session);
        state.accepted.insert(key.sequence);
        state.owed += 1;
        state.changed_at = inner.clock.wall();
    }
    let owed = Owed {
        sequence: key.sequence,
        number: chunk.number,
        ordinal: chunk.place.0.ordinal,
        start: chunk.start,
        bytes: chunk.meta.bytes,
        accepted_at: chunk.accepted_at,
        segment: chunk.place.0.segment,
        print: print_of(&chunk.meta.digest),
    };
    let until = Deadline::after(inner.clock.as_ref(), Duration::ZERO);
    let record = Some(record);
    inner.index.change([
        Change::Owe { session, owed },
        Change::Retry { key, until, record },
    ]);
    Ok(())
}

/// Whether it was still confirming.
fn turn(
    inner: &Inner,
    chunk: &Confirming,
    change: impl FnOnce(Word) -> Word,
) -> Result<bool, StoreError> {
    let _placing = inner.placing.read().expect("no holder panics");
    let Location { segment, ordinal } = chunk.place.0;
    let Some(slot) = inner.slot(segment) else {
        return Ok(false);
    };
    let mut was = false;
    let word = slot.segment.change_word(ordinal, chunk.start, |word| {
        was = word.state == ChunkState::Confirming;
        was.then(|| change(word))
    })?;
    if was {
        let states = (ChunkState::Confirming, word.state);
        let tenant = &chunk.meta.key.tenant;
        inner.turned(&slot, ordinal, tenant, chunk.meta.bytes, states);
    }
    Ok(was)
}
