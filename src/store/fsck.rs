//! Reading everything that the store holds, and saying what does not read back.

use std::collections::BTreeMap;
use std::io;

use super::Store;
use super::error::StoreError;
use super::header::{HEADER_BYTES, SegmentHeader};
use super::inner::Inner;
use super::layout::HEADER_COPIES;
use super::payload::reader;
use super::record::Location;
use super::recover::read_chunk;
use super::roll::write_ledger;
use super::scan::{Found, walk};
use super::segment::{Segment, read_patiently};
use super::types::{Damage, FsckReport, IndexCheck};
use crate::model::ChunkState;

impl Store {
    /// Whether the index did not belong to the journal at open and was made anew.
    pub fn has_rebuilt_index(&self) -> bool {
        self.inner.index_rebuilt
    }
}

/// Checks every owed chunk's payload and every frame. Changes nothing but a header copy that does not read back, for which
/// the other one serves.
pub fn check(inner: &Inner) -> Result<FsckReport, StoreError> {
    let mut report = FsckReport {
        damaged: Vec::new(),
        repaired: inner.mended.lock().expect("no holder panics").clone(),
        balance: super::view::balance(inner),
        index: if inner.index_rebuilt {
            IndexCheck::Rebuilt
        } else {
            IndexCheck::Ok
        },
        segments: 0,
        chunks_checked: 0,
        bytes_checked: 0,
    };
    let headless = inner.damage.lock().expect("no holder panics");
    report
        .damaged
        .extend(headless.iter().filter(|damage| damage.offset == 0).cloned());
    drop(headless);
    let names: BTreeMap<_, _> = {
        let notes = inner.notes();
        let names = notes.burials.iter().map(|(key, at)| (at.at, key.clone()));
        names.collect()
    };
    if report.repaired.iter().any(is_ledger) || report.damaged.iter().any(is_ledger) {
        write_ledger(inner)?;
    }
    let slots: Vec<_> = inner.segments().values().cloned().collect();
    for slot in slots {
        report.segments += 1;
        let end = slot.book().end;
        let segment = &slot.segment;
        mend_header(segment, &mut report)?;
        let name = |ordinal| {
            let segment = segment.id;
            names.get(&Location { segment, ordinal }).cloned()
        };
        walk(segment, Some(end), |step| {
            let start = step.start();
            let found = match step {
                Found::Chunk {
                    ordinal,
                    head,
                    word,
                    ..
                } => match read_chunk(&head) {
                    None => Some((name(ordinal), "metadata does not decode".to_owned())),
                    Some(_) if !word.state.is_owed() => None,
                    Some(meta) => {
                        report.chunks_checked += 1;
                        report.bytes_checked += meta.bytes;
                        let read = reader(inner, &slot, &head)
                            .and_then(|mut reader| io::copy(&mut reader, &mut io::sink()));
                        let dead = word.state == ChunkState::Dead;
                        read.err().map(|error| {
                            let state = if dead { " (a dead letter)" } else { "" };
                            (Some(meta.key), format!("{error}{state}"))
                        })
                    }
                },
                Found::Note { .. } => None,
                Found::DamagedChunk { ordinal, .. } => {
                    Some((name(ordinal), "chunk frame does not read back".to_owned()))
                }
                Found::DamagedRange { end, .. } => Some((
                    None,
                    format!("no frame up to {end}: a note, or a chunk whose word is gone too"),
                )),
            };
            if let Some((key, reason)) = found {
                let damage = Damage::at(segment.id.file_name(), start.into(), reason);
                report.damaged.push(damage.of(key.as_ref()));
            }
            Ok(())
        })?;
    }
    report.damaged.extend(inner.records.damage());
    Ok(report)
}

fn is_ledger(damage: &Damage) -> bool {
    damage.segment.starts_with("ledger.")
}

/// Writes a header copy that does not read back from the one that does.
fn mend_header(segment: &Segment, report: &mut FsckReport) -> io::Result<()> {
    let file = segment.file()?;
    let mut read = [None; HEADER_COPIES.len()];
    for (at, read) in HEADER_COPIES.into_iter().zip(&mut read) {
        let mut bytes = [0; HEADER_BYTES];
        let count = read_patiently(file.as_ref(), &mut bytes, at)?;
        let whole = count == HEADER_BYTES && SegmentHeader::decode(&bytes).is_ok();
        *read = whole.then_some(bytes);
    }
    let Some(good) = read.into_iter().flatten().next() else {
        let reason = "both header copies are damaged; what is open still reads";
        let damage = Damage::at(segment.id.file_name(), 0, reason);
        report.damaged.push(damage);
        return Ok(());
    };
    for (at, _) in HEADER_COPIES
        .into_iter()
        .zip(read)
        .filter(|(_, read)| read.is_none())
    {
        file.write_at(&[&good], at)?;
        segment.sync()?;
        let reason = "a header copy does not read back; written again from the other one";
        report
            .repaired
            .push(Damage::at(segment.id.file_name(), at, reason));
    }
    Ok(())
}
