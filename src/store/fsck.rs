//! Reading everything that the store holds, and saying what does not read back.

use std::io;

use super::error::StoreError;
use super::inner::Inner;
use super::lease::reader;
use super::recover::read_chunk;
use super::scan::{Found, walk};
use super::types::{Damage, FsckReport, IndexCheck};
use crate::model::{ChunkMeta, ChunkState};

/// Checks every owed chunk's payload and every frame; changes nothing.
pub fn check(inner: &Inner) -> Result<FsckReport, StoreError> {
    let mut report = FsckReport {
        damaged: Vec::new(),
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
    let slots: Vec<_> = inner.segments().values().cloned().collect();
    for slot in slots {
        report.segments += 1;
        let end = slot.book().end;
        let segment = &slot.segment;
        walk(segment, Some(end), |step| {
            let start = step.start();
            let found = match step {
                Found::Chunk { head, word, .. } => match read_chunk(&head) {
                    None => Some((None, "metadata does not decode".to_owned())),
                    Some(_) if !word.state.is_owed() => None,
                    Some(meta) => {
                        report.chunks_checked += 1;
                        report.bytes_checked += meta.bytes;
                        let read = reader(inner, &slot, &head)
                            .and_then(|mut reader| io::copy(&mut reader, &mut io::sink()));
                        let dead = word.state == ChunkState::Dead;
                        read.err().map(|error| {
                            let state = if dead { " (a dead letter)" } else { "" };
                            (Some(meta), format!("{error}{state}"))
                        })
                    }
                },
                Found::Note { .. } => None,
                Found::DamagedChunk { .. } => {
                    Some((None, "chunk frame does not read back".to_owned()))
                }
                Found::DamagedRange { end, .. } => Some((None, format!("no frame up to {end}"))),
            };
            if let Some((meta, reason)) = found {
                report
                    .damaged
                    .push(damage(&segment.id.file_name(), start, meta, reason));
            }
            Ok(())
        })?;
    }
    report.damaged.extend(inner.records.damage());
    Ok(report)
}

fn damage(segment: &str, start: u32, meta: Option<ChunkMeta>, reason: String) -> Damage {
    let key = meta.map(|meta| meta.key);
    Damage {
        segment: segment.to_owned(),
        offset: start.into(),
        tenant: key.as_ref().map(|key| key.tenant.clone()),
        session: key.as_ref().map(|key| key.session.clone()),
        sequence: key.as_ref().map(|key| key.sequence),
        reason,
    }
}
