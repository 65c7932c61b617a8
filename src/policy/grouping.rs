//! Which chunks of a session share a request, and what a refusal of several says about one of them.
//!
//! There is no timer: a session's turn takes what is there. A chunk goes alone whenever its own fate is in question,
//! because a verdict on several is evidence against none of them.

use std::time::Duration;

use super::retry::{Disposition, Settle};
use crate::model::FailureClass;

/// What one request may hold. Its first chunk may always go, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_chunks: u32,
    /// The longest span of recording.
    pub max_interval: Duration,
}

impl Limits {
    pub const MAX_BYTES: u64 = 32 << 20;
    pub const MAX_CHUNKS: u32 = 64;
    pub const MAX_INTERVAL: Duration = Duration::from_secs(15 * 60);

    /// One chunk a request.
    pub const ALONE: Self = Self {
        max_bytes: 0,
        max_chunks: 1,
        max_interval: Duration::ZERO,
    };

    pub fn is_alone(&self) -> bool {
        self.max_chunks <= 1
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: Self::MAX_BYTES,
            max_chunks: Self::MAX_CHUNKS,
            max_interval: Self::MAX_INTERVAL,
        }
    }
}

/// A chunk, as far as its company is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    pub bytes: u64,
    pub duration: Duration,
    /// What a request states once for all its parts.
    pub host: &'a str,
    pub media_type: &'a str,
    /// No chunk of the session follows.
    pub last: bool,
    /// Counted failures, and times that it was on the wire when the process ended.
    pub failures: u32,
    pub crashes: u32,
    /// It waits for its next try.
    pub waits: bool,
}

/// The request under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    limits: Limits,
    host: String,
    media_type: String,
    chunks: u32,
    bytes: u64,
    span: Duration,
    closed: bool,
}

impl Group {
    pub fn of(limits: Limits, first: &Member<'_>) -> Self {
        Self {
            limits,
            host: first.host.to_owned(),
            media_type: first.media_type.to_owned(),
            chunks: 1,
            bytes: first.bytes,
            span: first.duration,
            closed: first.last || first.failures > 0 || first.crashes > 0,
        }
    }

    /// Whether another could be admitted at all.
    pub fn is_full(&self) -> bool {
        self.closed || self.chunks >= self.limits.max_chunks || self.bytes >= self.limits.max_bytes
    }

    /// Whether the next chunk in sequence comes along; it is counted if so.
    pub fn admits(&mut self, next: &Member<'_>) -> bool {
        let bytes = self.bytes.saturating_add(next.bytes);
        let span = self.span.saturating_add(next.duration);
        let fits = !self.is_full()
            && bytes <= self.limits.max_bytes
            && span <= self.limits.max_interval
            && next.host == self.host
            && next.media_type == self.media_type
            && next.failures == 0
            && next.crashes == 0
            && !next.waits;
        if fits {
            (self.chunks, self.bytes, self.span) = (self.chunks + 1, bytes, span);
            self.closed = next.last;
        }
        fits
    }
}

/// What a definite refusal of several chunks at once says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Something among them is refused: halve.
    OneOfThem,
    /// Together they are too large: smaller groups for the whole lane.
    TooLarge,
}

/// `None`: the failure says nothing about the payload, and the same group goes again.
pub fn refused(class: FailureClass, status: Option<u16>) -> Option<Refused> {
    match class {
        FailureClass::Rejected if status == Some(413) => Some(Refused::TooLarge),
        FailureClass::Rejected | FailureClass::DigestMismatch | FailureClass::Damaged => {
            Some(Refused::OneOfThem)
        }
        _ => None,
    }
}

/// What remains of a decision that was taken as if the group were one chunk, and whether the group is to be halved. What
/// would use up a retry of a chunk, or end it, counts against none of several: halved often enough, the one that it is
/// about goes alone and is judged by itself.
pub fn shared_out(disposition: Disposition) -> (Disposition, bool) {
    let (settle, halve) = match disposition.settle {
        Settle::Nack {
            delay,
            counted: true,
        } => (
            Settle::Nack {
                delay,
                counted: false,
            },
            true,
        ),
        Settle::Bury { .. } => (Settle::Release, true),
        settle => (settle, false),
    };
    let disposition = Disposition {
        settle,
        ..disposition
    };
    (disposition, halve)
}

/// The search for what is wrong with a refused group: its first half goes next. What is delivered leaves the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Halving {
    /// The last sequence of the smallest group that was refused.
    last: Option<u64>,
}

impl Halving {
    pub fn refused(&mut self, first: u64, chunks: u32) {
        self.last = Some(first.saturating_add(u64::from(chunks.saturating_sub(1))));
    }

    /// How many chunks may go together where `first` is next.
    pub fn most(&self, first: u64) -> u32 {
        match self.last {
            Some(last) if last >= first => {
                let left = u32::try_from(last - first + 1).unwrap_or(u32::MAX);
                (left / 2).max(1)
            }
            _ => u32::MAX,
        }
    }
}

/// What a lane has learned of its platform's largest request. Forgotten after an hour: it may have been a gateway of the
/// moment, and finding out again costs a few requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learned {
    bytes: Option<(u64, Duration)>,
}

const LEARNED_FOR: Duration = Duration::from_secs(3600);

impl Learned {
    /// So many bytes were too many.
    pub fn too_large(&mut self, bytes: u64, now: Duration) {
        let half = (bytes / 2).max(1);
        let lower = self.limit(now).map_or(half, |limit| limit.min(half));
        self.bytes = Some((lower, now.saturating_add(LEARNED_FOR)));
    }

    pub fn limit(&self, now: Duration) -> Option<u64> {
        self.bytes
            .filter(|(_, until)| now < *until)
            .map(|(bytes, _)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeadReason;

    const MIB: u64 = 1 << 20;

    fn chunk() -> Member<'static> {
        Member {
            bytes: MIB,
            duration: Duration::from_secs(30),
            host: "rec-017",
            media_type: "video/mp4",
            last: false,
            failures: 0,
            crashes: 0,
            waits: false,
        }
    }

    /// How many of these go in one request.
    fn taken(limits: Limits, chunks: &[Member<'_>]) -> usize {
        let mut group = Group::of(limits, &chunks[0]);
        1 + chunks[1..]
            .iter()
            .take_while(|next| group.admits(next))
            .count()
    }

    #[test]
    fn a_group_ends_at_whichever_limit_comes_first() {
        let many = [chunk(); 100];
        assert_eq!(taken(Limits::default(), &many), 30, "15 min of 30 s");
        let small = Member {
            duration: Duration::from_secs(1),
            ..chunk()
        };
        assert_eq!(taken(Limits::default(), &[small; 100]), 32, "32 MiB");
        let tiny = Member { bytes: 10, ..small };
        assert_eq!(taken(Limits::default(), &[tiny; 100]), 64);
        assert_eq!(taken(Limits::ALONE, &many), 1);
    }

    #[test]
    fn the_first_chunk_goes_whatever_its_size_and_a_larger_one_never_joins() {
        let huge = Member {
            bytes: 1 << 40,
            duration: Duration::from_secs(86_400),
            ..chunk()
        };
        assert_eq!(taken(Limits::default(), &[huge, chunk()]), 1);
        assert_eq!(taken(Limits::default(), &[chunk(), huge]), 1);
        let absurd = Member {
            bytes: u64::MAX,
            duration: Duration::MAX,
            ..chunk()
        };
        assert_eq!(taken(Limits::default(), &[absurd, absurd]), 1);
    }

    #[test]
    fn whatever_is_in_question_goes_alone() {
        let questions = [
            Member {
                failures: 1,
                ..chunk()
            },
            Member {
                crashes: 1,
                ..chunk()
            },
        ];
        for question in questions {
            assert_eq!(taken(Limits::default(), &[question, chunk()]), 1);
            let group = [chunk(), chunk(), question, chunk()];
            assert_eq!(taken(Limits::default(), &group), 2);
        }
        let waiting = Member {
            waits: true,
            ..chunk()
        };
        assert_eq!(taken(Limits::default(), &[chunk(), waiting]), 1);
    }

    #[test]
    fn chunks_that_a_request_cannot_describe_together_split_it() {
        let others = [
            Member {
                host: "rec-018",
                ..chunk()
            },
            Member {
                media_type: "audio/ogg",
                ..chunk()
            },
        ];
        for other in others {
            assert_eq!(taken(Limits::default(), &[chunk(), other, chunk()]), 1);
        }
        let last = Member {
            last: true,
            ..chunk()
        };
        assert_eq!(taken(Limits::default(), &[chunk(), last, chunk()]), 2);
        assert_eq!(taken(Limits::default(), &[last, chunk()]), 1);
    }

    /// Requests until the only bad chunk of a group was refused alone.
    fn search(chunks: u64, bad: u64) -> (u32, u64) {
        let (mut halving, mut first, mut requests) = (Halving::default(), 0, 0);
        loop {
            let most = u64::from(halving.most(first).min(64)).min(chunks - first);
            requests += 1;
            if !(first..first + most).contains(&bad) {
                first += most;
            } else if most == 1 {
                return (requests, first);
            } else {
                halving.refused(first, u32::try_from(most).unwrap());
            }
        }
    }

    #[test]
    fn the_bad_chunk_of_a_refused_group_is_found_by_halving() {
        for bad in 0..64 {
            let (requests, found) = search(64, bad);
            assert_eq!(found, bad);
            assert!(requests <= 14, "{bad}: {requests} requests");
        }
    }

    #[test]
    fn behind_a_refused_group_whole_groups_go_again() {
        let mut halving = Halving::default();
        halving.refused(10, 4);
        assert_eq!(
            [10, 11, 12, 13].map(|first| halving.most(first)),
            [2, 1, 1, 1]
        );
        assert_eq!(halving.most(14), u32::MAX);
        halving.refused(u64::MAX, 1);
        assert_eq!(halving.most(u64::MAX), 1);
    }

    #[test]
    fn a_failure_of_several_is_counted_against_none_and_buries_none() {
        let of = |settle| Disposition {
            settle,
            session: None,
            route: None,
        };
        let delay = Duration::from_secs(3);
        let counted = of(Settle::Nack {
            delay,
            counted: true,
        });
        let uncounted = Settle::Nack {
            delay,
            counted: false,
        };
        assert_eq!(shared_out(counted), (of(uncounted), true));
        assert_eq!(shared_out(of(uncounted)), (of(uncounted), false));
        let bury = of(Settle::Bury {
            reason: DeadReason::RetriesExhausted,
            unproven: false,
        });
        assert_eq!(shared_out(bury), (of(Settle::Release), true));
        assert_eq!(
            shared_out(of(Settle::Release)),
            (of(Settle::Release), false)
        );
    }

    #[test]
    fn only_what_speaks_of_the_payload_breaks_a_group_up() {
        use FailureClass as C;
        for class in [
            C::Unauthorized,
            C::Forbidden,
            C::Endpoint,
            C::Throttled,
            C::PurviewPending,
            C::InDoubt,
            C::Transient,
            C::Unrecognised,
            C::UrlExpired,
        ] {
            assert_eq!(refused(class, Some(413)), None, "{class}");
        }
        assert_eq!(refused(C::Rejected, Some(413)), Some(Refused::TooLarge));
        assert_eq!(refused(C::Rejected, Some(422)), Some(Refused::OneOfThem));
        assert_eq!(
            refused(C::DigestMismatch, Some(460)),
            Some(Refused::OneOfThem)
        );
    }

    #[test]
    fn a_lane_learns_the_largest_request_and_forgets_it_after_an_hour() {
        let (mut learned, now) = (Learned::default(), Duration::from_secs(1000));
        assert_eq!(learned.limit(now), None);
        learned.too_large(8 * MIB, now);
        assert_eq!(learned.limit(now), Some(4 * MIB));
        learned.too_large(30 * MIB, now);
        assert_eq!(
            learned.limit(now),
            Some(4 * MIB),
            "one that was on the wire"
        );
        learned.too_large(4 * MIB, now);
        assert_eq!(learned.limit(now), Some(2 * MIB));
        assert_eq!(learned.limit(now + LEARNED_FOR), None);
    }
}
