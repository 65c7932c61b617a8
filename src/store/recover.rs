//! What the segments say at open: their ends, their chunks, their notes, their damage.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use super::frame::Kind;
use super::header::SegmentHeader;
use super::index::{self, Fact, Gathered, Owed, print_of};
use super::inner::{Book, Solo};
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::queue::NoteAt;
use super::record::{Burial, ChunkRecord, Location, Note, RawChunk};
use super::scan::{Found, walk};
use super::segment::{FrameHead, Segment};
use super::sessions::{Seen, Sessions};
use super::twins::Suspects;
use super::types::Damage;
use super::word::Word;
use crate::model::{
    ChunkKey, ChunkMeta, ChunkState, DeadReason, Digest, HostName, SessionKey, TenantId,
};

/// What a walk over all segments told.
#[derive(Default)]
pub struct Survey {
    pub books: BTreeMap<SegmentId, Book>,
    pub sessions: Sessions,
    pub notes: Vec<(Note, NoteAt)>,
    pub damage: Vec<Damage>,
    /// Found wrong and made right by this opening.
    pub mended: Vec<Damage>,
    pub highest_number: u64,
    pub live: u64,
    /// Payload files that some frame names.
    pub solos: BTreeSet<u64>,
    /// Chunks that were on the wire when the process ended.
    pub crashed: Vec<(Location, u32)>,
    /// Chunks whose frames do not read back, with their words.
    pub nameless: BTreeMap<Location, Word>,
    /// Dead letters by their words; their notes should say why.
    pub dead: Vec<(ChunkKey, Location, u16)>,
    /// Words that could not be read, and what they are taken for.
    pub rewrite: Vec<(Location, Word)>,
    /// Damaged chunks whose bytes were given again: a younger frame has their key.
    pub replaced: Vec<Location>,
    /// Chunks that may be there twice.
    pub twins: Suspects,
    /// Burials of dead letters that were found at a new place, to be written.
    pub burials: Vec<Burial>,
    /// Enqueue numbers from here on are younger than the ledger.
    fresh_from: u64,
    /// Chunks that were buried as damaged.
    damaged_ones: HashMap<ChunkKey, Location>,
    /// What fills an index, where that is wanted; dropped if it becomes too much for one go.
    pub gathered: Option<Gathered>,
    tenants: HashSet<TenantId>,
}

/// Reads every accepted frame's head once, and gathers on the way what an index is filled with, if that is wanted. The
/// ledger's lines are gone by then: of many sessions they are as large as what is made of them.
pub fn survey(
    segments: &BTreeMap<SegmentId, (Segment, SegmentHeader)>,
    ends: &BTreeMap<SegmentId, Closed>,
    ledger: &mut Ledger,
    gather: bool,
) -> io::Result<Survey> {
    let lines = std::mem::take(&mut ledger.sessions);
    let mut survey = Survey {
        fresh_from: ledger.next_number,
        gathered: gather.then(Gathered::default),
        ..Survey::default()
    };
    survey.sessions.by_key.reserve(lines.len());
    for line in lines {
        let key = SessionKey {
            tenant: shared(line.key.tenant, &mut survey.tenants),
            session: line.key.session,
        };
        let state = survey.sessions.entry(&key);
        state.accepted = line.accepted;
        state.delivered_high = line.delivered_high;
        state.changed_at = line.changed_at;
        state.ended_at = line.ended_at;
        state.promoted = line.promoted;
        state.seen = Some(Seen {
            changed_at: line.changed_at,
            running_ms: line.quiet_from_ms,
        });
    }
    for (id, (segment, _)) in segments {
        let closed = ends[id];
        let mut book = Book {
            chunks: closed.chunks,
            end: closed.end,
            ..Book::default()
        };
        walk(segment, Some(closed.end), |step| {
            survey.step(segment, &mut book, step);
            Ok(())
        })?;
        segment.close_file();
        let readable: u64 = book
            .tallies
            .values()
            .map(|tally| tally.accepted.chunks)
            .sum();
        book.unreadable = u64::from(closed.chunks).saturating_sub(readable + book.moved);
        survey.books.insert(*id, book);
    }
    for state in survey.sessions.by_key.values_mut() {
        state.promoted &= state.owed > 0;
    }
    Ok(survey)
}

impl Survey {
    fn step(&mut self, segment: &Segment, book: &mut Book, step: Found) {
        match step {
            Found::Chunk {
                ordinal,
                head,
                word,
                word_was_readable,
            } => {
                let highest = self.highest_number;
                self.highest_number = highest.max(head.header.number);
                match self.brief(&head) {
                    Some(meta) => {
                        let at = Location {
                            segment: segment.id,
                            ordinal,
                        };
                        if word.state != ChunkState::Moved {
                            self.twins.saw(head.header.number, at, highest);
                        }
                        if !word_was_readable {
                            let place = segment.layout.word_at(ordinal);
                            let reason =
                                "a state word does not read back; taken for live and written again";
                            let mended = Damage::at(segment.id.file_name(), place, reason);
                            self.mended.push(mended.of(Some(&meta.key())));
                            self.rewrite.push((at, word));
                        }
                        self.chunk(book, at, &head, &word, &meta);
                    }
                    None => self.damaged(segment, head.start, "metadata does not decode"),
                }
            }
            Found::Note { head } => {
                self.highest_number = self.highest_number.max(head.header.number);
                let at = NoteAt {
                    segment: segment.id,
                    start: head.start,
                };
                match Note::decode(&head.record) {
                    Ok(note) => self.note(note, at),
                    Err(_) => self.damaged(segment, head.start, "note does not decode"),
                }
            }
            Found::DamagedChunk {
                ordinal,
                start,
                word,
            } => {
                if word.state == ChunkState::Moved {
                    book.moved += 1;
                } else {
                    self.nameless.insert(
                        Location {
                            segment: segment.id,
                            ordinal,
                        },
                        word,
                    );
                }
                self.damaged(segment, start, "chunk frame does not read back");
            }
            Found::DamagedRange { start, end } => {
                self.damaged(segment, start, &format!("no frame up to {end}"));
            }
        }
    }

    pub fn brief(&mut self, head: &FrameHead) -> Option<Brief> {
        brief(head, &self.sessions, &mut self.tenants)
    }

    fn note(&mut self, note: Note, at: NoteAt) {
        if let Note::Bury(burial) = &note
            && burial.reason == DeadReason::Damaged
        {
            self.damaged_ones.insert(burial.key(), burial.at);
        }
        if let Note::SessionEnd { session, at } = &note
            && let Some(state) = self.sessions.by_key.get_mut(session)
        {
            state.end(*at);
        }
        self.notes.push((note, at));
    }

    fn chunk(
        &mut self,
        book: &mut Book,
        at: Location,
        head: &FrameHead,
        word: &Word,
        meta: &Brief,
    ) {
        if word.state == ChunkState::Moved {
            book.moved += 1;
            return;
        }
        book.tallies
            .entry(meta.session.tenant.clone())
            .or_default()
            .accept(word.state, meta.bytes);
        if let Kind::Chunk { solo: Some(id), .. } = head.header.kind {
            self.solos.insert(id);
            let finished = !word.state.is_owed();
            book.solos.insert(
                at.ordinal,
                Solo {
                    id,
                    bytes: meta.bytes,
                    finished,
                },
            );
        }
        if !self.damaged_ones.is_empty() {
            let elsewhere = self.damaged_ones.get(&meta.key());
            self.replaced.extend(elsewhere.filter(|it| **it != at));
        }
        if word.sending {
            self.crashed.push((at, head.start));
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.add(&meta.session, &fact(at, head, word, meta));
        }
        if self.gathered.as_ref().is_some_and(Gathered::is_full) {
            self.gathered = None;
        }
        let state = self.sessions.entry(&meta.session);
        state.accepted.insert(meta.sequence);
        state.changed_at = state.changed_at.max(head.header.accepted_at);
        if head.header.number >= self.fresh_from {
            state.seen = None;
        }
        if meta.last {
            state.end(head.header.accepted_at);
        }
        match word.state {
            ChunkState::Live => {
                state.owed += 1;
                self.live += 1;
            }
            ChunkState::Dead => self.dead.push((meta.key(), at, word.version)),
            ChunkState::Delivered | ChunkState::Confirming => {
                state.delivered_high = state.delivered_high.max(Some(meta.sequence));
            }
            _ => {}
        }
    }

    /// A chunk whose frame does not read back is known by name after all: it is its tenant's, and not owed any more.
    pub fn named(&mut self, at: Location, key: &ChunkKey, bytes: u64) {
        let Some(word) = self.nameless.remove(&at) else {
            return;
        };
        let Some(book) = self.books.get_mut(&at.segment) else {
            return;
        };
        let state = if word.state == ChunkState::Live {
            ChunkState::Dead
        } else {
            word.state
        };
        book.tallies
            .entry(key.tenant.clone())
            .or_default()
            .accept(state, bytes);
        book.unreadable = book.unreadable.saturating_sub(1);
        self.sessions
            .entry(&key.session_key())
            .accepted
            .insert(key.sequence);
    }

    fn damaged(&mut self, segment: &Segment, start: u32, reason: &str) {
        tracing::error!(segment = %segment.id, offset = start, reason, "damage set aside");
        let damage = Damage::at(segment.id.file_name(), u64::from(start), reason);
        self.damage.push(damage);
    }
}

/// Of a chunk's metadata what a walk over all of them needs.
pub struct Brief {
    pub session: SessionKey,
    pub sequence: u64,
    pub bytes: u64,
    pub digest: Digest,
    last: bool,
}

/// The names that are known already are shared, so that a million chunks cost no memory but that of their sessions.
fn brief(head: &FrameHead, sessions: &Sessions, tenants: &mut HashSet<TenantId>) -> Option<Brief> {
    let Kind::Chunk { payload_bytes, .. } = head.header.kind else {
        return None;
    };
    let raw = RawChunk::decode(&head.record).ok()?;
    if !HostName::is_valid(raw.host) {
        return None;
    }
    let session = match sessions.key(raw.tenant, raw.session) {
        Some(key) => key.clone(),
        None => SessionKey {
            tenant: shared(raw.tenant.parse().ok()?, tenants),
            session: raw.session.parse().ok()?,
        },
    };
    Some(Brief {
        session,
        sequence: raw.sequence,
        bytes: payload_bytes,
        digest: Digest(raw.digest),
        last: raw.last,
    })
}

impl Brief {
    fn key(&self) -> ChunkKey {
        let SessionKey { tenant, session } = self.session.clone();
        ChunkKey {
            tenant,
            session,
            sequence: self.sequence,
        }
    }
}

fn shared(tenant: TenantId, tenants: &mut HashSet<TenantId>) -> TenantId {
    if let Some(known) = tenants.get(&tenant) {
        return known.clone();
    }
    tenants.insert(tenant.clone());
    tenant
}

/// What an index has of a chunk that did not move elsewhere.
pub fn fact(at: Location, head: &FrameHead, word: &Word, meta: &Brief) -> Fact {
    let sequence = meta.sequence;
    if word.state == ChunkState::Live {
        return Fact::Owed(Owed {
            sequence,
            number: head.header.number,
            segment: at.segment,
            ordinal: at.ordinal,
            start: head.start,
            bytes: meta.bytes,
            accepted_at: head.header.accepted_at,
            print: print_of(&meta.digest),
        });
    }
    let digest = meta.digest.0;
    Fact::Settled {
        seen: index::Seen { sequence, digest },
        purged: word.state == ChunkState::Purged,
    }
}

/// A chunk frame's metadata.
pub fn read_chunk(head: &FrameHead) -> Option<ChunkMeta> {
    let Kind::Chunk { payload_bytes, .. } = head.header.kind else {
        return None;
    };
    ChunkRecord::decode(&head.record, payload_bytes).ok()
}
