//! Writing a backlog: what is owed in the order of its acceptance, then the sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use super::wire::{BLOCK, Begin, Chunk, Death, End, Entry, Session, Writer};
use crate::model::{ChunkKey, ChunkState, DeadReason, SessionKey, Timestamp};
use crate::store::dead;
use crate::store::inner::{Inner, SegmentSlot};
use crate::store::intervals::Intervals;
use crate::store::layout::SegmentId;
use crate::store::payload::reader;
use crate::store::record::Location;
use crate::store::recover::read_chunk;
use crate::store::scan::{Found, walk};
use crate::store::segment::FrameHead;
use crate::store::types::Damage;
use crate::store::word::Slot;

/// What an export holds.
#[derive(Debug, Default)]
pub struct Exported {
    /// Dead letters among them.
    pub chunks: u64,
    pub bytes: u64,
    pub dead: u64,
    pub sessions: u64,
    /// Owed, and not in it: what does not read back.
    pub left_out: Vec<Damage>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("export write")]
    Write(#[source] io::Error),
    #[error("store read")]
    Read(#[source] io::Error),
}

struct Export<'a> {
    inner: &'a Inner,
    to: Writer<'a>,
    seen: &'a mut dyn FnMut(u64, u64),
    expected: u64,
    report: Exported,
    names: BTreeMap<Location, ChunkKey>,
    /// By enqueue number: segment, ordinal, start.
    owed: Vec<(u64, SegmentId, u32, u32)>,
    missing: BTreeMap<SessionKey, BTreeSet<u64>>,
}

pub fn export<'a>(
    inner: &'a Inner,
    to: &'a mut dyn Write,
    seen: &'a mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let tallies = inner.tallies();
    let owed = tallies
        .values()
        .map(|tally| tally.live.bytes + tally.confirming.bytes + tally.dead.bytes);
    let expected = owed.sum();
    let names = {
        let notes = inner.notes();
        let names = notes.burials.iter().map(|(key, at)| (at.at, key.clone()));
        names.collect()
    };
    let to = Writer::begin(to, crate::store::roll::fresh_nonce()).map_err(ExportError::Write)?;
    let mut export = Export {
        inner,
        to,
        seen,
        expected,
        report: Exported::default(),
        names,
        owed: Vec::new(),
        missing: BTreeMap::new(),
    };
    export.run()?;
    Ok(export.report)
}

impl Export<'_> {
    fn run(&mut self) -> Result<(), ExportError> {
        self.write(&Entry::Begin(Begin {
            host: self.inner.settings.host.clone(),
            at: self.inner.clock.wall(),
            bytes: self.expected,
        }))?;
        let pins = {
            let ledger = self.inner.ledger.lock().expect("no holder panics");
            ledger.organisations.clone()
        };
        for (tenant, organisation) in pins {
            self.write(&Entry::Pin {
                tenant,
                organisation,
            })?;
        }
        let headless = self.inner.damage.lock().expect("no holder panics").clone();
        let headless = headless
            .into_iter()
            .filter(|damage| damage.offset == 0 && damage.segment.ends_with(".seg"));
        self.report.left_out.extend(headless);
        let slots: Vec<_> = self.inner.segments().values().cloned().collect();
        for slot in slots {
            self.survey(&slot)?;
        }
        // A chunk that moved inside the journal stands behind younger ones.
        self.owed.sort_unstable();
        for (_, segment, ordinal, start) in std::mem::take(&mut self.owed) {
            self.chunk(Location { segment, ordinal }, start)?;
        }
        self.sessions()?;
        let end = End {
            chunks: self.report.chunks,
            sessions: self.report.sessions,
        };
        self.write(&Entry::End(end))
    }

    fn write(&mut self, entry: &Entry) -> Result<(), ExportError> {
        self.to.entry(entry).map_err(ExportError::Write)
    }

    /// Finds what is owed in a segment.
    fn survey(&mut self, slot: &SegmentSlot) -> Result<(), ExportError> {
        let end = slot.book().end;
        let walked = walk(&slot.segment, Some(end), |step| {
            self.step(slot, step);
            Ok(())
        });
        slot.segment.close_file();
        walked.map_err(ExportError::Read)
    }

    fn step(&mut self, slot: &SegmentSlot, step: Found) {
        let start = step.start();
        let segment = slot.segment.id;
        let (ordinal, reason) = match step {
            Found::Note { .. } => return,
            Found::Chunk { word, .. } | Found::DamagedChunk { word, .. }
                if !word.state.is_owed() =>
            {
                return;
            }
            Found::Chunk { ordinal, head, .. } => match read_chunk(&head) {
                Some(_) => {
                    self.owed
                        .push((head.header.number, segment, ordinal, start));
                    return;
                }
                None => (Some(ordinal), "metadata does not decode".to_owned()),
            },
            Found::DamagedChunk { ordinal, .. } => {
                (Some(ordinal), "chunk frame does not read back".to_owned())
            }
            Found::DamagedRange { end, .. } => (None, format!("no frame up to {end}")),
        };
        let at = ordinal.map(|ordinal| Location { segment, ordinal });
        let key = at.and_then(|at| self.names.get(&at).cloned());
        self.leave_out(slot, start, key, reason);
    }

    fn chunk(&mut self, at: Location, start: u32) -> Result<(), ExportError> {
        let slot = self.inner.slot(at.segment);
        let slot = slot.ok_or_else(|| ExportError::Read(io::ErrorKind::NotFound.into()))?;
        let head = slot.segment.read_frame(start).ok();
        let found = head.and_then(|head| Some((read_chunk(&head)?, head)));
        let Some((meta, head)) = found else {
            let key = self.names.get(&at).cloned();
            self.leave_out(&slot, start, key, "chunk frame does not read back".into());
            return Ok(());
        };
        // Read twice, so that nothing is announced that cannot be given.
        let whole = reader(self.inner, &slot, &head)
            .and_then(|mut payload| io::copy(&mut payload, &mut io::sink()));
        if let Err(error) = whole {
            self.leave_out(&slot, start, Some(meta.key), error.to_string());
            return Ok(());
        }
        let word = slot.segment.read_word(at.ordinal);
        let is_dead = matches!(word.map_err(ExportError::Read)?,
            Slot::Word(word) if word.state == ChunkState::Dead);
        let death = is_dead.then(|| self.death(&meta.key, at));
        self.report.chunks += 1;
        self.report.bytes += meta.bytes;
        self.report.dead += u64::from(is_dead);
        let accepted_at = head.header.accepted_at;
        self.write(&Entry::Chunk(Box::new(Chunk::new(
            meta,
            accepted_at,
            death,
        ))))?;
        self.payload(&slot, &head)?;
        (self.seen)(self.report.bytes, self.expected);
        Ok(())
    }

    fn payload(&mut self, slot: &SegmentSlot, head: &FrameHead) -> Result<(), ExportError> {
        let mut payload = reader(self.inner, slot, head).map_err(ExportError::Read)?;
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            block.clear();
            let read = (&mut payload).take(BLOCK as u64).read_to_end(&mut block);
            if read.map_err(ExportError::Read)? == 0 {
                return Ok(());
            }
            self.to.payload(&block).map_err(ExportError::Write)?;
        }
    }

    fn death(&self, key: &ChunkKey, at: Location) -> Death {
        let burial = self.inner.notes().burials.get(key).cloned();
        match burial.filter(|burial| burial.at == at) {
            Some(burial) => Death {
                reason: burial.reason,
                died_at: burial.died_at,
                history: dead::history(self.inner, key, &burial),
            },
            None => Death {
                reason: DeadReason::ReasonLost,
                died_at: Timestamp(0),
                history: Vec::new(),
            },
        }
    }

    fn leave_out(&mut self, slot: &SegmentSlot, start: u32, key: Option<ChunkKey>, reason: String) {
        if let Some(key) = &key {
            let missing = self.missing.entry(key.session_key()).or_default();
            missing.insert(key.sequence);
        }
        self.report.left_out.push(Damage {
            segment: slot.segment.id.file_name(),
            offset: start.into(),
            tenant: key.as_ref().map(|key| key.tenant.clone()),
            session: key.as_ref().map(|key| key.session.clone()),
            sequence: key.as_ref().map(|key| key.sequence),
            reason,
        });
    }

    /// What was left out does not count as accepted there: its source may give it again.
    fn sessions(&mut self) -> Result<(), ExportError> {
        let known: BTreeMap<_, _> = {
            let sessions = self.inner.sessions();
            let known = sessions.by_key.iter();
            let known = known.filter(|(_, state)| !state.accepted.is_empty());
            known
                .map(|(key, state)| (key.clone(), state.clone()))
                .collect()
        };
        for (key, state) in known {
            let missing = self.missing.remove(&key).unwrap_or_default();
            let entry = Session {
                accepted: without(&state.accepted, &missing),
                delivered_high: state.delivered_high,
                changed_at: state.changed_at,
                ended_at: state.ended_at,
                promoted: state.promoted,
                key,
            };
            self.report.sessions += 1;
            self.write(&Entry::Session(Box::new(entry)))?;
        }
        Ok(())
    }
}

/// The ranges of a set but for some values.
pub fn without(set: &Intervals, values: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (first, last) in set.ranges() {
        let mut from = Some(first);
        for value in values.range(first..=last) {
            if let Some(from) = from.filter(|from| from < value) {
                ranges.push((from, value - 1));
            }
            from = value.checked_add(1);
        }
        ranges.extend(from.filter(|from| *from <= last).map(|from| (from, last)));
    }
    ranges
}
