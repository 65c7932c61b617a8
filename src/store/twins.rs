//! A chunk that stands in the journal twice: its copy is durable, and the word that says where it went is not.
//!
//! A copy keeps its enqueue number, so it is the one frame whose number is not above all that were read before it. Originals
//! stand in the order of their numbers, so a copy's source can only be in the segment whose numbers enclose it. Only such
//! a segment is read a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::inventory::Inventory;
use super::layout::SegmentId;
use super::ledger::Closed;
use super::record::Location;
use super::scan::{Found, walk};
use super::segment::Segment;
use super::tail::reads_back;
use super::word::{Slot, Word};
use crate::disk::Disk;
use crate::model::ChunkState;

/// What a walk over all segments, from the oldest on, tells of copies.
#[derive(Debug, Default)]
pub struct Suspects {
    copies: BTreeMap<u64, BTreeSet<Location>>,
    /// The least and the greatest number of originals.
    originals: BTreeMap<SegmentId, (u64, u64)>,
}

impl Suspects {
    /// A chunk that did not move elsewhere, and the highest number before it.
    pub fn saw(&mut self, number: u64, at: Location, highest: u64) {
        if number <= highest {
            self.copies.entry(number).or_default().insert(at);
            return;
        }
        let span = self.originals.entry(at.segment).or_insert((number, number));
        *span = (span.0.min(number), span.1.max(number));
    }

    /// Whether anything ever moved, as far as one can see.
    pub fn are_known(&self) -> bool {
        !self.copies.is_empty()
    }

    pub fn is_copy(&self, at: Location) -> bool {
        self.copies.values().any(|places| places.contains(&at))
    }

    /// Segments that may hold the source of a copy.
    fn segments(&self) -> Vec<SegmentId> {
        let holds = |(least, greatest)| self.copies.range(least..=greatest).next().is_some();
        let spans = self.originals.iter().filter(|(_, span)| holds(**span));
        spans.map(|(id, _)| *id).collect()
    }
}

/// Of each chunk that is there twice the youngest frame that reads back stays, with the younger of the words; the others
/// are moved ones from now on. Returns how many.
pub fn settle(
    found: &Inventory,
    ends: &BTreeMap<SegmentId, Closed>,
    suspects: &Suspects,
    disk: &dyn Disk,
) -> io::Result<usize> {
    let mut groups = suspects.copies.clone();
    for id in suspects.segments() {
        let segment = &found.segments[&id].0;
        walk(segment, Some(ends[&id].end), |step| {
            if let Found::Chunk {
                ordinal,
                head,
                word,
                ..
            } = step
                && word.state != ChunkState::Moved
                && let Some(places) = groups.get_mut(&head.header.number)
            {
                let segment = id;
                places.insert(Location { segment, ordinal });
            }
            Ok(())
        })?;
        segment.close_file();
    }
    let mut moved = 0;
    for places in groups.into_values().filter(|places| places.len() > 1) {
        moved += unite(found, &places, disk)?;
    }
    Ok(moved)
}

fn unite(found: &Inventory, places: &BTreeSet<Location>, disk: &dyn Disk) -> io::Result<usize> {
    let mut known = Vec::new();
    for at in places {
        let segment = &found.segments[&at.segment].0;
        if let Slot::Word(word) = segment.read_word(at.ordinal)?
            && let Ok(head) = segment.read_frame(word.start)
        {
            known.push((*at, word, head));
        }
    }
    let mut stays = None;
    for (at, word, head) in known.iter().rev() {
        let segment = &found.segments[&at.segment].0;
        if stays.is_none() && reads_back(segment, head, disk)? {
            stays = Some((*at, *word, head.record.clone()));
        }
    }
    let Some((stays, word, record)) = stays else {
        return Ok(0);
    };
    // The same number twice says little where the records differ.
    known.retain(|(_, _, head)| head.record == record);
    let age = |word: &Word| (word.version, word.failures, word.crashes);
    let youngest = known.iter().map(|(_, word, _)| *word).max_by_key(age);
    let kept = Word {
        start: word.start,
        ..youngest.unwrap_or(word)
    };
    let write = |segment: &Segment, ordinal, word| segment.write_words(ordinal, &[word]);
    if kept != word {
        let segment = &found.segments[&stays.segment].0;
        write(segment, stays.ordinal, kept)?;
        // Before the other one forgets what became of it.
        segment.sync()?;
    }
    for (at, word, _) in known.iter().filter(|(at, ..)| *at != stays) {
        let segment = &found.segments[&at.segment].0;
        write(segment, at.ordinal, word.turned(ChunkState::Moved))?;
        segment.close_file();
        tracing::info!(segment = %at.segment, to = %stays.segment, "a move that was interrupted is completed");
    }
    Ok(known.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segment_whose_numbers_enclose_a_copy_is_read_again() {
        let mut suspects = Suspects::default();
        let mut highest = 0;
        let mut saw = |segment, ordinal, number| {
            let segment = SegmentId(segment);
            suspects.saw(number, Location { segment, ordinal }, highest);
            highest = highest.max(number);
        };
        for (ordinal, number) in (10..20).enumerate() {
            saw(1, ordinal as u32, number);
        }
        for (ordinal, number) in (30..40).enumerate() {
            saw(2, ordinal as u32, number);
        }
        // One from segment 1, one from a segment that is gone.
        saw(3, 0, 15);
        saw(3, 1, 25);
        saw(3, 2, 40);
        assert_eq!(suspects.segments(), [SegmentId(1)]);
        // Seen: the copy of the youngest chunk of all passed for an original.
        let segment = SegmentId(4);
        suspects.saw(
            40,
            Location {
                segment,
                ordinal: 0,
            },
            40,
        );
        assert_eq!(suspects.segments(), [SegmentId(1), SegmentId(3)]);
        assert_eq!(suspects.copies.len(), 3);
    }
}
