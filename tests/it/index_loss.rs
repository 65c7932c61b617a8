//! The index is lost: it hangs, it panics, or somebody removed it with everything else that is no journal. What was
//! accepted stays accepted, and the next start knows what the last one knew.

use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::{Process, Site, Told, seed};

/// A process whose index is lost ends by itself within this.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_worker_whose_index_panics_keeps_what_it_accepted_and_ends_by_itself() {
    loses_its_index("PanicIndex");
}

#[test]
fn a_worker_whose_index_hangs_keeps_what_it_accepted_and_ends_by_itself() {
    loses_its_index("HangIndex");
}

/// A `run` that meets the fault while it delivers, and while it takes in more.
fn loses_its_index(sabotage: &str) {
    let site = Site::new();
    for sequence in 0..3 {
        site.enqueue("acme", "s1", sequence);
        site.enqueue("globex", "s1", sequence);
    }
    // What is in flight when the index goes is answered after it is gone.
    site.sandbox.fault(json!({"times": 2, "action": "hold"}));
    let mut command = site.command(&["run"]);
    let run = site.run_with(command.env("REELAY_SABOTAGE", sabotage));
    site.sandbox.wait_held(2);
    // The journal alone says yes.
    site.enqueue("acme", "s2", 0);
    site.sandbox.release();
    let lost_at = Instant::now();
    ends_with_74(run);
    println!("{sabotage}: ended after {:?}", lost_at.elapsed());

    let delivered = site.sandbox.counted("delivered");
    assert!(delivered > 0, "nothing was in flight");
    let told = site.stats();
    assert_eq!(told.balance("enqueued"), 7);
    assert_eq!(told.balance("delivered"), delivered, "in flight, unsettled");
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(7);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    assert!(site.sandbox.film("acme", "s1") == site.enqueued("acme", "s1", 2));
}

/// By itself, and it says why.
#[track_caller]
fn ends_with_74(process: Process) {
    let ended = process.wait_at_most(ENDS_WITHIN);
    let ended = ended.unwrap_or_else(|run| panic!("runs on after {ENDS_WITHIN:?}: {}", run.err()));
    assert_eq!(ended.code, Some(74), "{}", ended.err);
    assert!(ended.err.contains("index"), "{}", ended.err);
}

#[test]
fn a_worker_whose_index_is_lost_at_a_lease_ends_by_itself_and_the_next_one_delivers() {
    for sabotage in ["PanicLease", "HangLease"] {
        let site = Site::new();
        for sequence in 0..3 {
            site.enqueue("acme", "s1", sequence);
        }
        let mut command = site.command("run");
        ends_with_74(Process::start(command.env("REELAY_SABOTAGE", sabotage)));
        assert_eq!(site.sandbox.counted("delivered"), 0, "{sabotage}");
        site.worker("drain").expect(0);
        site.assert_all_delivered(3);
    }
}

#[test]
fn an_enqueue_whose_index_is_lost_has_made_its_chunk_durable() {
    for sabotage in ["PanicIndex", "HangIndex"] {
        let site = Site::new();
        let file = site.file("acme-s1-0.ts", 3000);
        let mut command = site.command(&["enqueue", "--json", "--tenant", "acme"]);
        command
            .args(["--session", "s1", "--sequence", "0"])
            .arg(file)
            .env("REELAY_SABOTAGE", sabotage);
        let ended = Process::start(&mut command).wait_at_most(ENDS_WITHIN);
        let ended = ended.unwrap_or_else(|_| panic!("runs on after {ENDS_WITHIN:?}"));
        assert_eq!(ended.json_lines()[0]["known"], false, "{ended:?}");
        site.worker(&["drain"]).expect(0);
        site.assert_all_delivered(1);
    }
}

#[test]
fn a_worker_whose_index_hangs_in_its_close_ends_by_itself_and_loses_nothing() {
    loses_its_index_in_its_close("HangClose");
}

#[test]
fn a_worker_whose_index_panics_in_its_close_ends_by_itself_and_loses_nothing() {
    loses_its_index_in_its_close("PanicClose");
}

fn loses_its_index_in_its_close(sabotage: &str) {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    let mut command = site.command("run");
    let run = site.run_with(command.env("REELAY_SABOTAGE", sabotage));
    site.wait_stats("the delivery", |told| told.balance("delivered") == 1);
    site.worker("tenants pause acme").expect(0);
    site.enqueue("acme", "s1", 1);
    let told_to_end_at = Instant::now();
    run.terminate();
    ends_with_74(run);
    println!("{sabotage}: ended after {:?}", told_to_end_at.elapsed());

    let before = index_number(&site);
    assert_eq!(site.stats().chunks("acme", "held"), 1);
    assert!(index_number(&site) > before, "half a close is not trusted");
    site.worker("tenants resume acme").expect(0);
    site.worker("drain").expect(0);
    site.assert_all_delivered(2);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
}

/// How many databases are damaged before it is enough.
const DAMAGED: u64 = 16;

/// One flipped bit makes sled panic or lose rows in silence. Whichever it is: what was accepted is delivered once, by the next start or by the one after an end with 74.
#[test]
fn a_database_with_a_flipped_bit_loses_nothing() {
    let mut random = Rng::with_seed(seed());
    let (mut lost, mut rebuilt) = (0, 0);
    for round in 0..DAMAGED {
        let site = Site::new();
        for sequence in 0..4 {
            site.enqueue("acme", "s1", sequence);
            site.enqueue("globex", "s1", sequence);
        }
        if round % 2 == 0 {
            let run = site.run();
            site.enqueue("acme", "s2", 0);
            run.kill();
        } else {
            // Closed in order: nothing tells the next start to doubt it.
            site.enqueue("acme", "s2", 0);
        }
        let before = index_number(&site);
        flip_a_bit(&site, &mut random);
        let mut drain = site.worker(&["drain"]);
        if drain.code == Some(74) {
            lost += 1;
            drain = site.worker(&["drain"]);
        }
        drain.expect(0);
        site.assert_all_delivered(9);
        assert!(site.sandbox.film("acme", "s1") == site.enqueued("acme", "s1", 3));
        rebuilt += u64::from(index_number(&site) > before);
    }
    println!("of {DAMAGED} databases {lost} were lost under way, {rebuilt} made anew");
    assert!(rebuilt > 0, "no flipped bit hit");
}

/// Grows when an index is made anew.
fn index_number(site: &Site) -> u64 {
    let listed = fs::read_dir(site.store().join("index")).unwrap();
    let numbers =
        listed.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u64>().ok());
    numbers.max().expect("there is an index")
}

/// In the used part of sled's file: zeros behind it would not be read.
fn flip_a_bit(site: &Site, random: &mut Rng) {
    let mut files = Vec::new();
    let mut folders = vec![site.store().join("index")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "db") {
                files.push(path);
            }
        }
    }
    let file = files.pop().expect("sled has its file");
    let mut bytes = fs::read(&file).unwrap();
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let at = used[random.usize(..used.len())];
    bytes[at] ^= 1 << random.u8(..8);
    println!("bit flipped at {at} of {}", bytes.len());
    fs::write(file, bytes).unwrap();
}

/// Everything in the store but the journal and its ledgers goes.
fn keep_only_the_journal(site: &Site) {
    let mut removed = 0;
    for entry in fs::read_dir(site.store()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "segments" || name.starts_with("ledger.") {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        removed += 1;
    }
    assert!(removed >= 2, "the index was there");
}

/// What must not depend on the index: counts, balance, holds, and dead letters with their reasons.
fn knowledge(site: &Site) -> (Value, Value) {
    let Told(stats) = site.stats();
    let mut tenants = stats["tenants"].clone();
    for (_, tenant) in tenants.as_object_mut().unwrap() {
        // The clock moves on, and only an engine orders what is owed into ready and delayed.
        let backlog: u64 = ["ready", "held", "delayed"]
            .map(|state| tenant[state]["chunks"].as_u64().unwrap())
            .iter()
            .sum();
        let kept = json!({"backlog": backlog, "dead": tenant["dead"], "delivered": tenant["delivered"],
            "gate": tenant["gate"]});
        *tenant = kept;
    }
    let known = json!({"tenants": tenants, "balance": stats["balance"]});
    let dead = site.worker(&["dead", "show", "--json"]).expect(0).json();
    (known, dead)
}

/// Without `--sequence` a session is continued where it stands.
fn next_sequence(site: &Site, session: &str) -> u64 {
    let file = site.file(&format!("next-{session}.ts"), 3000);
    let mut command = site.command(&["enqueue", "--json", "--tenant", "acme"]);
    command.args(["--session", session]).arg(file);
    let told = Process::start(&mut command).wait().expect(0).json();
    told["sequence"].as_u64().unwrap()
}

#[test]
fn a_store_without_its_index_knows_what_is_owed_held_and_dead() {
    let site = Site::new();
    for sequence in 0..4 {
        site.enqueue("acme", "s1", sequence);
        site.enqueue("acme", "s2", sequence);
    }
    // One dies while the other session shows that the route works.
    site.sandbox.fault(
        json!({"tenant": "acme", "session": "s1", "sequence": 1, "times": "forever", "action": {"status": 422}}),
    );
    site.worker(&["drain"]).expect(65);
    site.worker(&["tenants", "pause", "globex"]).expect(0);
    for sequence in 0..3 {
        site.enqueue("globex", "s1", sequence);
        site.enqueue("acme", "s3", sequence);
    }
    let before = knowledge(&site);
    assert_eq!(before.0["tenants"]["acme"]["backlog"], 3);
    assert_eq!(before.0["balance"]["dead"], 1);
    let died = &before.1["dead"][0];
    assert_eq!(died["reason"], "rejected", "{died:#}");
    for time in [
        &died["died_at"],
        &died["about"]["started_at"],
        &died["history"][0]["at"],
    ] {
        assert!(
            time.as_str().is_some_and(|time| time.ends_with('Z')),
            "{died:#}"
        );
    }
    assert_eq!(before.0["tenants"]["globex"]["gate"]["state"], "paused");

    keep_only_the_journal(&site);
    assert_eq!(knowledge(&site), before);
    for (session, next) in [("s1", 4), ("s2", 4), ("s3", 3)] {
        assert_eq!(next_sequence(&site, session), next, "{session}");
    }
    site.fsck();

    // The pause holds, everything else goes out.
    let report = site.worker(&["drain", "--json"]).expect(69).json();
    assert_eq!(report["tenants"]["acme"]["left"]["chunks"], 0);
    assert_eq!(report["tenants"]["globex"]["left"]["chunks"], 3);
    site.worker(&["tenants", "resume", "globex"]).expect(0);
    site.worker(&["drain"]).expect(0);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [0, 2, 3, 4]);
    assert_eq!(site.sandbox.sequences("globex", "s1"), [0, 1, 2]);
    assert_eq!(site.stats().balance("dead"), 1);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
}

#[test]
fn a_drained_store_without_its_index_goes_on_where_it_stood() {
    let site = Site::new();
    for sequence in 0..5 {
        site.enqueue("acme", "s1", sequence);
    }
    site.worker(&["drain"]).expect(0);
    site.worker(&["tenants", "pause", "globex"]).expect(0);
    let before = site.stats();
    keep_only_the_journal(&site);
    let after = site.stats();
    assert_eq!(after.0["balance"], before.0["balance"]);
    assert_eq!(after.holds("globex"), before.holds("globex"));
    assert_eq!(next_sequence(&site, "s1"), 5);
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(6);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(site.sandbox.counted("late"), 0);
}
