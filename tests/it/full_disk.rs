//! A disk that takes no more, on real small filesystems: no space, no quota, no inodes, no names, no descriptors, a
//! filesystem that gave up. Each refusal says what it is, the worker stays, what was accepted is delivered and settled,
//! and intake goes on by itself once the cause is gone.

use std::time::{Duration, Instant};

use crate::support::rig::{can_break_disks, knows_filesystem, text, tool};
use crate::support::{
    Ended, Filler, Frozen, Inodes, Process, Site, SmallDisk, wait_for, wait_within,
};

/// Accepted before the trouble.
const BACKLOG: u64 = 12;
/// And as many small ones.
const SMALL: u64 = 300;
const ACCEPTED: u64 = BACKLOG + SMALL;
/// More than one segment of it, so that a disk that reserved one must say no in the end.
const MORE: u64 = 40;
const BYTES: usize = 90_000;
/// `worker enqueue`: full, or the disk.
const FULL: i32 = 75;
const STORAGE: i32 = 74;

fn enqueue(site: &Site, session: &str, sequence: u64) -> Ended {
    let file = site.file(&format!("acme-{session}-{sequence}.ts"), BYTES);
    let sequence = sequence.to_string();
    let mut command = site.command(&["enqueue", "--json", "--tenant", "acme"]);
    command
        .args(["--session", session, "--sequence", &sequence])
        .arg(file);
    Process::start(&mut command).wait()
}

/// A paused tenant with a backlog, and the worker that holds it.
fn loaded(site: &Site) -> Process {
    let run = site.run();
    site.worker("tenants pause acme").expect(0);
    for sequence in 0..BACKLOG {
        enqueue(site, "s1", sequence).expect(0);
    }
    // Many to settle, so that the index has to grow for it.
    let many = (0..SMALL).map(|n| site.file(&format!("small-{n}.ts"), 700));
    let mut command = site.command("enqueue -q --tenant acme --session s0 --sequence 0");
    Process::start(command.args(many)).wait().expect(0);
    run
}

/// Offers until the store says no. How many it took, and what it said.
#[track_caller]
fn refused(site: &Site, session: &str, (code, words): (i32, &str)) -> u64 {
    for sequence in 0..MORE {
        let ended = enqueue(site, session, sequence);
        if ended.code == Some(0) {
            continue;
        }
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let told = ended.json();
        let message = told["error"]["message"].as_str().unwrap_or_default();
        println!("refused after {sequence}: {message}");
        assert!(message.contains(words), "{told}");
        return sequence;
    }
    panic!("took {MORE} more");
}

/// The chunk that was refused is accepted soon after the cure, by itself.
#[track_caller]
fn resumes(site: &Site, session: &str, sequence: u64) {
    let cured = Instant::now();
    wait_for("intake to resume", || {
        (enqueue(site, session, sequence).code == Some(0)).then_some(())
    });
    println!("intake resumed after {:?}", cured.elapsed());
}

#[track_caller]
fn stays(run: &mut Process) {
    assert!(run.ended().is_none(), "the worker ended: {}", run.err());
}

/// Delivered, settled, and in order closed.
#[track_caller]
fn ends_well(site: &Site, run: Process, chunks: u64) {
    site.wait_stats("everything to be delivered", |told| {
        told.balance("delivered") == chunks
    });
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(chunks);
}

/// Trouble while the worker runs, deliveries during it, and the cure.
fn refuses_delivers_and_resumes<T>(
    disk: &SmallDisk,
    refusal: (i32, &str),
    trouble: impl FnOnce() -> T,
    during: impl FnOnce(),
) {
    let mut run = loaded(disk);
    let cure = trouble();
    let more = refused(disk, "s2", refusal);
    stays(&mut run);
    during();
    disk.worker("tenants resume acme").expect(0);
    disk.wait_stats("deliveries and their settling", |told| {
        told.balance("delivered") == ACCEPTED + more
    });
    stays(&mut run);
    drop(cure);
    resumes(disk, "s2", more);
    ends_well(disk, run, ACCEPTED + more + 1);
}

#[test]
fn a_full_disk_refuses_delivers_and_settles_and_resumes_by_itself() {
    if !can_break_disks(&[]) {
        return;
    }
    let disk = SmallDisk::ext4();
    refuses_delivers_and_resumes(
        &disk,
        (FULL, "store full: "),
        || Filler::of(&disk.store()),
        || assert_eq!(disk.free_bytes(), 0),
    );
}

#[test]
fn a_disk_that_is_full_at_the_start_is_no_reason_not_to_start_and_to_deliver() {
    if !can_break_disks(&[]) {
        return;
    }
    let disk = SmallDisk::ext4();
    let run = loaded(&disk);
    disk.worker("tenants resume acme").expect(0);
    // A backlog that nobody closed: the index has to catch up at the next start, too.
    disk.worker("tenants pause acme").expect(0);
    let reserve = disk.store().join("reserve");
    wait_for("the reserve", || reserve.exists().then_some(()));
    run.kill();
    let full = Filler::once(&disk.store());
    assert_eq!(disk.free_bytes(), 0);
    let mut run = disk.run();
    let more = refused(&disk, "s2", (FULL, "store full: "));
    disk.worker("tenants resume acme").expect(0);
    disk.wait_stats("deliveries and their settling", |told| {
        told.balance("delivered") == told.balance("enqueued")
    });
    // What is delivered goes, although letting it go needs a little space.
    let few = || {
        std::fs::read_dir(disk.store().join("segments"))
            .unwrap()
            .count()
            <= 2
    };
    wait_for("the segments to go", || few().then_some(()));
    stays(&mut run);
    full.remove();
    resumes(&disk, "s2", more);
    ends_well(&disk, run, ACCEPTED + more + 1);
}

#[test]
fn a_used_up_quota_is_a_full_store_and_a_larger_one_cures_it() {
    if !can_break_disks(&["mkfs.btrfs", "btrfs"]) {
        return;
    }
    if !knows_filesystem("btrfs") {
        return println!("skipped: this kernel has no btrfs");
    }
    let disk = SmallDisk::btrfs();
    refuses_delivers_and_resumes(&disk, (FULL, "store full: "), || disk.quota(), || {});
}

#[test]
fn a_filesystem_without_inodes_is_a_full_store() {
    if !can_break_disks(&[]) {
        return;
    }
    let disk = SmallDisk::ext4();
    refuses_delivers_and_resumes(
        &disk,
        (FULL, "store full: "),
        || Inodes::all_of(&disk.store()),
        || {},
    );
}

#[test]
fn a_directory_that_takes_no_names_stops_intake_and_nothing_else() {
    if !can_break_disks(&["chattr"]) {
        return;
    }
    let disk = SmallDisk::ext4();
    refuses_delivers_and_resumes(
        &disk,
        (STORAGE, "Operation not permitted"),
        || Frozen::new(&disk.store().join("segments")),
        || {},
    );
}

#[test]
fn a_worker_without_descriptors_refuses_stays_and_resumes() {
    if !can_break_disks(&["prlimit"]) {
        return;
    }
    let disk = SmallDisk::ext4();
    let mut run = loaded(&disk);
    let id = run.id().to_string();
    let limit = |count: &str| {
        tool(&["prlimit", "--pid", &id, &format!("--nofile={count}:")]);
    };
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    limit(&open.to_string());
    // Its socket takes nobody, or its segments no more: whichever is first, nothing is accepted that is not durable.
    let mut accepted = 0;
    let mut refusal = None;
    for sequence in 0..MORE {
        let file = disk.file(&format!("acme-s2-{sequence}.ts"), BYTES);
        let number = sequence.to_string();
        let mut command = disk.command(&["enqueue", "--json", "--wait", "2s", "--tenant", "acme"]);
        command
            .args(["--session", "s2", "--sequence", &number])
            .arg(file);
        let ended = Process::start(&mut command).wait();
        if ended.code != Some(0) {
            refusal = Some(ended);
            break;
        }
        accepted += 1;
    }
    println!("refused after {accepted}: {refusal:?}");
    let refusal = refusal.expect("no descriptor is left");
    assert!(matches!(refusal.code, Some(FULL | STORAGE)), "{refusal:?}");
    stays(&mut run);
    limit("1024");
    resumes(&disk, "s2", accepted);
    disk.worker("tenants resume acme").expect(0);
    ends_well(&disk, run, ACCEPTED + accepted + 1);
}

#[test]
fn a_filesystem_that_gave_up_takes_nothing_and_keeps_what_it_had() {
    if !can_break_disks(&[]) {
        return;
    }
    let mut disk = SmallDisk::ext4();
    let mut run = loaded(&disk);
    tool(&["mount", "-o", "remount,abort", text(&disk.store())]);
    let ended = enqueue(&disk, "s2", 0);
    println!("refused: {ended:?}");
    assert!(matches!(ended.code, Some(FULL | STORAGE)), "{ended:?}");
    // Nothing can be written any more, so it may end; then it says so.
    let gone = wait_within(Duration::from_secs(20), || run.ended());
    println!("ended: {gone:?}");
    assert!(gone.is_none_or(|status| status.code() == Some(STORAGE)));
    run.kill();
    disk.mount_again();
    disk.worker("tenants resume acme").expect(0);
    enqueue(&disk, "s2", 0).expect(0);
    disk.worker("drain").expect(0);
    disk.assert_all_delivered(ACCEPTED + 1);
}
