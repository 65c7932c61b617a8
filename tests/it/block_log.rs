//! Every write and flush that a store caused on its disk is recorded; then the disk is made again as a power cut might
//! have left it: everything up to a flush, and any blocks written after it, in any order. Each image is mounted and
//! opened, and holds what was answered before that moment.

use fastrand::Rng;

use crate::driver::Job;
use crate::support::rig::{Loop, Mount, can_break_disks};
use crate::support::{
    Account, Crash, Fault, LOGGED_DISK_TOOLS, LoggedDisk, MARKER_AT, Recording, number, seed,
    wait_for,
};

/// Things said before the recording ends.
const FACTS: usize = 2500;

struct Film {
    recording: Recording,
    said: String,
}

fn job<'a>(job: &'a str, store: &'a std::path::Path, sabotage: &'a str, seed: u64) -> Job<'a> {
    Job {
        job,
        store,
        seed,
        sabotage,
        stop_at: "",
        marker: None,
    }
}

/// Records a store at work: two lives, the first ended by a kill, so that a recovery is in it too.
fn record(seed: u64, sabotage: &'static str, facts: usize) -> Film {
    let disk = LoggedDisk::new();
    let store = disk.path().join("store");
    let mut said = String::new();
    for life in 0..2 {
        let before = Account::facts(&said).len();
        let mut work = job("work", &store, sabotage, seed.wrapping_add(life));
        work.marker = Some((disk.device(), MARKER_AT, before));
        let mut process = work.start();
        wait_for("the driver to get so far", || {
            assert!(process.ended().is_none(), "{}", process.err());
            (Account::facts(&process.out()).len() > facts / 2).then_some(())
        });
        said.push_str(&process.kill().out);
        // A kill may cut the last line; what was said in it is not known.
        said.truncate(said.rfind('\n').map_or(0, |end| end + 1));
    }
    Film {
        recording: disk.finish(),
        said,
    }
}

impl Film {
    /// What the store owes at a crash, from what was said before it.
    fn account(&self, crash: &Crash) -> Account {
        let facts = Account::facts(&self.said);
        let mut account = Account::new(Fault::PowerCut);
        let (sure, later) = facts.split_at(crash.said.min(facts.len()));
        // What the second life found may have stood in a cache only.
        for fact in sure.iter().filter(|fact| !fact.starts_with('=')) {
            account.fact(fact).expect("the recorded store did well");
        }
        let window = crash
            .said_next
            .unwrap_or(usize::MAX)
            .saturating_sub(crash.said);
        later
            .iter()
            .take(window)
            .for_each(|fact| account.perhaps(fact));
        account
    }

    /// Mounts the image and lets a store open it, say what it knows, deliver everything and close.
    fn look(&self, crash: &Crash) -> Result<(), String> {
        let device = Loop::over(&self.recording.image());
        let mount = Mount::try_new(device.path(), &self.recording.mount_point(), "data=ordered")?;
        let store = mount.path().join("store");
        let ended = job("verify", &store, "", 0).start().wait();
        if ended.code != Some(0) {
            return Err(format!("{ended:?}"));
        }
        self.account(crash).hear(&ended.out)
    }
}

#[derive(Debug, Default)]
struct Tally {
    images: u64,
    /// Images that lack something the disk had taken.
    landed: u64,
    blocks_lost: usize,
    blocks_unflushed: usize,
    bad: Vec<String>,
}

fn replay(film: &Film, images: u64, random: &mut Rng) -> Tally {
    let mut points: Vec<usize> = (0..images)
        .map(|_| random.usize(..film.recording.len() - 1))
        .collect();
    points.sort_unstable();
    let mut tally = Tally::default();
    let mut replay = film.recording.replay();
    for point in points {
        let crash = replay.crash_at(point, random);
        tally.images += 1;
        tally.landed += u64::from(crash.lost > 0);
        tally.blocks_lost += crash.lost;
        tally.blocks_unflushed += crash.unflushed;
        if let Err(fault) = film.look(&crash) {
            tally
                .bad
                .push(format!("crash after entry {point}: {fault}"));
        }
    }
    println!(
        "{} log entries, {} flushes; {tally:?}",
        film.recording.len(),
        film.recording.flushes()
    );
    tally
}

#[test]
fn whatever_part_of_the_unflushed_writes_a_cut_leaves_nothing_answered_is_lost() {
    if !can_break_disks(&LOGGED_DISK_TOOLS) {
        return;
    }
    let images = number("REELAY_IMAGES", 300);
    let seed = seed();
    let film = record(seed, "", FACTS);
    let tally = replay(&film, images, &mut Rng::with_seed(seed));
    assert!(tally.bad.is_empty(), "{} bad images", tally.bad.len());
    assert_eq!(tally.images, images);
    assert!(
        tally.landed * 10 >= images * 3,
        "only {} lost anything",
        tally.landed
    );
}

#[test]
fn the_images_show_a_store_that_answers_without_a_sync() {
    if !can_break_disks(&LOGGED_DISK_TOOLS) {
        return;
    }
    let film = record(7, "SkipSync", 600);
    let tally = replay(&film, 25, &mut Rng::with_seed(7));
    assert!(!tally.bad.is_empty(), "went unnoticed");
}
