//! One suite for every transport, with the real binary against the sandbox: what is promised does not depend on how the
//! bytes travel. A transport is a row of [`TRANSPORTS`].

use std::fs;

use serde_json::{Value, json};

use crate::support::{Site, payload, wait_for};

/// A transport, and the places where its requests can meet trouble.
struct Transport {
    name: &'static str,
    routes: &'static [&'static str],
}

const TRANSPORTS: [Transport; 4] = [
    Transport {
        name: "json",
        routes: &["deliver"],
    },
    Transport {
        name: "binary",
        routes: &["deliver"],
    },
    Transport {
        name: "presigned",
        routes: &["deliver", "store_host"],
    },
    Transport {
        name: "websocket",
        routes: &["deliver"],
    },
];

/// Every tenant uses the transport at its default path.
fn site(transport: &str) -> Site {
    println!("transport {transport}");
    let site = Site::with("1h", "[tenants.acme.delivery]\ngap_wait = \"1s\"\n");
    site.configure(|text| {
        text.replace(
            "transport = \"json\"",
            &format!("transport = \"{transport}\""),
        )
    });
    site
}

/// Runs until `chunks` are delivered, and gives what was logged.
#[track_caller]
fn deliver_all(site: &Site, chunks: u64) -> String {
    let run = site.run_with(&mut site.command(&["run", "--log", "trace"]));
    site.wait_stats("delivery", |told| told.balance("delivered") == chunks);
    run.terminate();
    run.wait().expect(0).err
}

/// By the worker that runs now.
#[track_caller]
fn assert_no_retry_used(site: &Site) {
    let told = site.stats();
    assert_eq!(told.0["tenants"]["acme"]["retries_used"], 0, "{}", told.0);
}

/// No secret that anybody minted stands in what was said or kept.
#[track_caller]
fn assert_no_secret(site: &Site, log: &str) {
    assert!(!log.contains("canary"), "a secret was logged: {log}");
    let mut folders = vec![site.store()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if let Ok(bytes) = fs::read(entry.path()) {
                let kept = bytes.windows(6).any(|six| six == b"canary");
                assert!(!kept, "a secret is kept in {:?}", entry.path());
            }
        }
    }
}

#[test]
fn chunks_arrive_byte_for_byte_in_order_with_their_gaps_and_late_ones() {
    for transport in TRANSPORTS {
        let site = site(transport.name);
        for sequence in [0, 1, 3, 4] {
            site.enqueue("acme", "s1", sequence);
        }
        let large = site.file("large", 2_500_001);
        let arguments = ["enqueue", "--tenant", "acme", "--session", "s2"];
        let mut command = site.command(&arguments);
        command.args(["--sequence", "0"]).arg(&large);
        crate::support::Process::start(&mut command)
            .wait()
            .expect(0);
        deliver_all(&site, 5);
        assert_eq!(site.sandbox.counted("gaps"), 1);
        assert!(site.sandbox.film("acme", "s2") == payload("large", 2_500_001));

        site.enqueue("acme", "s1", 2);
        let log = deliver_all(&site, 6);
        assert_eq!(site.sandbox.counted("late"), 1);
        assert!(site.sandbox.film("acme", "s1") == site.enqueued("acme", "s1", 4));
        assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
        site.assert_all_delivered(6);
        assert_no_secret(&site, &log);
    }
}

#[test]
fn a_request_that_fails_on_its_way_is_sent_again_and_stored_once() {
    let troubles = [
        ("server-error", json!({"status": 500})),
        ("unavailable", json!({"status": 503})),
        (
            "throttled",
            json!({"status": 429, "headers": {"Retry-After": "1"}}),
        ),
        ("page", json!("html_200")),
        ("redirect", json!("redirect_302")),
        ("garbage", json!("garbage")),
        ("slow", json!({"slow_loris_ms": 2})),
        ("lost", json!("lose_reply")),
    ];
    for transport in TRANSPORTS {
        let site = site(transport.name);
        let (mut chunks, mut log) = (0, String::new());
        for route in transport.routes {
            // Before the body is read nothing of it can be matched.
            site.sandbox
                .fault(json!({"route": route, "after": 3, "action": "reset_mid_body"}));
            for (name, action) in &troubles {
                let session = format!("{route}-{name}");
                for sequence in 0..2 {
                    site.enqueue("acme", &session, sequence);
                    chunks += 1;
                }
                site.sandbox.fault(
                    json!({"route": route, "session": session, "sequence": 0, "action": action}),
                );
                // What ends a socket ends it for every session, and a lane whose sockets end waits longer each time.
                if transport.name == "websocket" {
                    log += &deliver_all(&site, chunks);
                }
            }
        }
        log += &deliver_all(&site, chunks);
        site.assert_all_delivered(chunks);
        for route in transport.routes {
            for (name, _) in &troubles {
                let session = format!("{route}-{name}");
                let film = site.sandbox.film("acme", &session);
                assert!(film == site.enqueued("acme", &session, 1), "{session}");
            }
        }
        assert_eq!(site.sandbox.counted("inside_forbidden_window"), 0);
        assert_no_secret(&site, &log);
    }
}

#[test]
fn a_token_that_dies_early_is_replaced_and_costs_no_retry() {
    for transport in TRANSPORTS {
        let site = site(transport.name);
        site.enqueue("acme", "s1", 0);
        let run = site.run();
        site.wait_stats("the first", |told| told.balance("delivered") == 1);
        site.sandbox.tenant("acme", json!({"revoke": true}));
        for sequence in 1..4 {
            site.enqueue("acme", "s1", sequence);
        }
        site.wait_stats("the others", |told| told.balance("delivered") == 4);
        assert_no_retry_used(&site);
        run.terminate();
        run.wait().expect(0);
        assert!(site.sandbox.counted("unauthorized") >= 1);
        assert_eq!(site.sandbox.counted_of("acme", "tokens_issued"), 2);
        site.assert_all_delivered(4);
    }
}

#[test]
fn a_missing_right_blocks_and_delivery_resumes() {
    let scope = "analytics:screenrecordings:write";
    for transport in TRANSPORTS {
        let site = site(transport.name);
        for session in ["s1", "s2"] {
            site.enqueue("acme", session, 0);
        }
        site.sandbox.tenant("acme", json!({"scopes": []}));
        let run = site.run();
        site.wait_stats("the block", |told| {
            let holds = told.holds("acme");
            holds.iter().any(|(_, reason)| reason.contains(scope))
        });
        site.sandbox.tenant("acme", json!({"scopes": [scope]}));
        site.worker(&["tenants", "resume", "acme"]).expect(0);
        site.wait_stats("delivery", |told| told.balance("delivered") == 2);
        assert_no_retry_used(&site);
        run.terminate();
        run.wait().expect(0);
        site.assert_all_delivered(2);
    }
}

#[test]
fn what_is_stored_there_is_a_duplicate_and_other_bytes_are_a_conflict() {
    for transport in TRANSPORTS {
        let site = site(transport.name);
        for session in ["s1", "s2"] {
            site.enqueue("acme", session, 0);
        }
        deliver_all(&site, 2);
        // The store of another machine that was given the same name.
        fs::rename(site.store(), site.path().join("first-store")).unwrap();
        site.enqueue("acme", "s1", 0);
        let other = site.file("other", 100);
        let arguments = ["enqueue", "--tenant", "acme", "--session", "s2"];
        let mut command = site.command(&arguments);
        command.args(["--sequence", "0"]).arg(&other);
        crate::support::Process::start(&mut command)
            .wait()
            .expect(0);
        for sequence in 0..4 {
            site.enqueue("acme", "s3", sequence);
        }
        let drain = site.worker(&["drain", "--json"]).expect(65);
        assert_eq!(drain.json()["delivered"]["chunks"], 5, "{drain:?}");
        let dead = site.worker(&["dead", "show", "acme", "s2", "0", "--json"]);
        let dead = dead.expect(0);
        // A socket tells of it before the bytes are sent.
        let told = ["conflict.digest", "other bytes are stored under sequence 0"];
        let is_told = told.iter().any(|words| dead.out.contains(words));
        assert!(is_told, "{}", dead.out);
        assert!(site.sandbox.film("acme", "s2") == site.enqueued("acme", "s2", 0));
        assert_eq!(site.sandbox.counted("delivered"), 6);
    }
}

#[test]
fn a_damaged_payload_is_never_uploaded() {
    for transport in TRANSPORTS {
        let site = site(transport.name);
        for sequence in 0..3 {
            site.enqueue("acme", "s1", sequence);
        }
        damage(&site, &payload("acme-s1-1.ts", 3000));
        let drain = site.worker(&["drain", "--json"]).expect(65);
        assert_eq!(drain.json()["delivered"]["chunks"], 2, "{drain:?}");
        assert_eq!(site.sandbox.sequences("acme", "s1"), [0, 2]);
        assert_eq!(site.sandbox.counted("gaps"), 1);
        assert_eq!(site.sandbox.counted("undeclared_gaps"), 0);
        let dead = site.worker(&["dead", "list", "--json"]).expect(0);
        assert!(dead.out.contains("damaged"), "{}", dead.out);
    }
}

/// Turns one bit of a stored payload.
fn damage(site: &Site, payload: &[u8]) {
    for entry in fs::read_dir(site.store().join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes.windows(payload.len()).position(|w| w == payload);
        if let Some(at) = found {
            bytes[at + payload.len() / 2] ^= 1;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("the payload is not in the store");
}

/// The holds of acme as they are shown: kind, route, reason.
fn holds(site: &Site) -> Vec<(String, String, String)> {
    let told = site.stats().0;
    let holds = told["tenants"]["acme"]["gate"]["holds"].as_array().cloned();
    let text = |hold: &Value, key: &str| hold[key].as_str().unwrap_or_default().to_owned();
    let holds = holds.unwrap_or_default();
    holds
        .iter()
        .map(|hold| {
            (
                text(hold, "kind"),
                text(hold, "route"),
                text(hold, "reason"),
            )
        })
        .collect()
}

#[test]
fn an_upload_url_that_ran_out_is_replaced_and_touches_neither_slot_nor_retries() {
    let site = site("presigned");
    site.sandbox.tenant("acme", json!({"url_life_ms": 0}));
    for session in ["s1", "s2"] {
        site.enqueue("acme", session, 0);
    }
    let run = site.run_with(&mut site.command(&["run", "--log", "trace"]));
    wait_for("URLs to run out", || {
        (site.sandbox.counted("urls_expired") >= 3).then_some(())
    });
    assert_eq!(holds(&site), []);
    site.sandbox.tenant("acme", json!({"url_life_ms": null}));
    site.wait_stats("delivery", |told| told.balance("delivered") == 2);
    assert_no_retry_used(&site);
    run.terminate();
    let log = run.wait().expect(0).err;
    assert_eq!(site.sandbox.counted_of("acme", "token_requests"), 1);
    site.assert_all_delivered(2);
    assert_no_secret(&site, &log);
}

#[test]
fn a_storage_host_never_sees_the_token() {
    for receipt in ["etag", "sha256"] {
        let site = site("presigned");
        site.sandbox
            .tenant("acme", json!({"store_receipt": receipt}));
        for sequence in 0..3 {
            site.enqueue("acme", "s1", sequence);
        }
        let log = deliver_all(&site, 3);
        assert_eq!(site.sandbox.counted("bearer_at_store"), 0);
        assert_eq!(site.sandbox.counted("urls_issued"), 3);
        site.assert_all_delivered(3);
        assert_no_secret(&site, &log);
    }
}

#[test]
fn a_storage_hosts_trouble_holds_its_own_route() {
    let signature = "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>";
    for (action, kind, words) in [
        (json!({"status": 503}), "outage", "storage host"),
        (
            json!({"status": 403, "body": signature}),
            "blocked",
            "SignatureDoesNotMatch",
        ),
    ] {
        let site = site("presigned");
        for session in ["s1", "s2", "s3"] {
            site.enqueue("acme", session, 0);
        }
        site.sandbox
            .fault(json!({"route": "store_host", "times": "forever", "action": action}));
        let run = site.run();
        wait_for("the hold", || {
            let holds = holds(&site);
            let held = holds.iter().any(|(of, route, reason)| {
                of == kind && route == "store_host" && reason.contains(words)
            });
            let elsewhere = holds.iter().any(|(_, route, _)| route == "deliver");
            assert!(!elsewhere, "{holds:?}");
            held.then_some(())
        });
        site.sandbox.no_faults();
        site.worker(&["tenants", "resume", "acme"]).expect(0);
        site.wait_stats("delivery", |told| told.balance("delivered") == 3);
        assert_eq!(holds(&site), []);
        run.terminate();
        run.wait().expect(0);
        site.assert_all_delivered(3);
    }
}

/// A chunk is delivered once the platform has taken it in; it is asked every second.
fn confirming_site() -> Site {
    let site = site("presigned");
    let keys = "confirm = \"ingested\"\nconfirm_every = \"1s\"\n";
    site.configure(|text| text.replacen("transport = ", &format!("{keys}transport = "), 1));
    site
}

#[test]
fn what_is_stored_and_not_taken_in_waits_out_of_the_way_and_survives_a_kill() {
    let site = confirming_site();
    site.sandbox
        .tenant("acme", json!({"ingestion": "WaitForConversation"}));
    for sequence in 0..4 {
        site.enqueue("acme", "s1", sequence);
    }
    let run = site.run();
    let told = site.wait_stats("confirming", |told| told.chunks("acme", "confirming") == 4);
    assert_eq!(told.balance("backlog"), 4, "{}", told.0);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [0, 1, 2, 3]);
    run.kill();

    assert_eq!(site.fsck().balance("backlog"), 4);
    let run = site.run();
    let told = site.stats();
    assert_eq!(told.chunks("acme", "confirming"), 4, "{}", told.0);
    let before = site.sandbox.counted("reports");
    site.sandbox.tenant("acme", json!({"ingestion": "Success"}));
    site.wait_stats("delivery", |told| told.balance("delivered") == 4);
    // One question settles many.
    assert!(site.sandbox.counted("reports") <= before + 2);
    run.terminate();
    run.wait().expect(0);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    site.assert_all_delivered(4);
}

#[test]
fn what_is_not_taken_in_is_sent_again_and_says_why() {
    let site = confirming_site();
    site.sandbox.tenant("acme", json!({"ingestion": "Failure"}));
    site.enqueue("acme", "s1", 0);
    let run = site.run();
    wait_for("a second upload", || {
        (site.sandbox.counted("urls_issued") >= 2).then_some(())
    });
    // Asking goes wrong too, which costs nothing.
    site.sandbox
        .fault(json!({"route": "report", "action": {"status": 500}}));
    site.sandbox.tenant("acme", json!({"ingestion": "Success"}));
    site.wait_stats("delivery", |told| told.balance("delivered") == 1);
    run.terminate();
    let log = run.wait().expect(0).err;
    assert!(log.contains("the file is not a recording"), "{log}");
    let told = site.fsck();
    assert!(told.is_balanced(), "{}", told.0);
    assert!(site.sandbox.film("acme", "s1") == site.enqueued("acme", "s1", 0));
    assert_no_secret(&site, &log);
}

#[test]
fn a_drain_settles_what_an_earlier_one_left_to_be_confirmed() {
    let site = confirming_site();
    site.sandbox.tenant("acme", json!({"ingestion": "Pending"}));
    site.enqueue("acme", "s1", 0);
    let drain = site.worker(&["drain", "--json"]).expect(0).json();
    assert_eq!(drain["outcome"], "drained", "{drain}");
    assert_eq!(drain["tenants"]["acme"]["left"]["chunks"], 1, "{drain}");
    assert_eq!(site.stats().chunks("acme", "confirming"), 1);
    site.sandbox.tenant("acme", json!({"ingestion": "Success"}));
    site.enqueue("acme", "s1", 1);
    site.worker(&["drain"]).expect(0);
    assert!(site.stats().chunks("acme", "delivered") >= 1);
}
