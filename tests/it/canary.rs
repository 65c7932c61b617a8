//! That secrets are looked for where they could be: after every test of the real binary, by the place that it ran in
//! (`support/canary.rs`). Here: that there was something to look through, and that a leak in any of it is found.

use std::fs;

use crate::support::canary::{is_in, leaks};
use crate::support::{Site, wait_for};

fn traced(site: &Site) -> String {
    let files = fs::read_dir(site.traces()).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.collect()
}

/// A recording host that has done a bit of everything.
fn worked(site: &Site) {
    site.enqueue("acme", "s1", 0);
    site.worker(&["drain"]).expect(0);
    site.worker(&["why", "acme", "s1"]).expect(0);
    site.worker(&["check", "--online"]).expect(0);
}

#[test]
fn every_process_leaves_its_whole_trace_to_be_looked_through() {
    let site = Site::granted("mixed", 3, "1h");
    worked(&site);
    let trace = traced(&site);
    for line in [
        // The engine's own, the HTTP client's, and the token slot's.
        "TRACE",
        "http1 handshake complete",
        "token minted",
    ] {
        assert!(trace.contains(line), "no {line:?} in {trace}");
    }
    assert_eq!(leaks(site.traces()), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(leaks(site.path()), [""; 0].map(std::path::PathBuf::from));
}

/// Were it not found, this test would say that the look is worth nothing.
#[test]
fn a_build_that_logs_one_header_is_found_out() {
    let site = Site::new().sabotaged("LogHeader");
    site.enqueue("acme", "s1", 0);
    site.worker(&["drain"]).expect(0);
    let found = leaks(site.traces());
    assert_eq!(found.len(), 1, "{found:?}");
    let trace = fs::read_to_string(&found[0]).unwrap();
    assert!(trace.contains("Bearer canary"), "{trace}");
}

#[test]
fn a_leak_is_found_in_a_store_in_a_report_and_in_base64() {
    let site = Site::new();
    worked(&site);
    for (name, text) in [
        ("store/segments/leak", "x canary-1 y"),
        ("store/leak", "\0\u{1}canary"),
        (
            "report.json",
            "{\"authorization\": \"Basic YTpjYW5hcnktMQ==\"}",
        ),
        ("stats", "YWI6Y2FuYXJ5LTE="),
        ("letters.jsonl", "YWJjOmNhbmFyeS0x"),
    ] {
        let path = site.at(name);
        fs::write(&path, text).unwrap();
        assert_eq!(leaks(site.path()), std::slice::from_ref(&path), "{name}");
        fs::remove_file(path).unwrap();
    }
    assert!(is_in("bearer canary-1") && !is_in("bearer [redacted]"));
}

#[test]
fn what_a_killed_worker_was_about_to_say_is_looked_through_too() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    let run = site.run();
    site.wait_stats("delivery", |told| told.balance("delivered") == 1);
    run.kill();
    wait_for("its trace", || {
        traced(&site).contains("token minted").then_some(())
    });
}
