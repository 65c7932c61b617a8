//! One session of a lane: its next chunk, what happened to it, and where that places the session among those that
//! could be served.

use std::time::Duration;

use crate::clock::Instant;
use crate::model::{FailureClass, FailureRecord, Gap, GapReason, Timestamp};
use crate::policy::grouping::Halving;
use crate::store::Head;

/// A chunk that was on the wire so many times when the process ended is sent no more.
pub const CRASHES_MAX: u32 = 5;

/// What to do with a session whose chunk became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDead {
    /// Go on with the next chunk and declare the gap.
    #[default]
    Skip,
    /// Wait until a person redrives or purges it.
    Hold,
}

/// The settings that place a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a missing sequence is waited for, from the later chunk's acceptance.
    pub gap_wait: Duration,
    pub on_dead: OnDead,
}

/// Sequences before a session's next chunk that nobody has given yet, and until when they are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub first: u64,
    pub last: u64,
    pub until: Instant,
}

/// The next chunk of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub sequence: u64,
    /// Enqueue number.
    pub number: u64,
    pub bytes: u64,
    /// Counted failures.
    pub counted: u32,
    pub crashes: u32,
    /// A higher sequence was delivered before.
    pub late: bool,
    /// Live chunks of the session, this one among them.
    pub owed: u64,
    ready_at: Instant,
    pub missing: Option<Missing>,
    behind_dead: Option<u64>,
    promoted: bool,
}

impl Work {
    pub fn of(head: &Head, rules: Rules, now: Instant, wall: Timestamp) -> Self {
        let has = |reason| head.gaps.iter().find(|gap: &&Gap| gap.reason == reason);
        let missing = has(GapReason::Missing).filter(|_| !head.late).map(|gap| {
            // A clock that went back makes the wait longer, never longer than the whole.
            let waited = wall.since(head.accepted_at);
            Missing {
                first: gap.first,
                last: gap.last,
                until: now.saturating_add(rules.gap_wait.saturating_sub(waited)),
            }
        });
        Self {
            sequence: head.sequence,
            number: head.number,
            bytes: head.bytes,
            counted: head.failures,
            crashes: head.crashes,
            late: head.late,
            owed: head.owed,
            ready_at: now.saturating_add(head.ready_in),
            missing,
            behind_dead: has(GapReason::Dead)
                .filter(|_| rules.on_dead == OnDead::Hold && !head.late)
                .map(|gap| gap.last),
            promoted: head.promoted,
        }
    }
}

/// The tries of the present chunk since this process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    pub sequence: u64,
    /// Requests, whatever came of them.
    pub sent: u32,
    /// Failures in a row, counted or not; neither throttles nor rejected tokens, which say nothing of the chunk.
    pub failed: u32,
    /// The youngest request that was sent before the last of these ended.
    pub last_after: Option<u64>,
    pub first_counted_at: Option<Instant>,
    pub last_counted_at: Option<Instant>,
    /// The request may have arrived: it goes again before others.
    pub in_doubt: bool,
    /// How many chunks the last request held, while there is no verdict on them; 0 otherwise.
    pub parts: u32,
}

/// The platform refused this session's chunk, whatever the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    pub class: FailureClass,
    pub in_a_row: u32,
    /// The youngest request sent before the first refusal came, and before the last.
    pub first_after: u64,
    pub last_after: u64,
    /// The session waits alone until then.
    pub until: Instant,
    /// The chunk that is suspect.
    pub suspect: Option<u64>,
    pub record: Option<FailureRecord>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing owed, or nothing known yet.
    Idle,
    InFlight,
    /// Goes first: its request is in doubt, or an operator wants it so.
    First,
    Ready,
    /// Goes last: its chunk was on the wire when the process ended.
    Crashed,
    Waiting(Instant, Wait),
    /// Waits for a person.
    Stuck(Stuck),
}

/// Why a session waits although its lane may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A missing sequence may still come.
    Gap,
    /// Its chunk's own backoff.
    Backoff,
    /// It was refused while others are served, or before others were tried.
    Refused,
    /// Something here went wrong with it: a panic, an unreadable store.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// Its chunk ended the process too often.
    Crashes(u32),
    /// A dead letter stands before it and `on_dead` is `hold`.
    BehindDead(u64),
}

#[derive(Debug, Default)]
pub struct Session {
    pub work: Option<Work>,
    pub in_flight: bool,
    /// The store has news of it.
    pub unread: bool,
    /// They are being read.
    pub reading: bool,
    pub tries: Tries,
    pub refusals: Option<Refusals>,
    pub halving: Halving,
    pub rest_until: Option<Instant>,
    /// Where its lane has put it.
    pub placed: Option<Place>,
}

impl Session {
    /// What the store says is next. A different chunk starts with a clean record.
    pub fn look(&mut self, work: Option<Work>) {
        self.reading = false;
        let sequence = work.as_ref().map(|work| work.sequence);
        if sequence != Some(self.tries.sequence) {
            self.tries = Tries {
                sequence: sequence.unwrap_or_default(),
                ..Tries::default()
            };
        }
        let suspect = self.refusals.as_ref().and_then(|r| r.suspect);
        if suspect.is_some() && suspect != sequence {
            self.refusals = None;
        }
        self.work = work;
    }

    /// Where it belongs. While its route is held the hold sets the pace, so that a refused session can be the probe.
    pub fn place(&self, now: Instant, route_held: bool) -> Place {
        if self.in_flight {
            return Place::InFlight;
        }
        let Some(work) = &self.work else {
            return Place::Idle;
        };
        if work.crashes >= CRASHES_MAX {
            return Place::Stuck(Stuck::Crashes(work.crashes));
        }
        if let Some(sequence) = work.behind_dead {
            return Place::Stuck(Stuck::BehindDead(sequence));
        }
        if let Some((until, why)) = self.waits_until(work, route_held).filter(|w| w.0 > now) {
            return Place::Waiting(until, why);
        }
        match work {
            work if work.crashes > 0 => Place::Crashed,
            work if self.tries.in_doubt || work.promoted => Place::First,
            _ => Place::Ready,
        }
    }

    /// What is known of it may be out of date.
    pub fn has_news(&self) -> bool {
        self.unread || self.reading
    }

    /// Could be sent sooner or later without a person.
    pub fn can_be_tried(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| work.crashes < CRASHES_MAX && work.behind_dead.is_none())
    }

    fn waits_until(&self, work: &Work, route_held: bool) -> Option<(Instant, Wait)> {
        let refused = self.refusals.as_ref().filter(|_| !route_held);
        [
            Some((work.ready_at, Wait::Backoff)),
            work.missing.map(|missing| (missing.until, Wait::Gap)),
            refused.map(|refusals| (refusals.until, Wait::Refused)),
            self.rest_until.map(|until| (until, Wait::Rest)),
        ]
        .into_iter()
        .flatten()
        .max_by_key(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(Duration::from_secs(1000));
    const WALL: Timestamp = Timestamp(1_000_000);

    const fn rules(on_dead: OnDead) -> Rules {
        Rules {
            gap_wait: Duration::from_secs(120),
            on_dead,
        }
    }

    fn head(gaps: &[GapReason]) -> Head {
        Head {
            sequence: 9,
            number: 1,
            bytes: 1,
            accepted_at: Timestamp(WALL.0 - 20_000),
            ready_in: Duration::ZERO,
            failures: 0,
            crashes: 0,
            late: false,
            promoted: false,
            gaps: gaps
                .iter()
                .map(|reason| Gap {
                    first: 7,
                    last: 8,
                    reason: *reason,
                })
                .collect(),
            owed: 1,
        }
    }

    fn placed(head: &Head, on_dead: OnDead) -> Place {
        let mut session = Session::default();
        session.look(Some(Work::of(head, rules(on_dead), NOW, WALL)));
        session.place(NOW, false)
    }

    #[test]
    fn a_missing_sequence_is_waited_for_from_the_later_chunks_acceptance() {
        let until = NOW.saturating_add(Duration::from_secs(100));
        assert_eq!(
            placed(&head(&[GapReason::Missing]), OnDead::Skip),
            Place::Waiting(until, Wait::Gap)
        );
        let mut late = head(&[GapReason::Missing]);
        late.late = true;
        assert_eq!(placed(&late, OnDead::Skip), Place::Ready);
    }

    #[test]
    fn a_clock_that_jumps_by_a_day_makes_a_gap_wait_neither_endless_nor_negative() {
        let mut back = head(&[GapReason::Missing]);
        back.accepted_at = Timestamp(WALL.0 + 86_400_000);
        let until = NOW.saturating_add(Duration::from_secs(120));
        assert_eq!(
            placed(&back, OnDead::Skip),
            Place::Waiting(until, Wait::Gap)
        );
        let mut forth = head(&[GapReason::Missing]);
        forth.accepted_at = Timestamp(WALL.0 - 86_400_000);
        assert_eq!(placed(&forth, OnDead::Skip), Place::Ready);
    }

    #[test]
    fn a_dead_letter_holds_its_session_only_where_that_is_asked_for() {
        let dead = head(&[GapReason::Dead]);
        assert_eq!(placed(&dead, OnDead::Skip), Place::Ready);
        assert_eq!(
            placed(&dead, OnDead::Hold),
            Place::Stuck(Stuck::BehindDead(8))
        );
        let purged = head(&[GapReason::Purged]);
        assert_eq!(placed(&purged, OnDead::Hold), Place::Ready);
    }

    #[test]
    fn a_chunk_that_ends_the_process_goes_last_and_after_five_times_not_at_all() {
        let mut crashed = head(&[]);
        crashed.crashes = 1;
        assert_eq!(placed(&crashed, OnDead::Skip), Place::Crashed);
        crashed.crashes = 5;
        assert_eq!(
            placed(&crashed, OnDead::Skip),
            Place::Stuck(Stuck::Crashes(5))
        );
    }

    #[test]
    fn a_promoted_session_goes_first_and_waits_like_any_other() {
        let mut promoted = head(&[]);
        promoted.promoted = true;
        assert_eq!(placed(&promoted, OnDead::Skip), Place::First);
        let mut missing = head(&[GapReason::Missing]);
        missing.promoted = true;
        assert!(matches!(
            placed(&missing, OnDead::Skip),
            Place::Waiting(_, Wait::Gap)
        ));
    }

    #[test]
    fn a_refused_session_waits_alone_unless_its_route_is_held() {
        let mut session = Session::default();
        session.look(Some(Work::of(&head(&[]), rules(OnDead::Skip), NOW, WALL)));
        let until = NOW.saturating_add(Duration::from_secs(2));
        session.refusals = Some(Refusals {
            class: FailureClass::Forbidden,
            in_a_row: 1,
            first_after: 1,
            last_after: 1,
            until,
            suspect: None,
            record: None,
        });
        assert_eq!(
            session.place(NOW, false),
            Place::Waiting(until, Wait::Refused)
        );
        assert_eq!(session.place(NOW, true), Place::Ready);
    }

    #[test]
    fn another_chunk_starts_with_a_clean_record() {
        let mut session = Session::default();
        session.look(Some(Work::of(&head(&[]), rules(OnDead::Skip), NOW, WALL)));
        session.tries.failed = 4;
        session.refusals = Some(Refusals {
            class: FailureClass::Rejected,
            in_a_row: 1,
            first_after: 1,
            last_after: 1,
            until: NOW,
            suspect: Some(9),
            record: None,
        });
        let mut next = head(&[]);
        next.sequence = 10;
        session.look(Some(Work::of(&next, rules(OnDead::Skip), NOW, WALL)));
        assert_eq!(session.tries.failed, 0);
        assert_eq!(session.refusals, None);
    }
}
