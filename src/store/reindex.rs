//! The index at open: whether it belongs to the journal, filling it anew if not, and what is read out of it before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{Gathered, Index, KIND, Named, Opened, Tables};
use super::inner::Inner;
use super::inventory::Inventory;
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::notes::Notes;
use super::open::create_private_dir;
use super::queue::NoteAt;
use super::record::{Burial, Location, Note};
use super::recover::{self, Survey};
use super::scan::{Found, walk};
use super::sessions::{Arrivals, Delay};
use super::types::Settings;
use crate::model::{ChunkState, DeadReason, Digest, Timestamp};

/// Names the state of the journal that a cleanly closed index belongs to.
pub fn clean_mark(found: &Inventory, ends: &BTreeMap<SegmentId, Closed>, ledger: &Ledger) -> u64 {
    let last = found
        .segments
        .last_key_value()
        .map(|(id, (segment, _))| (*id, segment.nonce));
    mark_of(
        last.map(|(id, nonce)| (id, nonce, ends[&id].end)),
        ledger.edition,
    )
}

pub fn mark_of(last: Option<(SegmentId, u64, u32)>, edition: u64) -> u64 {
    let (id, nonce, end) = last.unwrap_or_default();
    let text = format!("{id} {nonce} {end} {edition} {KIND}");
    let digest = Digest::of(text.as_bytes());
    // Zero is the mark of an index in use.
    u64::from_le_bytes(*digest.0.first_chunk().expect("8 of 32 bytes")) | 1
}

/// The youngest index directory, or a fresh one if it does not open.
pub fn open_index(
    dir: &Path,
    settings: &Settings,
    arrivals: &Arc<Arrivals>,
) -> Result<Opened, super::index::IndexFault> {
    let root = dir.join("index");
    create_private_dir(&root)?;
    let mut numbers: Vec<u64> = std::fs::read_dir(&root)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let newest = numbers.last().copied();
    let at = |number: u64| -> PathBuf { root.join(number.to_string()) };
    let arrived = |arrivals: &Arc<Arrivals>| {
        let arrivals = Arc::clone(arrivals);
        move |sessions| arrivals.add(sessions)
    };
    let number = newest.unwrap_or(1);
    // The lost mark is made by a process that ended because of its index.
    let lost = at(number).join("lost").exists();
    let opened = if lost {
        Err(super::index::IndexFault::LostBefore(
            "marked as lost".into(),
        ))
    } else {
        Index::open(&at(number), settings.sabotaged, arrived(arrivals))
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(cause) => {
            tracing::warn!(%cause, "index set aside; a fresh one is built from the journal");
            Index::open(&at(number + 1), settings.sabotaged, arrived(arrivals))?
        }
    };
    for old in numbers
        .into_iter()
        .map(at)
        .filter(|path| *path != opened.path)
    {
        if let Err(error) = std::fs::remove_dir_all(&old) {
            tracing::warn!(path = %old.display(), %error, "old index is not removed");
        }
    }
    Ok(opened)
}

/// As a process does whose index is lost. Without an index there is nothing to distrust.
pub fn distrust_index(dir: &Path) -> io::Result<()> {
    let listed = match std::fs::read_dir(dir.join("index")) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in listed {
        std::fs::write(entry?.path().join("lost"), b"")?;
    }
    Ok(())
}

/// Fills the index with what the survey gathered, or else from the segments. Trouble with it is reported as lost by the first
/// lease.
pub fn rebuild(
    index: &Index,
    found: &Inventory,
    ends: &BTreeMap<SegmentId, Closed>,
    survey: &mut Survey,
) -> io::Result<()> {
    let present: BTreeSet<_> = found.segments.keys().copied().collect();
    drop(index.ask_patiently(move |tables| tables.forget_names(&present)));
    if let Some(gathered) = survey.gathered.take() {
        drop(index.ask_patiently(move |tables| tables.fill(&gathered, true)));
        return Ok(());
    }
    drop(index.ask_patiently(Tables::clear_owed));
    let rest = gather(index, found, ends, survey)?;
    fill_part(index, rest);
    Ok(())
}

fn fill_part(index: &Index, part: Gathered) {
    drop(index.ask_patiently(move |tables| tables.fill(&part, false)));
}

/// Walks the segments once more and fills the index with as much at once as memory may hold. What is left is returned.
fn gather(
    index: &Index,
    found: &Inventory,
    ends: &BTreeMap<SegmentId, Closed>,
    survey: &mut Survey,
) -> io::Result<Gathered> {
    let mut gathered = Gathered::default();
    for (id, (segment, _)) in &found.segments {
        walk(segment, Some(ends[id].end), |step| {
            if let Found::Chunk {
                ordinal,
                head,
                word,
                ..
            } = step
                && let Some(meta) = survey.brief(&head)
                && word.state != ChunkState::Moved
            {
                let segment = *id;
                let at = Location { segment, ordinal };
                let fact = recover::fact(at, &head, &word, &meta);
                gathered.add(&meta.session, &fact);
            }
            if gathered.is_full() {
                fill_part(index, std::mem::take(&mut gathered));
            }
            Ok(())
        })?;
        segment.close_file();
    }
    Ok(gathered)
}

/// Chunks whose frames were damaged while the store was closed have lost their names. Those that no note of a
/// burial knows, the index from before may know; then the burial is to be written, so that the next opening knows them too.
pub fn name_the_nameless(
    index: &Index,
    found: &Inventory,
    survey: &mut Survey,
    notes: &mut Notes,
    now: Timestamp,
) -> io::Result<Vec<Burial>> {
    if survey.nameless.is_empty() {
        return Ok(Vec::new());
    }
    let places = survey
        .nameless
        .keys()
        .map(|at| (at.segment, at.ordinal))
        .collect();
    let names = index
        .ask_patiently(move |tables| tables.keep_names_of(&places))
        .unwrap_or_default();
    let mut burials = Vec::new();
    for Named {
        segment,
        ordinal,
        key,
        bytes,
    } in names
    {
        let at = Location { segment, ordinal };
        let Some(word) = survey.nameless.get(&at).copied() else {
            continue;
        };
        let dead = match word.state {
            ChunkState::Live => word.turned(ChunkState::Dead),
            // The process that set it aside ended before its burial was written.
            ChunkState::Dead => word,
            _ => continue,
        };
        tracing::error!(chunk = %key, %segment, "chunk is damaged and set aside");
        found.segments[&segment].0.write_words(ordinal, &[dead])?;
        survey.named(at, &key, bytes);
        let burial = Burial {
            at,
            version: dead.version,
            tenant: key.tenant.clone(),
            session: key.session.clone(),
            sequence: key.sequence,
            reason: DeadReason::Damaged,
            died_at: now,
            history: Vec::new(),
        };
        // In force from its own segment until it is written.
        let written = NoteAt {
            segment,
            start: u32::MAX,
        };
        notes.apply(Note::Bury(burial.clone()), written);
        burials.push(burial);
    }
    Ok(burials)
}

/// Writes down where the dead letters are, as the journal has them, and brings back when each tenant delivered last. Without
/// an answer the first is written at the next opening, and the second is not told.
pub fn load_fates(inner: &Inner) {
    let letters: BTreeMap<_, _> = {
        let notes = inner.notes();
        let letters = notes.burials.iter();
        letters
            .map(|(key, burial)| (key.clone(), burial.at.segment))
            .collect()
    };
    drop(
        inner
            .index
            .ask_patiently(move |tables| tables.keep_dead(&letters)),
    );
    let tenants = inner.tallies().into_keys();
    let tenants: Vec<_> = tenants.collect();
    let last = inner.index.ask_patiently(move |tables| {
        let last = tenants.into_iter().filter_map(|tenant| {
            let at = tables.last_delivery(&tenant).transpose()?;
            Some(at.map(|at| (tenant, at)))
        });
        last.collect::<Result<Vec<_>, _>>()
    });
    let last = last.unwrap_or_default();
    inner.sessions().last_delivery.extend(last);
}

/// Brings back the waits of chunks that failed before.
pub fn load_delays(inner: &Inner) {
    let Ok(retries) = inner.index.ask_patiently(|tables| tables.retries()) else {
        return;
    };
    let mut sessions = inner.sessions();
    for (key, retry) in retries {
        if let Some(state) = sessions.by_key.get_mut(&key.session_key())
            && state.owed > 0
        {
            state.delay = Some(Box::new(Delay {
                sequence: key.sequence,
                until: retry.until,
            }));
        }
    }
}
