//! Chunks whose segment vanished or lost both its headers. The index may know which of them were owed or dead letters: they
//! are named, and may be given again. Nothing else knows, so without it a repeat is refused and its source stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::index::Index;
use super::inner::Inner;
use super::inventory::Inventory;
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::recover::read_chunk;
use super::scan::{Found, walk};
use super::types::Damage;
use crate::disk::Disk;
use crate::model::{ChunkKey, ChunkState, SessionKey};

/// Owed chunks and dead letters that are gone, with the segment that they were in.
pub type Lost = BTreeMap<ChunkKey, SegmentId>;

/// More names than this are counted, not listed.
const NAMES_MAX: usize = 1000;

/// Asks the index before it is made anew, and writes the answer into the ledger.
pub fn name(
    index: &Index,
    found: &mut Inventory,
    ends: &BTreeMap<SegmentId, Closed>,
    ledger: &mut Ledger,
    (disk, dir): (&dyn Disk, &Path),
) -> io::Result<()> {
    if !found.gone.is_empty() {
        let gone: BTreeSet<_> = found.gone.iter().copied().collect();
        let named = index.ask_patiently(move |tables| {
            let mut named = tables.owed_in(&gone)?;
            named.extend(tables.dead_in(&gone)?);
            Ok(named)
        });
        let named = named.unwrap_or_default();
        if !named.is_empty() {
            keep(index, named, ledger, disk, dir);
        }
    }
    if ledger.lost_chunks.is_empty() {
        return Ok(());
    }
    // Given again by a process that ended before the ledger said so.
    for (id, (segment, _)) in &found.segments {
        walk(segment, Some(ends[id].end), |step| {
            if let Found::Chunk { head, word, .. } = step
                && word.state != ChunkState::Moved
                && let Some(meta) = read_chunk(&head)
            {
                ledger.is_given_again(&meta.key);
            }
            Ok(())
        })?;
        segment.close_file();
    }
    for (key, segment) in ledger.lost_chunks.iter().take(NAMES_MAX) {
        let damage = Damage::at(
            segment.file_name(),
            0,
            "lost with its segment; give it again",
        );
        found.damage.push(damage.of(Some(key)));
    }
    Ok(())
}

/// Durably, because the index forgets them in a moment. If that fails nobody can tell what a repeat of one is.
fn keep(
    index: &Index,
    named: Vec<(ChunkKey, SegmentId)>,
    ledger: &mut Ledger,
    disk: &dyn Disk,
    dir: &Path,
) {
    tracing::error!(
        chunks = named.len(),
        "chunks are lost with their segments; worker fsck names them"
    );
    let keys: Vec<_> = named.iter().map(|(key, _)| key.clone()).collect();
    ledger.lost_chunks.extend(named);
    ledger.edition += 1;
    if let Err(error) = ledger.write(disk, dir) {
        tracing::warn!(%error, "ledger not written; what is lost cannot be given again");
        drop(index.ask_patiently(move |tables| tables.forget_digests(&keys)));
    }
}

impl Ledger {
    /// A lost chunk is here again, and no longer lost.
    pub fn is_given_again(&mut self, key: &ChunkKey) {
        if let Some(segment) = self.lost_chunks.remove(key)
            && self.retired.contains(u64::from(segment.0))
        {
            self.lost = self.lost.saturating_sub(1);
        }
    }
}

impl Inner {
    pub fn is_lost(&self, key: &ChunkKey) -> bool {
        let ledger = self.ledger.lock().expect("no holder panics");
        ledger.lost_chunks.contains_key(key)
    }

    pub fn is_given_again(&self, key: &ChunkKey) {
        let mut ledger = self.ledger.lock().expect("no holder panics");
        let lost = ledger.lost_chunks.len();
        ledger.is_given_again(key);
        let found = ledger.lost_chunks.len() < lost;
        drop(ledger);
        if found {
            self.want_ledger();
        }
    }

    /// How many of a session's chunks are lost.
    pub fn lost_of(&self, session: &SessionKey) -> u64 {
        let ledger = self.ledger.lock().expect("no holder panics");
        let lost = ledger.lost_chunks.range(session.all_chunks());
        lost.count() as u64
    }
}
