//! Taking a backlog in: each chunk through the same commit as any other, under its own host's name; then the sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::export::without;
use super::wire::{Chunk, Death, Entry, Fault, Reader, Session};
use crate::model::{ChunkKey, ChunkState, HostName, SessionKey, TenantId};
use crate::store::enqueue::enqueue;
use crate::store::error::{EnqueueError, StoreError};
use crate::store::head::following;
use crate::store::inner::Inner;
use crate::store::intervals::Intervals;
use crate::store::known::owed_digest;
use crate::store::lease::settled;
use crate::store::pins;
use crate::store::record::{Burial, Location, Note, bounded_history};
use crate::store::roll::write_ledger;
use crate::store::types::{NewChunk, Origin, Outcome, SequenceChoice};

/// More refusals than this are counted and not named.
const NAMED_MAX: usize = 1_000;

/// What an import did.
#[derive(Debug, Default)]
pub struct Imported {
    /// Whose backlog it was.
    pub from: Option<HostName>,
    /// Accepted now, dead letters among them.
    pub chunks: u64,
    pub bytes: u64,
    pub dead: u64,
    /// Here already, with the same bytes.
    pub known: u64,
    pub sessions: u64,
    /// How many chunks and sessions were refused; the first of them are named.
    pub refused: u64,
    pub named: Vec<Refused>,
}

#[derive(Debug)]
pub struct Refused {
    pub session: SessionKey,
    /// `None`: what is known of the session.
    pub sequence: Option<u64>,
    pub error: EnqueueError,
}

/// An import that ended early, and what it did before. Repeating it is safe.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct ImportError {
    pub done: Imported,
    #[source]
    pub fault: ImportFault,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportFault {
    #[error(transparent)]
    Stream(#[from] Fault),
    #[error(transparent)]
    Refused(#[from] EnqueueError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImportFault {
    /// Whether the stream itself is at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Stream(Fault::Damaged { .. }))
    }

    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Stream(Fault::Newer { .. }))
    }
}

struct Import<'a> {
    inner: &'a Inner,
    done: Imported,
    refused: BTreeMap<SessionKey, BTreeSet<u64>>,
    seen: &'a mut dyn FnMut(u64, u64),
    expected: u64,
    passed: u64,
}

pub fn import(
    inner: &Inner,
    from: &mut dyn Read,
    seen: &mut dyn FnMut(u64, u64),
) -> Result<Imported, Box<ImportError>> {
    let mut import = Import {
        inner,
        done: Imported::default(),
        refused: BTreeMap::new(),
        seen,
        expected: 0,
        passed: 0,
    };
    match import.run(from) {
        Ok(()) => Ok(import.done),
        Err(fault) => Err(Box::new(ImportError {
            done: import.done,
            fault,
        })),
    }
}

impl Import<'_> {
    fn run(&mut self, from: &mut dyn Read) -> Result<(), ImportFault> {
        let mut from = Reader::begin(from)?;
        let Entry::Begin(begin) = from.entry()? else {
            return Err(from.damaged("it does not begin with its beginning").into());
        };
        self.done.from = Some(begin.host);
        self.expected = begin.bytes;
        let (mut chunks, mut sessions) = (0, 0);
        let end = loop {
            match from.entry()? {
                Entry::Begin(_) => return Err(from.damaged("it begins twice").into()),
                Entry::Pin {
                    tenant,
                    organisation,
                } => self.pin(&tenant, &organisation)?,
                Entry::Chunk(chunk) => {
                    chunks += 1;
                    self.chunk(&mut from, *chunk)?;
                }
                Entry::Session(session) => {
                    sessions += 1;
                    self.session(*session);
                }
                Entry::End(end) => break end,
            }
        };
        if (end.chunks, end.sessions) != (chunks, sessions) {
            return Err(from.damaged("its end counts other chunks").into());
        }
        from.expect_end()?;
        write_ledger(self.inner).map_err(StoreError::Io)?;
        Ok(())
    }

    /// A tenant that is not delivered here has no pin here; its chunks say so one by one.
    fn pin(&self, tenant: &TenantId, organisation: &str) -> Result<(), StoreError> {
        if !self.inner.settings.tenants.contains(tenant) {
            return Ok(());
        }
        pins::pin(self.inner, tenant, organisation)
    }

    fn chunk(&mut self, from: &mut Reader<'_>, chunk: Chunk) -> Result<(), ImportFault> {
        let new = NewChunk {
            tenant: chunk.session.tenant.clone(),
            session: chunk.session.session.clone(),
            sequence: SequenceChoice::Exactly(chunk.sequence),
            started_at: chunk.started_at,
            duration_ms: chunk.duration_ms,
            media_type: chunk.media_type.clone(),
            last: chunk.last,
            length: Some(chunk.bytes),
        };
        let origin = Origin {
            host: chunk.host.clone(),
            // A clock that went ahead there must not make anything wait here.
            accepted_at: chunk.accepted_at.min(self.inner.clock.wall()),
        };
        let key = chunk.key();
        let mut payload = from.payload(&chunk);
        let answer = enqueue(self.inner, new, Some(origin), &mut payload);
        payload.finish()?;
        match answer {
            Ok(enqueued) if enqueued.outcome == Outcome::Accepted => {
                self.done.chunks += 1;
                self.done.bytes += chunk.bytes;
                if let Some(death) = chunk.death {
                    bury(self.inner, &key, chunk.bytes, death)?;
                    self.done.dead += 1;
                }
            }
            Ok(_) => self.done.known += 1,
            Err(error) => self.refuse(chunk.session, Some(chunk.sequence), error)?,
        }
        self.passed += chunk.bytes;
        (self.seen)(self.passed, self.expected);
        Ok(())
    }

    /// What is wrong with one chunk is said of it; what is wrong here ends the import.
    fn refuse(
        &mut self,
        session: SessionKey,
        sequence: Option<u64>,
        error: EnqueueError,
    ) -> Result<(), EnqueueError> {
        let ends = matches!(
            error,
            EnqueueError::Full(_)
                | EnqueueError::Latched(_)
                | EnqueueError::Payload(_)
                | EnqueueError::Io(_)
                | EnqueueError::Closing
        );
        if ends {
            return Err(error);
        }
        if let Some(sequence) = sequence {
            let refused = self.refused.entry(session.clone()).or_default();
            refused.insert(sequence);
        }
        self.done.refused += 1;
        if self.done.named.len() < NAMED_MAX {
            self.done.named.push(Refused {
                session,
                sequence,
                error,
            });
        }
        Ok(())
    }

    /// Adds what that host knew of a session. What was refused of it just now is not known by that.
    fn session(&mut self, entry: Session) {
        let Session { key, accepted, .. } = entry;
        let mut given = Intervals::default();
        given.extend(accepted);
        let refused = self.refused.remove(&key).unwrap_or_default();
        if !self.inner.settings.tenants.contains(&key.tenant) {
            return;
        }
        let mut sessions = self.inner.sessions();
        let state = sessions.entry(&key);
        let mut merged = state.accepted.clone();
        merged.extend(without(&given, &refused));
        if merged.is_too_many() {
            drop(sessions);
            let error = EnqueueError::TooManyGaps {
                session: key.session.to_string(),
                limit: crate::store::intervals::INTERVALS_MAX,
            };
            // Not one of those that end the import.
            let _ = self.refuse(key, None, error);
            return;
        }
        state.accepted = merged;
        state.delivered_high = state.delivered_high.max(entry.delivered_high);
        state.changed_at = state.changed_at.max(entry.changed_at);
        if let Some(at) = entry.ended_at {
            state.end(at);
        }
        state.promoted |= entry.promoted && state.owed > 0;
        self.done.sessions += 1;
    }
}

/// What was a dead letter there is one here, with the same history. A process that ends before this leaves a live chunk,
/// which gets one more try.
fn bury(inner: &Inner, key: &ChunkKey, bytes: u64, death: Death) -> Result<(), StoreError> {
    let session = key.session_key();
    let Some(found) = following(inner, &session, key.sequence)? else {
        return Err(StoreError::Damaged);
    };
    let dead = found.word.turned(ChunkState::Dead);
    inner.commits.note(Note::Bury(Burial {
        at: Location {
            segment: found.slot.segment.id,
            ordinal: found.owed.ordinal,
        },
        version: dead.version,
        tenant: key.tenant.clone(),
        session: key.session.clone(),
        sequence: key.sequence,
        reason: death.reason,
        died_at: death.died_at,
        history: bounded_history(death.history),
    }))?;
    let (segment, ordinal) = (&found.slot.segment, found.owed.ordinal);
    segment.change_word(ordinal, found.owed.start, |_| Some(dead))?;
    let states = (ChunkState::Live, ChunkState::Dead);
    inner.turned(&found.slot, ordinal, &key.tenant, bytes, states);
    let digest = owed_digest(inner, &session, &found.owed);
    settled(inner, &session, found.row, (key.sequence, digest), false);
    Ok(())
}
