//! The hand-overs under a model checker: the same files once more, over locks whose every turn the checker chooses. It
//! ends a schedule in which everybody sleeps, or one thread turns for ever, and tells which.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the same files once more is the point; what no schedule needs, the program does"
)]

#[path = "producers.rs"]
mod producers;
#[path = "stage.rs"]
mod stage;
#[path = "waiting.rs"]
mod waiting;

mod sync {
    pub use shuttle::sync::atomic::AtomicUsize;
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shuttle::sync::mpsc::{SyncSender, sync_channel};
use shuttle::thread;

use crate::clock::{Instant, SystemClock};
use crate::model::TenantId;
use stage::{Share, Stage};
use waiting::{Gathering, Waits};

const PRODUCERS: usize = 3;
const ROUNDS: usize = 2;
const SCHEDULES: usize = 3_000;

struct Ask {
    tenant: TenantId,
    bytes: u64,
    reply: SyncSender<()>,
}

impl Waits for Ask {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

struct Wrote(Vec<Ask>);

impl Share for Wrote {
    fn requests(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|ask| ask.bytes).sum()
    }
}

/// What the threads do wrong, for a test that must see it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// A sync ended, and the committer is not told.
    NoLookAfterSync,
    /// Too little for a sync of its own is left lying.
    NoRelease,
}

struct Store {
    gathering: Gathering<Ask>,
    stage: Stage<Wrote>,
    syncing: AtomicBool,
    answered: AtomicUsize,
    syncs: AtomicUsize,
    defect: Defect,
}

impl Store {
    fn new(defect: Defect) -> Arc<Self> {
        Arc::new(Self {
            gathering: Gathering::default(),
            stage: Stage::default(),
            syncing: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            defect,
        })
    }

    /// As `durable::settle`: one at a time, and the answer before the end.
    fn sync(&self, written: Vec<Wrote>) {
        assert!(!self.syncing.swap(true, Ordering::AcqRel), "two syncs");
        self.syncs.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        for ask in written.into_iter().flat_map(|it| it.0) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            // Who went away is answered too.
            let _gone = ask.reply.try_send(());
        }
        self.syncing.store(false, Ordering::Release);
        self.stage.settle(Instant::default());
    }

    /// As `durable::run`.
    fn syncer(&self) {
        while let Some(written) = self.stage.take(&self.gathering.producers) {
            self.sync(written);
            if self.defect != Defect::NoLookAfterSync {
                self.gathering.look_again();
            }
        }
    }

    /// As `commit::run`.
    fn committer(&self) {
        while let Some(batch) = self.gathering.take(&self.stage, &SystemClock) {
            if !batch.requests.is_empty() {
                self.stage.push(Wrote(batch.requests.into()));
            }
            if batch.sync {
                match self.stage.take_all(&self.gathering.producers) {
                    Some(written) => self.sync(written),
                    None if self.defect == Defect::NoRelease => {}
                    None => self.stage.release(),
                }
            }
        }
        self.stage.close();
    }

    /// Whether the store took it; answered then, unless this producer does not stay for it.
    fn produce(&self, name: usize, bytes: u64, stays: bool) -> bool {
        let _inside = self.gathering.producers.enter();
        let (reply, answer) = sync_channel(1);
        let tenant = format!("t{name}").parse().expect("a name");
        let ask = Ask {
            tenant,
            bytes,
            reply,
        };
        let taken = self.gathering.submit(ask).is_ok();
        if taken && stays {
            answer.recv().expect("an answer");
            assert!(answer.recv().is_err(), "answered twice");
        }
        taken
    }
}

/// A life with small and large chunks. `closes_early`: the store closes while producers come, and one goes away.
fn live(defect: Defect, closes_early: bool) {
    let store = Store::new(defect);
    let of = |act: fn(&Store)| {
        let store = Arc::clone(&store);
        thread::spawn(move || act(&store))
    };
    let threads = [of(Store::committer), of(Store::syncer)];
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|name| {
            let store = Arc::clone(&store);
            let bytes = if name == 0 { 300 << 10 } else { 512 };
            let stays = !closes_early || name != 1;
            thread::spawn(move || {
                let taken = |_: &usize| store.produce(name, bytes, stays);
                (0..ROUNDS).filter(taken).count()
            })
        })
        .collect();
    if closes_early {
        store.gathering.close();
    }
    let taken: usize = producers.into_iter().map(|it| it.join().unwrap()).sum();
    store.gathering.close();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let answered = store.answered.load(Ordering::Relaxed);
    assert_eq!(answered, taken, "each once, and only who was taken in");
    assert!(closes_early || taken == PRODUCERS * ROUNDS);
    assert!(store.syncs.load(Ordering::Relaxed) <= taken);
}

fn in_every_order(defect: Defect, closes_early: bool) {
    shuttle::check_random(move || live(defect, closes_early), SCHEDULES);
    shuttle::check_pct(move || live(defect, closes_early), SCHEDULES, 3);
}

#[test]
fn every_producer_is_answered_once_and_no_two_syncs_overlap_in_whatever_order_the_threads_run() {
    in_every_order(Defect::None, false);
}

#[test]
fn whoever_is_taken_in_is_answered_although_the_store_closes_meanwhile() {
    in_every_order(Defect::None, true);
}

#[test]
fn a_hand_over_that_forgets_somebody_would_be_noticed() {
    for defect in [Defect::NoLookAfterSync, Defect::NoRelease] {
        let told = std::panic::catch_unwind(|| in_every_order(defect, false)).unwrap_err();
        let told = told.downcast_ref::<String>().cloned().unwrap_or_default();
        let stuck = told.contains("deadlock") || told.contains("max_steps");
        assert!(stuck, "{told}");
    }
}
