//! The notes in force: dead letters and holds. Each is owed like a chunk until it is settled or replaced.

use std::collections::BTreeMap;

use super::layout::SegmentId;
use super::queue::NoteAt;
use super::record::{Hold, Location, Note};
use super::types::HoldKey;
use crate::model::{ChunkKey, DeadReason, Timestamp};

/// What memory keeps of a dead letter; its history stays in its note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurialRef {
    pub note: NoteAt,
    pub at: Location,
    pub version: u16,
    pub reason: DeadReason,
    pub died_at: Timestamp,
}

#[derive(Debug, Default)]
pub struct Notes {
    pub burials: BTreeMap<ChunkKey, BurialRef>,
    /// `None`: ended. That is in force too, as long as an older segment may hold the beginning.
    pub holds: BTreeMap<HoldKey, (Option<Hold>, NoteAt)>,
}

impl Notes {
    pub fn apply(&mut self, note: Note, written: NoteAt) {
        match note {
            Note::Bury(burial) => {
                let reference = BurialRef {
                    note: written,
                    at: burial.at,
                    version: burial.version,
                    reason: burial.reason,
                    died_at: burial.died_at,
                };
                self.burials.insert(burial.key(), reference);
            }
            Note::Redrive { at, version } | Note::Purge { at, version } => {
                self.burials
                    .retain(|_, burial| burial.at != at || burial.version > version);
            }
            Note::Hold(hold) => {
                self.holds.insert(hold.key.clone(), (Some(hold), written));
            }
            Note::HoldEnd(key) => {
                self.holds.insert(key, (None, written));
            }
            // Known with its session; the ledger keeps it before the note goes.
            Note::SessionEnd { .. } => {}
        }
    }

    /// The dead letter that a note makes, with its segment, or ends.
    pub fn letter_of(&self, note: &Note) -> Option<(ChunkKey, Option<SegmentId>)> {
        match note {
            Note::Bury(burial) => Some((burial.key(), Some(burial.at.segment))),
            Note::Redrive { at, version } | Note::Purge { at, version } => {
                let mut burials = self.burials.iter();
                let ended = burials.find(|(_, it)| it.at == *at && it.version <= *version);
                ended.map(|(key, _)| (key.clone(), None))
            }
            Note::Hold(_) | Note::HoldEnd(_) | Note::SessionEnd { .. } => None,
        }
    }

    /// Forgets the ends of holds that stand in the oldest segment: nothing older is left that they end.
    pub fn forget_ends_in(&mut self, oldest: SegmentId) {
        self.holds
            .retain(|_, (hold, note)| hold.is_some() || note.segment != oldest);
    }

    pub fn is_in_force(&self, at: NoteAt) -> bool {
        self.in_segment(at.segment).contains(&at)
    }

    /// Where the notes in force stand that a segment would take with it.
    pub fn in_segment(&self, segment: SegmentId) -> Vec<NoteAt> {
        let burials = self.burials.values().map(|burial| burial.note);
        let holds = self.holds.values().map(|(_, note)| *note);
        burials
            .chain(holds)
            .filter(|note| note.segment == segment)
            .collect()
    }
}
