//! Where each segment ends.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::frame::Kind;
use super::inner::solo_name;
use super::inventory::Inventory;
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::payload::PayloadReader;
use super::scan::{Found, walk};
use super::segment::{FrameHead, Segment};
use super::word::Word;
use crate::disk::{Disk, DiskFile};
use crate::sabotage::{Sabotage, Sabotaged, stop_at};

/// Where each segment's accepted frames end. The last segment of an opening that ended badly does not say; its tail is
/// looked at, and what holds is written anew, because an earlier sync of it may have failed unseen.
pub fn ends(
    found: &Inventory,
    ledger: &Ledger,
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
            ends.insert(*id, settle_end(segment, disk, sabotaged)?);
        }
    }
    Ok(ends)
}

fn settle_end(segment: &Segment, disk: &dyn Disk, sabotaged: Sabotaged) -> io::Result<Closed> {
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
                    if !reads_back(segment, head, disk)? {
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
        make_sure(segment, (durable, closed.end), &tail_words, disk)?;
    }
    Ok(closed)
}

/// Whether a frame's payload reads back whole.
pub fn reads_back(segment: &Segment, head: &FrameHead, disk: &dyn Disk) -> io::Result<bool> {
    let dir = segment.path.parent().expect("a segment is in a directory");
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

/// Makes what holds durable, by a sync that tells the truth about it. The same bytes at the same place would not do: after
/// a write error ext4 keeps the space reserved and empty, and a later write and sync of a cached page, both without an
/// error, leave it so (ADR 0021). So they go to a file of their own, which takes the segment's name. Only where there is
/// no room for it are they written in place.
fn make_sure(
    segment: &Segment,
    (from, to): (u32, u32),
    words: &[(u32, Word)],
    disk: &dyn Disk,
) -> io::Result<()> {
    match copy(segment, to, disk) {
        Ok(()) => segment.close_file(),
        Err(error) if is_full(&error) => {
            tracing::warn!(segment = %segment.id, "no room for a copy of a tail whose sync is not known");
            write_bytes(segment.file()?.as_ref(), segment.file()?.as_ref(), from, to)?;
        }
        Err(error) => return Err(error),
    }
    for (ordinal, word) in words {
        segment.write_words(*ordinal, &[*word])?;
    }
    segment.sync()?;
    segment.write_synced(to)?;
    tracing::info!(segment = %segment.id, bytes = to - from, "written anew: a tail whose sync is not known");
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Everything up to `to`, header and words included. Until the rename the segment is what it was.
fn copy(segment: &Segment, to: u32, disk: &dyn Disk) -> io::Result<()> {
    let dir = segment.path.parent().expect("a segment is in a directory");
    let path = dir.join(format!("{}.new", segment.id.file_name()));
    let file = disk.create(&path)?;
    let copied = file.allocate(u64::from(to)).and_then(|()| {
        write_bytes(segment.file()?.as_ref(), file.as_ref(), 0, to)?;
        file.sync()
    });
    if let Err(error) = copied {
        // It must not stay behind on a full disk; the cause matters more than this.
        let _ = disk.remove(&path);
        return Err(error);
    }
    stop_at("between_copy_and_rename");
    disk.rename(&path, &segment.path)?;
    disk.sync_dir(dir)
}

fn write_bytes(from: &dyn DiskFile, to: &dyn DiskFile, start: u32, end: u32) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (u64::from(start), u64::from(end));
    while at < end {
        let length = (end - at).min(buffer.len() as u64) as usize;
        let read = super::segment::read_patiently(from, &mut buffer[..length], at)?;
        if read == 0 {
            break;
        }
        to.write_at(&[&buffer[..read]], at)?;
        at += read as u64;
    }
    Ok(())
}
