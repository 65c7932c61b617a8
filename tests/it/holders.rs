//! Who holds the store, and everybody else beside it.

use serde_json::json;

use crate::support::{Ended, Place, Site, payload, wait_for};

fn enqueue_all(place: &Place, tenant: &str, session: &str, count: u64) {
    for number in 0..count {
        let name = format!("{session}-{number}.mp4");
        place.write(&name, &payload(&(number + 17).to_string(), 40_000));
    }
    let names: Vec<_> = (0..count).map(|n| format!("{session}-{n}.mp4")).collect();
    let names = names.join(" ");
    place
        .worker(&format!(
            "enqueue --tenant {tenant} --session {session} --sequence 0 -q {names}"
        ))
        .expect(0);
}

#[test]
fn every_command_answers_the_same_while_a_worker_holds_the_store() {
    let site = Site::new();
    let place = &*site;
    // Nothing moves while we look.
    for tenant in ["acme", "globex", "initech"] {
        place.worker(&format!("tenants pause {tenant}")).expect(0);
    }
    enqueue_all(place, "acme", "s1", 3);
    enqueue_all(place, "globex", "s1", 2);
    let questions = [
        "tenants list",
        "why nobody",
        "dead list --json",
        "dead show acme",
        "dead redrive acme s1 7",
        "dead purge acme --yes",
        "sessions promote acme s1",
        "sessions list --json",
        "sessions list --owed --limit 0",
        "sessions show globex s1",
        "sessions show acme s9",
        "sessions end nobody s1",
        "fsck --json",
        "tenants pause acme",
        "tenants pause nobody",
        "enqueue --tenant acme --session s1 s1-0.mp4",
        "enqueue --tenant acme --session s1 --sequence 0 --json s1-0.mp4 s1-1.mp4",
        "enqueue --tenant acme --session s1 --sequence 0 --json s1-1.mp4",
    ];
    let ask = || questions.map(|question| (question, place.worker(question)));
    let alone = ask();
    let run = place.start("run");
    place.wait_for_holder();
    let beside = ask();
    for ((question, alone), (_, beside)) in alone.iter().zip(&beside) {
        assert_eq!(
            alone.code, beside.code,
            "{question}: {alone:#?} {beside:#?}"
        );
        // A token's state is the engine's to tell.
        if *question != "tenants list" {
            assert_eq!(alone.out, beside.out, "{question}");
        }
        assert_eq!(alone.err, beside.err, "{question}");
    }
    let keys = |ran: &Ended| {
        let stats = ran.json_lines()[0].clone();
        (stats["total"].clone(), stats["balance"].clone())
    };
    let beside = place.worker("--stats --json").expect(0);
    run.terminate();
    run.wait().expect(0);
    let alone = place.worker("--stats --json").expect(0);
    assert_eq!(keys(&alone), keys(&beside));
}

#[test]
fn a_second_run_ends_with_75_and_names_the_first() {
    let site = Site::new();
    let run = site.start("run");
    site.wait_for_holder();
    let second = site.worker("run").expect(75);
    assert!(
        second.err.contains("held by worker run (pid "),
        "{}",
        second.err
    );
    run.terminate();
    run.wait().expect(0);
}

#[test]
fn a_drain_hands_over_to_a_run_and_reports_the_whole() {
    let site = Site::new();
    let place = &*site;
    site.sandbox
        .tenant("acme", json!({"token_endpoint": "down"}));
    enqueue_all(place, "acme", "s1", 5);
    enqueue_all(place, "globex", "g1", 2);
    let drain = place.start("drain --json --patience 10min");
    place.wait_for_holder();
    let run = place.start("run");
    wait_for("the run to hold the store", || {
        let second = place.worker("stats --json");
        (second.code == Some(0) && site.sandbox.ledger()["tenants"]["globex"]["delivered"] == 2)
            .then_some(())
    });
    site.sandbox.tenant("acme", json!({"token_endpoint": "up"}));
    place.worker("tenants resume acme").expect(0);
    let drained = drain.wait().expect(0).json_lines();
    assert_eq!(drained[0]["outcome"], "drained");
    assert_eq!(drained[0]["delivered"]["chunks"], 7, "{drained:#?}");
    run.terminate();
    run.wait().expect(0);
    assert_eq!(site.sandbox.ledger()["delivered"], 7);
}

#[test]
fn two_enqueues_a_stats_a_drain_and_a_run_at_once_all_end_well() {
    let site = Site::with("2s", "");
    let place = &*site;
    for number in 0..20 {
        place.write(
            &format!("a{number}.mp4"),
            &payload(&number.to_string(), 30_000),
        );
        place.write(
            &format!("b{number}.mp4"),
            &payload(&(number + 100).to_string(), 30_000),
        );
    }
    let names = |letter| {
        (0..20)
            .map(|n| format!("{letter}{n}.mp4 "))
            .collect::<String>()
    };
    let run = place.start("run");
    let first = place.start(&format!(
        "enqueue --tenant acme --session a --sequence 0 {}",
        names("a")
    ));
    let second = place.start(&format!(
        "enqueue --tenant globex --session b --sequence 0 {}",
        names("b")
    ));
    let stats = place.start("--stats --json");
    let drain = place.start("drain --json");
    first.wait().expect(0);
    second.wait().expect(0);
    let stats = stats.wait().expect(0).json_lines();
    assert_eq!(stats[0]["balance"]["balanced"], true);
    let drained = drain.wait().expect(0).json_lines();
    assert_eq!(drained[0]["outcome"], "drained");
    let whole = place.worker("drain --json").expect(0).json_lines();
    assert_eq!(whole[0]["left"], json!({"chunks": 0, "bytes": 0}));
    run.terminate();
    run.wait().expect(0);
    let ledger = site.sandbox.ledger();
    for tenant in ["acme", "globex"] {
        let session =
            &ledger["tenants"][tenant]["sessions"][if tenant == "acme" { "a" } else { "b" }];
        assert_eq!(
            session["sequences"],
            json!((0..20).collect::<Vec<_>>()),
            "{ledger:#}"
        );
    }
    assert_eq!(ledger["order_inversions"], 0);
}

#[test]
fn a_drain_says_what_is_left_why_and_with_which_code() {
    let site = Site::new();
    let place = &*site;
    enqueue_all(place, "acme", "s1", 3);
    enqueue_all(place, "globex", "g1", 2);
    site.sandbox.fault(json!({"tenant": "globex", "times": "forever", "action": {"status": 429, "headers": {"Retry-After": "3600"}}}));
    let ran = place.worker("drain --patience 5s").expect(75);
    let line = ran
        .out
        .lines()
        .find(|line| line.starts_with("drain ended: "))
        .unwrap();
    assert!(
        line.starts_with("drain ended: 2 chunks left, all of globex (throttled until "),
        "{line}"
    );
    assert!(line.ends_with("). Exit 75: run again then"), "{line}");
    let again = place
        .worker("drain --patience 5s --json")
        .expect(75)
        .json_lines();
    assert_eq!(again[0]["outcome"], "throttled");
    assert_eq!(again[0]["left"]["chunks"], 2);
    assert_eq!(again[0]["tenants"]["acme"]["outcome"], "drained");
    let why = place.worker("why globex").expect(0);
    assert!(
        why.out.contains("tenant globex is throttled until "),
        "{}",
        why.out
    );
    let nagios = place.worker("check --nagios").expect(1);
    assert!(
        nagios.out.starts_with("WORKER WARNING - tenant globex: "),
        "{}",
        nagios.out
    );
}

/// Seen: a drain waited two minutes for a sequence that nobody had given, and where no line can move it said nothing.
#[test]
fn a_drain_that_waits_for_a_missing_sequence_says_so_without_a_terminal() {
    let site = Site::with("1h", "[tenants.acme.delivery]\ngap_wait = \"8s\"\n");
    for session in ["s1", "s2"] {
        site.enqueue("acme", session, 0);
        site.enqueue("acme", session, 4);
    }
    let says = |ended: &Ended, session: &str, more: &str| {
        let lines: Vec<_> = ended.err.lines().filter(|l| l.contains("waits")).collect();
        assert_eq!(lines.len(), 1, "{ended:#?}");
        let told = format!("acme waits for sequences 1 to 3 of session {session} until ");
        assert!(lines[0].starts_with(&told), "{lines:?}");
        assert!(lines[0].contains(more), "{lines:?}");
        assert!(!ended.out.contains("waits"), "{ended:#?}");
    };
    // By itself.
    let alone = site.worker("drain --json").expect(0);
    says(&alone, "s2", "as does 1 more of its sessions");
    assert_eq!(alone.json_lines().len(), 1, "{alone:#?}");
    // Whoever holds the store drains.
    site.enqueue("acme", "s3", 0);
    site.enqueue("acme", "s3", 4);
    let run = site.run();
    let why = wait_for("why to name them", || {
        let why = site.worker("why acme s3").expect(0).out;
        why.contains("missing").then_some(why)
    });
    let next = "next: sequences 1 to 3 before it are missing, and waited for, ";
    assert!(why.contains(next), "{why}");
    let asked = site.worker("drain").expect(0);
    says(&asked, "s3", "declared as a gap");
    run.terminate();
    run.wait().expect(0);
}

/// Seen: a drain that met a pause sent to a check of tokens.
#[test]
fn a_drain_that_met_only_pauses_says_how_to_resume() {
    let site = Site::new();
    for tenant in ["acme", "globex"] {
        site.enqueue(tenant, "s1", 0);
        site.worker(&format!("tenants pause {tenant}")).expect(0);
    }
    let next = |ended: Ended| ended.out.lines().next_back().map(str::to_owned);
    let told = next(site.worker("drain").expect(69));
    assert_eq!(told.unwrap(), "next: worker tenants resume acme");
    site.worker("tenants resume acme").expect(0);
    site.sandbox
        .tenant("acme", json!({"scopes": [], "revoke": true}));
    let told = next(site.worker("drain").expect(69));
    assert_eq!(told.unwrap(), "next: worker check --online");
}

/// Seen: between two workers nobody could say when a tenant's last chunk had gone out.
#[test]
fn the_last_delivery_is_told_after_the_worker_that_made_it() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    let last = || site.stats().0["tenants"]["acme"]["last_delivery_s"].clone();
    assert!(last().is_null(), "{}", last());
    site.worker("drain").expect(0);
    assert!(last().as_u64().is_some_and(|s| s < 60), "{}", last());
    let run = site.run();
    assert!(last().as_u64().is_some_and(|s| s < 60), "{}", last());
    run.terminate();
    run.wait().expect(0);
    // Nobody makes it up once it is forgotten.
    std::fs::remove_dir_all(site.store().join("index")).unwrap();
    assert!(last().is_null(), "{}", last());
}
