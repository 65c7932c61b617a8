//! Power cuts: a real filesystem on a disk with a volatile write cache, and the power goes while the store takes in,
//! settles, seals, reclaims, writes its ledger or opens. Whatever was answered is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::driver::Job;
use crate::support::rig::can_break_disks;
use crate::support::{Account, CACHED_DISK_TOOLS, CachedDisk, Fault, number, seed, wait_for};

/// Where every second episode cuts, in turn, and what is under way there.
const POINTS: [(&str, &str); 9] = [
    ("writing", "enqueue"),
    ("between_ledgers_and_unlink", "reclaim"),
    ("between_frames_and_words", "enqueue"),
    ("acked", "settle"),
    ("sealing", "seal"),
    ("between_sync_and_yes", "enqueue"),
    ("between_ledger_files", "ledger"),
    ("between_unlink_and_sync", "reclaim"),
    ("reopening", "reopen"),
];

struct Campaign {
    disk: CachedDisk,
    random: Rng,
    account: Account,
    sabotage: &'static str,
    /// Cuts that took something the disk had said it has, by what was under way.
    landed: BTreeMap<&'static str, u64>,
    missed: u64,
}

impl Campaign {
    fn new(seed: u64, sabotage: &'static str) -> Self {
        Self {
            disk: CachedDisk::new(),
            random: Rng::with_seed(seed),
            account: Account::new(Fault::PowerCut),
            sabotage,
            landed: BTreeMap::new(),
            missed: 0,
        }
    }

    fn landed(&self) -> u64 {
        self.landed.values().sum()
    }

    /// One life of the store and its end; then what it said is held against what was said before.
    fn episode(&mut self, point: Option<(&'static str, &'static str)>) -> Result<(), String> {
        let store = self.disk.path().join("store");
        let stop_at = point.map_or_else(String::new, |(point, _)| {
            // A store is opened once in a life; everything else happens again and again.
            let which = if point == "reopening" {
                1
            } else {
                self.random.u32(1..4)
            };
            format!("{point}@{which}")
        });
        let mut process = Job {
            job: "work",
            store: &store,
            seed: self.random.u64(..),
            sabotage: self.sabotage,
            stop_at: &stop_at,
            marker: None,
        }
        .start();
        let under_way = match point {
            Some((point, under_way)) => {
                process.wait_until_told(&format!("stopped at {point}"));
                under_way
            }
            None => {
                // Counted in what was said, so that a slow machine gets as far as a fast one.
                let facts = self.random.usize(..300);
                wait_for("the driver to get so far", || {
                    assert!(process.ended().is_none(), "{}", process.err());
                    (Account::facts(&process.out()).len() > facts).then_some(())
                });
                "anything"
            }
        };
        self.disk.cut();
        let ended = process.kill();
        if self.disk.unplug() {
            *self.landed.entry(under_way).or_default() += 1;
        } else {
            self.missed += 1;
        }
        self.disk.power_up();
        self.account
            .hear(&ended.out)
            .map_err(|fault| format!("{fault}\n{}", ended.err))
    }

    fn run(&mut self, cuts: u64) -> Result<(), String> {
        let mut round = 0;
        while self.landed() < cuts && self.missed <= cuts {
            let point = (round % 2 == 0).then(|| POINTS[round / 2 % POINTS.len()]);
            self.episode(point)?;
            round += 1;
        }
        self.look()
    }

    /// Everything that is owed is read, delivered and settled, and the store closed.
    fn look(&mut self) -> Result<(), String> {
        let store = self.disk.path().join("store");
        let ended = Job {
            job: "verify",
            store: &store,
            seed: 0,
            sabotage: "",
            stop_at: "",
            marker: None,
        }
        .start()
        .wait();
        if ended.code != Some(0) {
            return Err(format!("{ended:?}"));
        }
        self.account.hear(&ended.out)
    }
}

#[test]
fn nothing_answered_is_lost_however_the_power_goes() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let cuts = number("REELAY_CUTS", 60);
    let mut campaign = Campaign::new(seed(), "");
    let outcome = campaign.run(cuts);
    println!(
        "{} power cuts landed {:?}, {} missed; {} answered chunks, {} reports compared",
        campaign.landed(),
        campaign.landed,
        campaign.missed,
        campaign.account.promised(),
        campaign.account.reports,
    );
    assert_eq!(outcome, Ok(()));
    assert!(campaign.landed() >= cuts, "only {}", campaign.landed());
}

#[test]
fn a_power_cut_shows_a_store_that_answers_without_a_sync() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let mut campaign = Campaign::new(7, "SkipSync");
    let lost = (0..10).find_map(|_| campaign.episode(None).and_then(|()| campaign.look()).err());
    println!("{} power cuts landed: {lost:?}", campaign.landed());
    assert!(lost.is_some(), "went unnoticed");
}

fn segments(store: &Path) -> BTreeSet<String> {
    let listed = fs::read_dir(store.join("segments")).expect("the store has segments");
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Fills segments, delivers them, and cuts where their names are gone and the directory is not synced. Those that were
/// there again afterwards.
fn unlinked_and_back(disk: &mut CachedDisk, account: &mut Account, seed: u64) -> BTreeSet<String> {
    let store = disk.path().join("store");
    let life = |job, stop_at| Job {
        job,
        store: &store,
        seed,
        sabotage: "",
        stop_at,
        marker: None,
    };
    let mut process = life("take_in", "").start();
    wait_for("a few segments", || {
        assert!(process.ended().is_none(), "{}", process.err());
        (process.out().matches("~ yes").count() > 100).then_some(())
    });
    account.hear(&process.kill().out).unwrap();
    let mut process = life("verify", "between_unlink_and_sync").start();
    process.wait_until_told("stopped at between_unlink_and_sync");
    let left = segments(&store);
    disk.cut();
    let ended = process.kill();
    disk.unplug();
    disk.power_up();
    account.hear(&ended.out).unwrap();
    let found = segments(&store);
    found.difference(&left).cloned().collect()
}

#[test]
fn an_unlinked_segment_that_is_there_again_after_a_cut_is_not_taken_up_again() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let mut disk = CachedDisk::new();
    let mut account = Account::new(Fault::PowerCut);
    // Some other sync may have taken the directory along.
    let back = (0..10).find_map(|seed| {
        let back = unlinked_and_back(&mut disk, &mut account, seed);
        (!back.is_empty()).then_some(back)
    });
    let back = back.expect("no unlinked segment came back in ten cuts");
    let mut campaign = Campaign {
        disk,
        random: Rng::with_seed(1),
        account,
        sabotage: "",
        landed: BTreeMap::new(),
        missed: 0,
    };
    assert_eq!(campaign.look(), Ok(()));
    let after = segments(&campaign.disk.path().join("store"));
    println!("{back:?} came back; after the next opening {after:?}");
    assert!(back.is_disjoint(&after));
}
