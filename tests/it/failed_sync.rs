//! A disk that refuses writes for a moment. The sync fails, once, and from then on the page cache serves bytes that
//! the disk never got. The store is asked again, by its next life or in this one, and then the power goes: what it
//! said yes to is on the disk.

use std::path::Path;

use crate::driver::Job;
use crate::support::rig::can_break_disks;
use crate::support::{Account, CACHED_DISK_TOOLS, CachedDisk, Fault, number, seed, wait_for};

fn job<'a>(job: &'a str, store: &'a Path, sabotage: &'a str, stop_at: &'a str) -> Job<'a> {
    Job {
        job,
        store,
        seed: 1,
        sabotage,
        stop_at,
        marker: None,
    }
}

/// Until so much more was said than at first.
fn wait_for_facts(process: &mut crate::support::Process, what: &str, count: usize) {
    let said = |out: &str| {
        Account::facts(out)
            .iter()
            .filter(|fact| fact.starts_with(what))
            .count()
    };
    let before = said(&process.out());
    wait_for(&format!("{count} more times {what:?}"), || {
        assert!(process.ended().is_none(), "{}", process.err());
        (said(&process.out()) >= before + count).then_some(())
    });
}

/// How often a sync failed, or why the store broke its word.
fn fails_then_restarts(sabotage: &str, extra: usize) -> Result<bool, String> {
    let mut disk = CachedDisk::with_journal_apart();
    let store = disk.path().join("store");
    let mut account = Account::new(Fault::PowerCut);

    // Its syncer stops where it hears of the failure, so that nothing is written after it.
    let mut first = job("take_in", &store, sabotage, "after_a_failed_sync").start();
    wait_for_facts(&mut first, "yes", 3 + extra);
    disk.fail_writes(true);
    first.wait_until_told("stopped at after_a_failed_sync");
    disk.fail_writes(false);
    let first = first.kill();
    account.hear(&first.out)?;

    // The next life finds those bytes, and is asked for the same chunks again.
    let mut second = job("take_in", &store, sabotage, "").start();
    wait_for_facts(&mut second, "= end", 1);
    wait_for_facts(&mut second, "yes", 3);
    disk.cut();
    let second = second.kill();
    let landed = disk.unplug();
    disk.power_up();
    account.hear(&second.out)?;

    look(&disk, &mut account)?;
    Ok(landed)
}

/// The same in one life: refused with the cause, then accepted again by itself.
fn fails_then_recovers(sabotage: &str) -> Result<bool, String> {
    let mut disk = CachedDisk::with_journal_apart();
    let store = disk.path().join("store");
    let mut account = Account::new(Fault::PowerCut);
    let mut process = job("take_in", &store, sabotage, "").start();
    wait_for_facts(&mut process, "yes", 3);
    disk.fail_writes(true);
    // A store that trusts a failed sync goes on as if nothing had been.
    let sign = if sabotage.is_empty() {
        "refused"
    } else {
        "yes"
    };
    wait_for_facts(&mut process, sign, 2);
    disk.fail_writes(false);
    wait_for_facts(&mut process, "yes", 3);
    disk.cut();
    let ended = process.kill();
    let landed = disk.unplug();
    disk.power_up();
    if sabotage.is_empty() && !ended.out.contains("disk sync failed") {
        return Err(format!("refused without its reason: {}", ended.out));
    }
    account.hear(&ended.out)?;
    look(&disk, &mut account)?;
    Ok(landed)
}

fn look(disk: &CachedDisk, account: &mut Account) -> Result<(), String> {
    let store = disk.path().join("store");
    let ended = job("verify", &store, "", "").start().wait();
    if ended.code != Some(0) {
        return Err(format!("{ended:?}"));
    }
    account.hear(&ended.out)
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_called_safe_by_the_next_life() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed());
    let rounds = number("REELAY_FAILED_SYNCS", 4);
    let outcomes: Vec<_> = (0..rounds)
        .map(|_| fails_then_restarts("", random.usize(..20)))
        .collect();
    println!("{rounds} failed syncs, restarts and power cuts: {outcomes:?}");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(outcomes.contains(&Ok(true)), "no cut landed");
}

#[test]
fn a_next_life_that_trusts_the_cache_is_noticed() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let lost = (0..5).find_map(|extra| fails_then_restarts("TrustPageCache", extra).err());
    println!("{lost:?}");
    assert!(lost.is_some(), "went unnoticed");
}

#[test]
fn a_failed_sync_refuses_and_a_later_one_accepts_again_and_the_disk_has_it() {
    if !can_break_disks(&CACHED_DISK_TOOLS) {
        return;
    }
    let outcome = fails_then_recovers("");
    println!("{outcome:?}");
    assert!(outcome.is_ok(), "{outcome:?}");
    let lost = (0..5).find_map(|_| fails_then_recovers("TrustFailedSync").err());
    println!("{lost:?}");
    assert!(lost.is_some(), "went unnoticed");
}
