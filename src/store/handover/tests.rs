//! Whom the committer waits for.

use std::time::Duration;

use super::producers::Producers;
use super::stage::Held;
use super::waiting::{EAGER_BYTES, Gathering, Next, Waiting, Waits};
use crate::clock::Instant;
use crate::model::TenantId;

struct Nobody;

impl Waits for Nobody {
    fn bytes(&self) -> u64 {
        0
    }
    fn tenant(&self) -> Option<&TenantId> {
        None
    }
}

const PATIENCE: Duration = Duration::from_millis(1);
const NOW: Next = Next::Take { sync: true };
const WRITE: Next = Next::Take { sync: false };

/// What the committer does when `inside` producers are at work, `count` requests of `kib` each wait, and `held` of
/// them are written.
fn look(
    inside: usize,
    (count, held): (usize, usize),
    kib: u64,
    idle: bool,
) -> (Next, Waiting<Nobody>) {
    let queue = Gathering::<Nobody>::default();
    let _inside: Vec<_> = (0..inside).map(|_| queue.producers.enter()).collect();
    let mut waiting = Waiting {
        bytes: (count as u64 * kib) << 10,
        count,
        ..Waiting::default()
    };
    let held = Held {
        requests: held,
        bytes: (held as u64 * kib) << 10,
        idle,
        until: Instant::default(),
    };
    let next = queue.look(&mut waiting, held, PATIENCE);
    (next, waiting)
}

#[test]
fn one_producer_alone_waits_for_nobody() {
    assert_eq!(look(1, (1, 0), 64, true).0, NOW);
    assert_eq!(look(1, (1, 0), 1024, true).0, NOW);
}

#[test]
fn small_chunks_wait_for_those_who_are_about_to_come_again() {
    let (next, waiting) = look(16, (2, 4), 64, true);
    assert_eq!(next, Next::Wait(Some(PATIENCE)));
    assert_eq!(waiting.wanted, (EAGER_BYTES, 12), "the rest of the sixteen");
    assert_eq!(
        look(16, (4, 4), 64, true).0,
        WRITE,
        "copied while they come"
    );
    assert_eq!(look(16, (2, 14), 64, true).0, NOW, "all are there");
    assert_eq!(
        look(40, (2, 14), 64, true).0,
        NOW,
        "worth a sync of its own"
    );
}

#[test]
fn while_a_sync_is_under_way_what_is_worth_a_write_is_written_and_no_sync_begun() {
    assert_eq!(look(16, (1, 0), 256, false).0, WRITE);
    assert_eq!(look(16, (2, 0), 64, false).0, Next::Wait(None));
    assert_eq!(look(2, (2, 0), 64, false).0, WRITE, "nobody else can come");
    assert_eq!(look(16, (0, 0), 64, false).0, Next::Wait(None));
}

#[test]
fn who_waits_is_never_left_alone_when_patience_is_over_the_store_closes_or_is_latched() {
    let queue = Gathering::<Nobody>::default();
    let _inside = (queue.producers.enter(), queue.producers.enter());
    let held = Held {
        requests: 1,
        bytes: 512,
        idle: true,
        until: Instant::default(),
    };
    let mut waiting = Waiting::default();
    assert_eq!(
        queue.look(&mut waiting, held, PATIENCE),
        Next::Wait(Some(PATIENCE))
    );
    assert_eq!(queue.look(&mut waiting, held, Duration::ZERO), NOW);
    waiting.interrupted = true;
    assert_eq!(queue.look(&mut waiting, held, PATIENCE), NOW);
    assert!(!waiting.interrupted);
    waiting.closing = true;
    assert_eq!(queue.look(&mut waiting, held, PATIENCE), NOW);
}

#[test]
fn who_left_is_expected_until_a_sync_began_without_it() {
    let producers = Producers::default();
    let one = producers.enter();
    let other = producers.enter();
    drop(one);
    assert_eq!((producers.inside(), producers.most()), (1, 2));
    producers.sync_begins();
    assert_eq!((producers.inside(), producers.most()), (1, 1));
    drop(other);
    assert_eq!((producers.inside(), producers.most()), (0, 1));
}
