//! Recording metadata across organisations, with the real binary against the sandbox.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Process, Site, wait_for};

const VERIFY: &str = "[tenants.acme.recordings]\nverify = true\n\
    [tenants.globex.recordings]\nlist_path = \"/api/v2/screenshare/recordings\"\n";

fn site() -> Site {
    Site::with("1h", VERIFY)
}

/// What `worker recordings list` says.
fn listed(site: &Site, more: &[&str]) -> Vec<Value> {
    let arguments = [&["recordings", "list", "--json", "--limit", "10000"], more].concat();
    let told = site.worker(arguments.as_slice()).expect(0).json();
    told["recordings"].as_array().unwrap().clone()
}

fn state(site: &Site, id: &str) -> String {
    let found = listed(site, &[]);
    let one = found.iter().find(|one| one["recording"] == id);
    one.map_or(String::new(), |one| {
        one["state"].as_str().unwrap().to_owned()
    })
}

#[track_caller]
fn wait_state(site: &Site, id: &str, wanted: &str) {
    wait_for(&format!("{id} to be {wanted}"), || {
        (state(site, id) == wanted).then_some(())
    });
}

fn enqueue_last(site: &Site, tenant: &str, session: &str, sequence: u64) {
    let file = site.file(&format!("{tenant}-{session}-last.ts"), 3000);
    let number = sequence.to_string();
    let mut command = site.command(&["enqueue", "--last", "--tenant", tenant]);
    command
        .args(["--session", session, "--sequence", &number])
        .arg(file);
    Process::start(&mut command).wait().expect(0);
}

/// The recording of the only session of a tenant.
fn only(site: &Site, tenant: &str) -> String {
    let found = listed(site, &["--tenant", tenant]);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]["recording"].as_str().unwrap().to_owned()
}

#[test]
fn a_delivered_session_is_compared_with_what_the_platform_has() {
    let site = site();
    site.enqueue("acme", "s1", 0);
    site.enqueue("acme", "s1", 1);
    enqueue_last(&site, "acme", "s1", 2);
    site.enqueue("globex", "g1", 0);
    let told = site.worker(&["drain"]).expect(0).out;
    assert!(told.contains("acme recordings"), "{told}");
    let found = listed(&site, &["--session", "s1"]);
    assert_eq!(found[0]["state"], "verified", "{found:?}");
    assert_eq!(found[0]["chunks"], 3);
    assert_eq!(found[0]["own_bytes"], 9000);
    assert_eq!(found[0]["digest"], found[0]["own_digest"]);
    assert_eq!(listed(&site, &["--state", "known"])[0]["tenant"], "globex");
    site.assert_all_delivered(4);
}

#[test]
fn a_recording_that_differs_is_reported_and_kept_until_it_is_right() {
    let site = site();
    let _run = site.run();
    site.enqueue("acme", "s1", 0);
    let id = wait_for("the recording's name", || {
        let found = listed(&site, &["--tenant", "acme"]);
        Some(found.first()?["recording"].as_str().unwrap().to_owned())
    });
    let wrong = json!({"id": id, "chunks": 1, "bytes": 3000, "digest": "blake3:00"});
    site.sandbox
        .fault(json!({"route": "fetch", "times": "forever",
        "action": {"status": 200, "body": wrong}}));
    enqueue_last(&site, "acme", "s1", 1);
    wait_state(&site, &id, "mismatch");
    site.sandbox.no_faults();
    let text = site.worker(&["--stats"]).expect(0).out;
    assert!(
        text.contains("1 recording not as delivered: worker recordings list --state mismatch"),
        "{text}"
    );
    let text = site
        .worker(&["recordings", "list", "--state", "mismatch"])
        .expect(0)
        .out;
    assert!(
        text.contains("the platform has 1 chunks, this host delivered 2"),
        "{text}"
    );
    let told = "the platform has 1 chunks, this host delivered 2";
    let shown = site.worker(&["recordings", "show", &id]).expect(0).out;
    assert!(shown.contains(told), "{shown}");
    for arguments in [&["why", "acme", "s1"][..], &["why", "acme"]] {
        let why = site.worker(arguments).expect(0).out;
        let line = format!("recording {id} of session s1 is not as delivered: {told}");
        assert!(why.contains(&line), "{why}");
        assert!(
            why.contains(&format!("to do: worker recordings show {id}")),
            "{why}"
        );
    }
    let other = site.worker(&["why", "globex", "--json"]).expect(0).json();
    assert_eq!(other.get("mismatches"), None, "{other}");
    site.worker(&["recordings", "fetch", "--tenant", "acme", &id])
        .expect(0);
    wait_state(&site, &id, "verified");
    let why = site.worker(&["why", "acme", "s1"]).expect(0).out;
    assert!(!why.contains("not as delivered"), "{why}");
}

#[test]
fn a_session_that_an_operator_ended_is_compared_at_once() {
    let site = site();
    site.enqueue("acme", "s1", 0);
    site.enqueue("acme", "s2", 0);
    // Ended before anything was delivered, by a command that holds the store itself.
    site.worker(&["sessions", "end", "acme", "s1"]).expect(0);
    let run = site.run();
    site.wait_stats("a delivery", |told| told.chunks("acme", "delivered") == 2);
    wait_for("the comparison of s1", || {
        let found = listed(&site, &["--session", "s1"]);
        (found.first()?["state"] == "verified").then_some(())
    });
    // Ended after all of it was delivered, under a worker that runs; its silence would take an hour.
    assert_eq!(listed(&site, &["--session", "s2"])[0]["state"], "known");
    site.worker(&["sessions", "end", "acme", "s2"]).expect(0);
    wait_for("the comparison of s2", || {
        let found = listed(&site, &["--session", "s2"]);
        (found.first()?["state"] == "verified").then_some(())
    });
    run.kill();
}

#[test]
fn a_gap_that_was_declared_is_no_difference() {
    let site = site();
    site.configure(|text| format!("{text}\n[tenants.acme.delivery]\ngap_wait = \"100ms\"\n"));
    site.enqueue("acme", "s1", 0);
    enqueue_last(&site, "acme", "s1", 3);
    site.worker(&["drain"]).expect(0);
    let found = listed(&site, &["--tenant", "acme"]);
    assert_eq!(found[0]["state"], "verified", "{found:?}");
    assert_eq!(found[0]["chunks"], 2);
}

#[test]
fn recordings_of_a_day_ago_need_a_scope_and_go_on_by_themselves_once_it_is_there() {
    let site = site();
    site.configure(|text| {
        text.replace(
            "\"screenshare:read\"]",
            "\"screenshare:read\", \"screenshare:write\"]",
        )
    });
    let narrow = ["analytics:screenrecordings:write", "screenshare:read"];
    site.sandbox.tenant(
        "acme",
        json!({"scopes": narrow, "recordings": {"add": [
        {"id": "hour-1", "age_ms": 3_600_000}, {"id": "day-1", "age_ms": 90_000_000},
        {"id": "day-2", "age_ms": 90_000_000}]}}),
    );
    let _run = site.run();
    let mut fetch = vec!["recordings", "fetch", "--tenant", "acme"];
    fetch.extend(["hour-1", "day-1", "day-2"]);
    let told = site.worker(fetch.as_slice()).expect(0).out;
    assert!(
        told.contains("3 recordings to fetch from acme; the worker that runs"),
        "{told}"
    );
    wait_state(&site, "hour-1", "fetched");
    let told = site.wait_stats("a block", |told| !told.holds("acme").is_empty());
    let (kind, reason) = &told.holds("acme")[0];
    assert_eq!(kind, "blocked");
    assert!(
        reason.starts_with("recordings: its token lacks the scope screenshare:write"),
        "{reason}"
    );
    // What holds recordings holds no chunk.
    assert_eq!(told.0["tenants"]["acme"]["gate"]["state"], "open");
    site.enqueue("acme", "s1", 0);
    site.wait_stats("a delivery", |told| told.chunks("acme", "delivered") == 1);
    let whole = [
        "analytics:screenrecordings:write",
        "screenshare:read",
        "screenshare:write",
    ];
    site.sandbox.tenant("acme", json!({"scopes": whole}));
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    for id in ["day-1", "day-2"] {
        wait_state(&site, id, "fetched");
    }
    site.wait_stats("no hold", |told| told.holds("acme").is_empty());
}

#[test]
fn a_purview_that_lags_is_waited_for_without_holding_anything() {
    let site = site();
    site.sandbox.tenant(
        "globex",
        json!({"recordings": {"history": "refused", "purview_delay_ms": 500,
        "add": [{"id": "day-1", "age_ms": 90_000_000}]}}),
    );
    site.configure(|text| {
        text.replace(
            "\"screenshare:read\"]",
            "\"screenshare:read\", \"screenshare:write\"]",
        )
    });
    site.worker(&["recordings", "fetch", "--tenant", "globex", "day-1"])
        .expect(0);
    let told = site.worker(&["drain", "--json"]).expect(0).json();
    assert_eq!(told["outcome"], "drained");
    let left = &told["recordings"]["globex"];
    assert_eq!(left["left"], 1, "{told}");
    assert!(left["until"].is_string(), "{told}");
    let shown = site.worker(&["recordings", "show", "day-1"]).expect(0).out;
    assert!(
        shown.contains("422") && shown.contains("purview"),
        "{shown}"
    );
    // Whoever asks again does not wait for the five minutes.
    wait_for("the purview", || {
        site.worker(&["recordings", "fetch", "--tenant", "globex", "day-1"])
            .expect(0);
        site.worker(&["drain"]).expect(0);
        (state(&site, "day-1") == "fetched").then_some(())
    });
}

#[test]
fn a_list_is_walked_page_by_page_and_everything_in_it_fetched() {
    let site = site();
    let add: Vec<Value> = (0..250)
        .map(|n| json!({"id": format!("r-{n:03}"), "age_ms": 60_000 * n + 1000}))
        .collect();
    site.sandbox
        .tenant("globex", json!({"recordings": {"add": add}}));
    let told = site.worker(&[
        "recordings",
        "fetch",
        "--tenant",
        "globex",
        "--since",
        "200min",
        "--json",
    ]);
    assert_eq!(told.expect(0).json()["listing"], true);
    site.worker(&["drain"]).expect(0);
    let found = listed(&site, &["--state", "fetched"]);
    assert!((199..=201).contains(&found.len()), "{}", found.len());
}

#[test]
fn what_was_asked_for_survives_a_kill_and_damage_costs_only_itself() {
    let site = site();
    let ids: Vec<String> = (0..600).map(|n| format!("r-{n}")).collect();
    let file = site.path().join("ids.txt");
    fs::write(&file, ids.join("\n")).unwrap();
    // Nobody answers, so that all of it is still wanted.
    site.sandbox
        .fault(json!({"route": "fetch", "times": "forever", "action": {"status": 503}}));
    let run = site.run();
    let arguments = [
        "recordings",
        "fetch",
        "--tenant",
        "acme",
        "--ids",
        "ids.txt",
    ];
    let told = site.worker(&arguments).expect(0).out;
    assert!(told.contains("600 recordings to fetch"), "{told}");
    run.kill();
    assert_eq!(listed(&site, &["--state", "wanted"]).len(), 600);
    let log = site.store().join("records/log");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&log, bytes).unwrap();
    let fsck = site.worker(&["fsck", "--json"]).expect(65).json();
    assert_eq!(fsck["damaged"][0]["segment"], "records/log", "{fsck}");
    assert!(listed(&site, &[]).len() >= 599);
    site.enqueue("acme", "s1", 0);
    let _run = site.run();
    site.wait_stats("a delivery", |told| told.chunks("acme", "delivered") == 1);
}

#[test]
fn an_export_holds_every_recording_of_every_tenant_in_both_formats() {
    let site = site();
    for tenant in ["acme", "globex"] {
        enqueue_last(&site, tenant, "=s1", 0);
    }
    site.worker(&["drain"]).expect(0);
    let id = only(&site, "globex");
    site.worker(&["recordings", "fetch", "--tenant", "globex", "--since", "7d"])
        .expect(0);
    site.worker(&["drain"]).expect(0);
    let lines = site
        .worker(&["recordings", "export"])
        .expect(0)
        .json_lines();
    let states: Vec<_> = lines
        .iter()
        .map(|line| line["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["verified", "fetched"]);
    site.worker(&["recordings", "export", "--format", "csv", "--to", "all.csv"])
        .expect(0);
    let csv = fs::read_to_string(site.path().join("all.csv")).unwrap();
    let rows: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(rows.len(), 4, "{csv}");
    assert!(
        rows[0].starts_with("tenant,recording,state,session,time,"),
        "{csv}"
    );
    assert!(
        rows[2].starts_with(&format!("globex,{id},fetched,'=s1,")),
        "{csv}"
    );
    site.worker(&["recordings", "export", "--to", "all.csv"])
        .expect(64);
}

#[test]
fn a_question_that_makes_no_sense_is_refused_before_anything_is_asked() {
    let site = site();
    for (arguments, code) in [
        (&["fetch", "--tenant", "acme"][..], 64),
        (&["fetch", "--tenant", "nobody", "r-1"], 64),
        (&["fetch", "--tenant", "acme", "../r-1"], 64),
        (&["fetch", "--tenant", "acme", "--ids", "missing.txt"], 64),
        (&["list", "--state", "lost"], 64),
        (&["show", "r-1"], 64),
    ] {
        let ended = site.worker([&["recordings"], arguments].concat().as_slice());
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    }
    assert_eq!(listed(&site, &[]), Vec::<Value>::new());
}
