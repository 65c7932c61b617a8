//! The files of the journal at open: which are there, which should be, and which were never finished.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::header::{HeaderFault, Predecessor, SegmentHeader};
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::segment::Segment;
use super::types::Damage;
use crate::disk::Disk;

/// The segment files that are there, and what should be there.
pub struct Inventory {
    pub segments: BTreeMap<SegmentId, (Segment, SegmentHeader)>,
    pub solos: Vec<u64>,
    pub damage: Vec<Damage>,
    /// Segments that should be there and are not, or whose header is gone.
    pub gone: Vec<SegmentId>,
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
        gone: Vec::new(),
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
                Ok((segment, header)) => {
                    // A store may have more segments than a process may have files.
                    segment.close_file();
                    found.segments.insert(id, (segment, header));
                }
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
    ledger.next_segment = next_segment(&found, &headless, ledger);
    Ok(found)
}

/// A number that no segment ever had. The last ledger may be older than a segment that was begun behind it, and once that
/// one is retired nothing else remembers its number: what is written under it again would be removed as retired.
fn next_segment(found: &Inventory, headless: &[SegmentId], ledger: &Ledger) -> SegmentId {
    let present = found.segments.keys().chain(headless).map(|id| id.0).max();
    let retired = ledger.retired.highest().map(|id| id as u32);
    let highest = present.max(retired).map_or(1, |id| id + 1);
    SegmentId(highest.max(ledger.next_segment.0))
}

fn account_for_the_missing(found: &mut Inventory, headless: &[SegmentId], ledger: &mut Ledger) {
    let mut expected = ledger.closed.clone();
    for (_, header) in found.segments.values() {
        if let Some(predecessor) = header.predecessor {
            let Predecessor { id, chunks, end } = predecessor;
            expected.insert(id, Closed { chunks, end });
        }
    }
    for id in headless {
        let closed = expected.get(id).copied();
        // Its successor, which may be all that tells how many chunks it had, will go before it.
        ledger.closed.extend(closed.map(|closed| (*id, closed)));
        let chunks = closed.map_or(0, |closed| closed.chunks);
        found.gone.push(*id);
        found.unreadable += u64::from(chunks);
        let reason = format!("both header copies are damaged; {chunks} chunks cannot be read");
        found.damage.push(Damage::at(id.file_name(), 0, reason));
    }
    for (id, Closed { chunks, .. }) in expected {
        let known = found.segments.contains_key(&id) || headless.contains(&id);
        if !known && !ledger.retired.contains(u64::from(id.0)) {
            tracing::error!(segment = %id, chunks, "segment is missing: its chunks are lost");
            let reason = format!("the segment is missing; its {chunks} chunks are lost");
            found.damage.push(Damage::at(id.file_name(), 0, reason));
            found.gone.push(id);
            ledger.lost += u64::from(chunks);
            ledger.retired.insert(u64::from(id.0));
            ledger.closed.remove(&id);
        }
    }
}
