//! What the segments say at open: their ends, their chunks, their notes, their damage.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::commit::NoteAt;
use super::frame::Kind;
use super::inner::{Book, Solo, solo_name};
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::payload::PayloadReader;
use super::record::{ChunkRecord, Location, Note};
use super::scan::{Found, walk};
use super::segment::{FrameHead, HeaderFault, Segment, SegmentHeader};
use super::sessions::Sessions;
use super::types::Damage;
use super::word::Word;
use crate::disk::Disk;
use crate::model::{ChunkKey, ChunkMeta, ChunkState};
use crate::sabotage::{Sabotage, Sabotaged};

/// The segment files that are there, and what should be there.
pub struct Inventory {
    pub segments: BTreeMap<SegmentId, (Segment, SegmentHeader)>,
    pub solos: Vec<u64>,
    pub damage: Vec<Damage>,
    /// Chunks in segments whose header is gone.
    pub unreadable: u64,
}

/// Reads the directory and every header; removes what was never finished or is retired already.
pub fn inventory(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    ledger: &mut Ledger,
) -> Result<Inventory, HeaderFault> {
    let mut found = Inventory {
        segments: BTreeMap::new(),
        solos: Vec::new(),
        damage: Vec::new(),
        unreadable: 0,
    };
    let mut headless = Vec::new();
    for name in disk.list(dir).map_err(HeaderFault::Io)? {
        let path = dir.join(&name);
        if let Some(id) = SegmentId::from_file_name(&name) {
            if ledger.retired.contains(u64::from(id.0)) {
                disk.remove(&path).map_err(HeaderFault::Io)?;
                continue;
            }
            match Segment::open(disk, &path) {
                Ok(opened) => drop(found.segments.insert(id, opened)),
                Err(HeaderFault::Damaged) => headless.push(id),
                Err(other) => return Err(other),
            }
        } else if let Some(solo) = name.strip_suffix(".solo") {
            found.solos.extend(u64::from_str_radix(solo, 16));
        } else if name.ends_with(".new") {
            disk.remove(&path).map_err(HeaderFault::Io)?;
        }
    }
    account_for_the_missing(&mut found, &headless, ledger);
    Ok(found)
}

fn account_for_the_missing(found: &mut Inventory, headless: &[SegmentId], ledger: &mut Ledger) {
    let mut expected: BTreeMap<SegmentId, u32> = ledger
        .closed
        .iter()
        .map(|(id, closed)| (*id, closed.chunks))
        .collect();
    for (_, header) in found.segments.values() {
        if let Some(predecessor) = header.predecessor {
            expected.insert(predecessor.id, predecessor.chunks);
        }
    }
    for id in headless {
        let chunks = expected.get(id).copied().unwrap_or(0);
        found.unreadable += u64::from(chunks);
        found.damage.push(Damage {
            segment: id.file_name(),
            offset: 0,
            tenant: None,
            session: None,
            sequence: None,
            reason: format!("both header copies are damaged; {chunks} chunks cannot be read"),
        });
    }
    for (id, chunks) in expected {
        let known = found.segments.contains_key(&id) || headless.contains(&id);
        if !known && !ledger.retired.contains(u64::from(id.0)) {
            tracing::error!(segment = %id, chunks, "segment is missing: its chunks are lost");
            ledger.lost += u64::from(chunks);
            ledger.retired.insert(u64::from(id.0));
            ledger.closed.remove(&id);
        }
    }
}

/// Where each segment's accepted frames end. The last segment of an opening that ended badly does not say; its tail is
/// looked at, and what holds is written again in place, because an earlier sync of it may have failed unseen.
pub fn ends(
    found: &Inventory,
    ledger: &Ledger,
    dir: &Path,
    disk: &dyn Disk,
    sabotaged: Sabotaged,
) -> io::Result<BTreeMap<SegmentId, Closed>> {
    let mut ends = ledger.closed.clone();
    for (_, header) in found.segments.values() {
        if let Some(predecessor) = header.predecessor {
            let closed = Closed {
                chunks: predecessor.chunks,
                end: predecessor.end,
            };
            ends.insert(predecessor.id, closed);
        }
    }
    for (id, (segment, _)) in &found.segments {
        if !ends.contains_key(id) {
            ends.insert(*id, settle_end(segment, dir, disk, sabotaged)?);
        }
    }
    Ok(ends)
}

fn settle_end(
    segment: &Segment,
    dir: &Path,
    disk: &dyn Disk,
    sabotaged: Sabotaged,
) -> io::Result<Closed> {
    let mut steps = Vec::new();
    walk(segment, None, |step| {
        steps.push(step);
        Ok(())
    })?;
    let told_by_frames = steps.iter().filter_map(|step| match step {
        Found::Chunk { head, .. } | Found::Note { head } => {
            let synced = head.header.synced;
            (synced.segment == segment.id).then_some(synced.offset)
        }
        _ => None,
    });
    let start = segment.layout.data_start() as u32;
    let durable = told_by_frames
        .max()
        .unwrap_or(0)
        .max(segment.read_synced()?)
        .max(start);
    let mut closed = Closed {
        chunks: 0,
        end: durable,
    };
    let mut tail_words: Vec<(u32, Word)> = Vec::new();
    for step in &steps {
        let beyond = step.start() >= durable;
        match step {
            Found::Chunk {
                ordinal,
                head,
                word,
                ..
            } => {
                if beyond {
                    if !tail_holds(segment, head, dir, disk)? {
                        break;
                    }
                    // Not a byte more: the rest of its commit may be torn.
                    closed.end = head.next() as u32;
                    tail_words.push((*ordinal, *word));
                }
                closed.chunks = ordinal + 1;
            }
            Found::Note { head } if beyond => closed.end = head.next() as u32,
            Found::DamagedChunk { .. } | Found::DamagedRange { .. } if beyond => break,
            Found::DamagedChunk { ordinal, .. } => closed.chunks = ordinal + 1,
            Found::Note { .. } | Found::DamagedRange { .. } => {}
        }
    }
    if closed.end > durable && !sabotaged.is(Sabotage::TrustPageCache) {
        write_again(segment, durable, closed.end, &tail_words)?;
    }
    Ok(closed)
}

fn tail_holds(
    segment: &Segment,
    head: &FrameHead,
    dir: &Path,
    disk: &dyn Disk,
) -> io::Result<bool> {
    let Kind::Chunk {
        payload_bytes,
        solo,
        ..
    } = head.header.kind
    else {
        return Ok(true);
    };
    let mut reader = match solo {
        Some(solo) => match disk.open(&dir.join(solo_name(solo))) {
            Ok(file) => PayloadReader::solo(file, payload_bytes, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        },
        None => Ok(PayloadReader::new(
            segment.file()?,
            head.payload_at(),
            payload_bytes,
            head.block_crcs.clone(),
            true,
        )),
    };
    let read = reader
        .as_mut()
        .map_err(|_| ())
        .and_then(|reader| io::copy(&mut reader.take(u64::MAX), &mut io::sink()).map_err(|_| ()));
    Ok(read == Ok(payload_bytes))
}

/// Writes the same bytes to the same place, so that the sync that follows tells the truth about them.
fn write_again(segment: &Segment, from: u32, to: u32, words: &[(u32, Word)]) -> io::Result<()> {
    let file = segment.file()?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = u64::from(from);
    while at < u64::from(to) {
        let length = (u64::from(to) - at).min(buffer.len() as u64) as usize;
        let read = super::segment::read_patiently(file.as_ref(), &mut buffer[..length], at)?;
        if read == 0 {
            break;
        }
        file.write_at(&[&buffer[..read]], at)?;
        at += read as u64;
    }
    for (ordinal, word) in words {
        segment.write_words(*ordinal, &[*word])?;
    }
    segment.sync()?;
    segment.write_synced(to)?;
    tracing::info!(segment = %segment.id, bytes = to - from, "written again: a tail whose sync is not known");
    Ok(())
}

/// What a walk over all segments told.
#[derive(Default)]
pub struct Survey {
    pub books: BTreeMap<SegmentId, Book>,
    pub sessions: Sessions,
    pub notes: Vec<(Note, NoteAt)>,
    pub damage: Vec<Damage>,
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
}

/// Reads every accepted frame's head once.
pub fn survey(
    segments: &BTreeMap<SegmentId, (Segment, SegmentHeader)>,
    ends: &BTreeMap<SegmentId, Closed>,
    ledger: &Ledger,
) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for line in &ledger.sessions {
        let state = survey.sessions.entry(&line.key);
        state.accepted = line.accepted.clone();
        state.delivered_high = line.delivered_high;
        state.changed_at = line.changed_at;
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
        let readable: u64 = book
            .tallies
            .values()
            .map(|tally| tally.accepted.chunks)
            .sum();
        book.unreadable = u64::from(closed.chunks).saturating_sub(readable + book.moved);
        survey.books.insert(*id, book);
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
                self.highest_number = self.highest_number.max(head.header.number);
                match read_chunk(&head) {
                    Some(meta) => {
                        let at = Location {
                            segment: segment.id,
                            ordinal,
                        };
                        if !word_was_readable {
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
                    Ok(note) => self.notes.push((note, at)),
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

    fn chunk(
        &mut self,
        book: &mut Book,
        at: Location,
        head: &FrameHead,
        word: &Word,
        meta: &ChunkMeta,
    ) {
        if word.state == ChunkState::Moved {
            book.moved += 1;
            return;
        }
        book.tallies
            .entry(meta.key.tenant.clone())
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
        if word.sending {
            self.crashed.push((at, head.start));
        }
        let state = self.sessions.entry(&meta.key.session_key());
        state.accepted.insert(meta.key.sequence);
        state.changed_at = state.changed_at.max(head.header.accepted_at);
        match word.state {
            ChunkState::Live | ChunkState::Confirming => {
                state.owed += 1;
                self.live += 1;
            }
            ChunkState::Dead => self.dead.push((meta.key.clone(), at, word.version)),
            ChunkState::Delivered => {
                state.delivered_high = state.delivered_high.max(Some(meta.key.sequence));
            }
            _ => {}
        }
    }

    /// A chunk whose frame does not read back is known by name after all: it is a dead letter of its tenant.
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
        self.damage.push(Damage {
            segment: segment.id.file_name(),
            offset: u64::from(start),
            tenant: None,
            session: None,
            sequence: None,
            reason: reason.to_owned(),
        });
    }
}

/// A chunk frame's metadata.
pub fn read_chunk(head: &FrameHead) -> Option<ChunkMeta> {
    let Kind::Chunk { payload_bytes, .. } = head.header.kind else {
        return None;
    };
    ChunkRecord::decode(&head.record, payload_bytes).ok()
}
