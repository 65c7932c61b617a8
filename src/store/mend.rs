//! What the process before began and did not end: words that notes ask for, purges, moves, requests that were on the wire.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use super::inventory::Inventory;
use super::layout::SegmentId;
use super::ledger::{Closed, Ledger};
use super::notes::{BurialRef, Notes};
use super::queue::NoteAt;
use super::record::{Burial, Location, Note};
use super::recover::{self, Survey};
use super::twins;
use super::word::{Slot, Word};
use crate::disk::Disk;
use crate::model::{ChunkState, DeadReason, Timestamp};

/// Surveys the segments, makes true what notes say and words do not yet, and counts crashes.
pub fn read_segments(
    found: &Inventory,
    ends: &BTreeMap<SegmentId, Closed>,
    ledger: &mut Ledger,
    (disk, dir): (&dyn Disk, &Path),
    gather: bool,
) -> io::Result<(Survey, Notes)> {
    let mut survey = recover::survey(&found.segments, ends, ledger, gather)?;
    let mut changed = false;
    let mended = std::mem::take(&mut survey.mended);
    for (at, word) in &survey.rewrite {
        found.segments[&at.segment]
            .0
            .write_words(at.ordinal, &[*word])?;
    }
    for (note, _) in &survey.notes {
        changed |= make_true(found, note)?;
    }
    for at in &survey.replaced {
        changed |= finish_purge(found, *at)?;
    }
    for (at, start) in &survey.crashed {
        let segment = &found.segments[&at.segment].0;
        segment.change_word(at.ordinal, *start, |word| {
            word.sending.then(|| word.crashed())
        })?;
    }
    let moved = twins::settle(found, ends, &survey.twins, disk)?;
    if changed || moved > 0 {
        // Rare: the process ended between a note and its word, between a replacement and the purge of what it
        // replaces, or between a copy and the word that says so. The words are right now; look again.
        ledger.sessions = Ledger::read(disk, dir)
            .map_err(io::Error::other)?
            .ledger
            .sessions;
        survey = recover::survey(&found.segments, ends, ledger, gather)?;
    }
    survey.mended = mended;
    let mut notes = Notes::default();
    let mut strays = HashMap::new();
    for (note, at) in std::mem::take(&mut survey.notes) {
        if let Note::Bury(burial) = &note {
            survey.named(burial.at, &burial.key(), 0);
            if survey.twins.are_known() {
                strays.insert((burial.key(), burial.version), burial.clone());
            }
        }
        notes.apply(note, at);
    }
    // A dead letter whose word says otherwise was settled by a younger word.
    notes.burials.retain(|_, burial| {
        let word = found
            .segments
            .get(&burial.at.segment)
            .and_then(|(segment, _)| {
                let word = segment.read_word(burial.at.ordinal).ok();
                segment.close_file();
                word
            });
        matches!(word, Some(Slot::Word(word)) if word.state == ChunkState::Dead)
    });
    for (key, at, version) in std::mem::take(&mut survey.dead) {
        if !notes.burials.contains_key(&key)
            && survey.twins.is_copy(at)
            && let Some(burial) = strays.remove(&(key.clone(), version))
        {
            // It moved, and the note that says where to was not written. In force from its new segment until it is.
            let burial = Burial { at, ..burial };
            let written = NoteAt {
                segment: at.segment,
                start: u32::MAX,
            };
            notes.apply(Note::Bury(burial.clone()), written);
            survey.burials.push(burial);
        }
        // Its note is damaged. It stays a dead letter that can be redriven, purged or exported.
        notes.burials.entry(key).or_insert(BurialRef {
            note: NoteAt {
                segment: at.segment,
                start: u32::MAX,
            },
            at,
            version,
            reason: DeadReason::ReasonLost,
            died_at: Timestamp(0),
        });
    }
    Ok((survey, notes))
}

/// Writes the word that a note asks for, if the word is older.
fn make_true(found: &Inventory, note: &Note) -> io::Result<bool> {
    let (at, version, state): (Location, u16, ChunkState) = match note {
        Note::Bury(burial) => (burial.at, burial.version, ChunkState::Dead),
        Note::Redrive { at, version } => (*at, *version, ChunkState::Live),
        Note::Purge { at, version } => (*at, *version, ChunkState::Purged),
        Note::Hold(_) | Note::HoldEnd(_) | Note::SessionEnd { .. } => return Ok(false),
    };
    let Some((segment, _)) = found.segments.get(&at.segment) else {
        return Ok(false);
    };
    let read = segment.read_word(at.ordinal);
    segment.close_file();
    let Slot::Word(word) = read? else {
        return Ok(false);
    };
    if word.version >= version {
        return Ok(false);
    }
    segment.write_words(
        at.ordinal,
        &[Word {
            version,
            state,
            sending: false,
            ..word
        }],
    )?;
    Ok(true)
}

/// The bytes of this dead letter were given again and accepted, so it is none any more. What says so stands in the
/// journal and is found again if this word is lost; until it is durable no segment goes.
fn finish_purge(found: &Inventory, at: Location) -> io::Result<bool> {
    let Some((segment, _)) = found.segments.get(&at.segment) else {
        return Ok(false);
    };
    let Slot::Word(word) = segment.read_word(at.ordinal)? else {
        return Ok(false);
    };
    let dead = word.state == ChunkState::Dead;
    if dead {
        segment.write_words(at.ordinal, &[word.turned(ChunkState::Purged)])?;
    }
    Ok(dead)
}
