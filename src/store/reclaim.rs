//! Which segments are worth emptying: a pure decision. Unlinking a segment is cheap, copying out of it is not, so nothing
//! is copied while what is dead is a small part of what may be used.

use super::inner::Inner;
use super::layout::SegmentId;

/// Dead bytes that may lie about whatever the quota, in segments.
const DEAD_SEGMENTS: u64 = 2;
/// … and the part of the quota, where that is more.
const DEAD_PART: u64 = 10;
/// More sparse segments than this are merged: each costs a descriptor, a header and a table.
const SPARSE_MAX: usize = 32;

/// About what a frame takes besides its payload.
const HEAD_BYTES: u64 = 192;

/// What a segment that nobody appends to holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    pub id: SegmentId,
    /// What its frames take.
    pub bytes: u64,
    /// What those of them take that are still owed; payload files do not count.
    pub owed_bytes: u64,
}

impl Content {
    fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.owed_bytes)
    }

    /// Copying three bytes to free one is no gain.
    fn is_worth_it(&self) -> bool {
        self.owed_bytes <= self.bytes / 4 * 3
    }
}

/// The segments whose owed chunks are to move, the emptiest first.
pub fn choose(mut contents: Vec<Content>, segment_bytes: u64, max_bytes: u64) -> Vec<SegmentId> {
    let allowed = (DEAD_SEGMENTS * segment_bytes).max(max_bytes / DEAD_PART);
    let mut dead: u64 = contents.iter().map(Content::dead_bytes).sum();
    let is_sparse = |content: &Content| content.owed_bytes < segment_bytes / 4;
    let merge = contents.iter().filter(|it| is_sparse(it)).count() > SPARSE_MAX;
    contents.sort_by_key(|content| content.owed_bytes * 1024 / content.bytes.max(1));
    let mut chosen = Vec::new();
    for content in contents {
        let too_much = dead > allowed && content.is_worth_it();
        if too_much || (merge && is_sparse(&content)) {
            dead = dead.saturating_sub(content.dead_bytes());
            chosen.push(content.id);
        }
    }
    chosen
}

/// What the segments hold out of which something could move.
pub fn contents(inner: &Inner) -> Vec<Content> {
    let active = *inner.active.lock().expect("no holder panics");
    // The first commit may go on in this one.
    let resumable = inner.ledger.lock().expect("no holder panics").resumable;
    let unmovable = inner.unmovable.lock().expect("no holder panics").clone();
    let segments = inner.segments();
    let closed = segments
        .iter()
        .filter(|(id, _)| Some(**id) != active && Some(**id) != resumable)
        .filter(|(id, _)| !unmovable.contains(id));
    let contents = closed.map(|(id, slot)| {
        let book = slot.book();
        let solos: u64 = book.solos.values().map(|solo| solo.bytes).sum();
        let owed = book.tallies.values().map(|tally| {
            let bytes = tally.live.bytes + tally.confirming.bytes + tally.dead.bytes;
            bytes + tally.owed() * HEAD_BYTES
        });
        let content = Content {
            id: *id,
            bytes: u64::from(book.end).saturating_sub(slot.segment.layout.data_start()),
            owed_bytes: owed.sum::<u64>().saturating_sub(solos),
        };
        // What owes nothing is unlinked as it is; what cannot be read has no name to move under.
        (book.owed() > 0 && book.unreadable == 0).then_some(content)
    });
    contents.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 64 << 20;

    fn content(id: u32, bytes: u64, owed_bytes: u64) -> Content {
        Content {
            id: SegmentId(id),
            bytes,
            owed_bytes,
        }
    }

    fn ids(numbers: &[u32]) -> Vec<SegmentId> {
        numbers.iter().copied().map(SegmentId).collect()
    }

    #[test]
    fn nothing_moves_while_the_dead_are_few() {
        let two = vec![content(1, SEGMENT, 0), content(2, SEGMENT, 0)];
        assert_eq!(choose(two.clone(), SEGMENT, 0), []);
        let three = [two, vec![content(3, 10, 0)]].concat();
        assert_eq!(choose(three.clone(), SEGMENT, 0).len(), 1);
        assert_eq!(choose(three, SEGMENT, 50 << 30), []);
    }

    #[test]
    fn the_emptiest_go_first_and_no_more_than_needed() {
        let some = vec![
            content(1, SEGMENT, SEGMENT / 2),
            content(2, SEGMENT, SEGMENT / 100),
            content(3, SEGMENT, SEGMENT / 50),
        ];
        assert_eq!(choose(some.clone(), SEGMENT, 0), ids(&[2]));
        let more = [some, vec![content(4, SEGMENT, SEGMENT / 10)]].concat();
        assert_eq!(choose(more, SEGMENT, 0), ids(&[2, 3]));
    }

    #[test]
    fn three_bytes_are_not_copied_to_free_one() {
        let full: Vec<_> = (0..20)
            .map(|id| content(id, SEGMENT, SEGMENT / 5 * 4))
            .collect();
        assert_eq!(choose(full, SEGMENT, 0), []);
    }

    #[test]
    fn many_sparse_segments_are_merged_though_nothing_in_them_is_dead() {
        let sparse = |count| (0..count).map(|id| content(id, 4096, 4096)).collect();
        assert_eq!(choose(sparse(32), SEGMENT, 50 << 30), []);
        assert_eq!(choose(sparse(33), SEGMENT, 50 << 30).len(), 33);
    }

    /// What the rule is for: whatever the mix, what is dead stays within its bound, but for segments that are nearly full.
    #[test]
    fn after_a_choice_the_dead_are_within_their_bound() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let quota = random.u64(0..64) << 26;
            let all: Vec<_> = (0..random.u32(0..60))
                .map(|id| {
                    let bytes = random.u64(1..SEGMENT);
                    content(id, bytes, random.u64(0..=bytes))
                })
                .collect();
            let chosen = choose(all.clone(), SEGMENT, quota);
            let left = all.iter().filter(|it| !chosen.contains(&it.id));
            let dead: u64 = left
                .filter(|it| it.is_worth_it())
                .map(Content::dead_bytes)
                .sum();
            assert!(dead <= (2 * SEGMENT).max(quota / 10), "seed {seed}");
        }
    }
}
