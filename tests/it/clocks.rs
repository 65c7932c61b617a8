//! The wall clock of the real binary jumps by a day, either way, while it delivers and while it is down.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Process, Site, Told, tool_is_missing};

/// Where Debian, Fedora and Arch put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// A wall clock that a test sets; clocks that never jump stay as they are.
struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    fn new(site: &Site) -> Option<Self> {
        let library = LIBRARIES.iter().map(Path::new).find(|path| path.exists());
        if library.is_none() {
            tool_is_missing("libfaketime");
        }
        let clock = Self {
            library: library?.to_owned(),
            file: site.at("faketime"),
        };
        clock.jump("+0");
        Some(clock)
    }

    /// From now on so far from the true time.
    fn jump(&self, offset: &str) {
        // Replaced in one step: a process that reads half of it would not know the time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn in_force(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

fn delivered(chunks: u64) -> impl Fn(&Told) -> bool {
    move |told| told.balance("delivered") == chunks
}

#[test]
fn a_clock_that_jumps_by_a_day_either_way_stops_nothing_and_costs_nothing() {
    // Tokens end while the clock jumps.
    let site = Site::with("3s", "");
    let Some(clock) = WallClock::new(&site) else {
        return;
    };
    let run = site.run_with(&mut clock.in_force(site.command("run")));
    for (sequence, offset) in ["+0", "+1d", "-1d", "+0"].into_iter().enumerate() {
        clock.jump(offset);
        // Waits are under way in both directions: a token's end, and a throttle's.
        let throttle = json!({"status": 429, "headers": {"Retry-After": "1"}});
        site.sandbox
            .fault(json!({"tenant": "acme", "action": throttle}));
        for tenant in ["acme", "globex"] {
            site.enqueue(tenant, "s1", sequence as u64);
        }
        let chunks = 2 * (sequence as u64 + 1);
        site.wait_stats(&format!("the deliveries at {offset}"), delivered(chunks));
    }
    let said = run.err();
    run.terminate();
    run.wait().expect(0);
    assert!(!said.contains("is blocked"), "{said}");
    site.assert_all_delivered(8);
    assert_eq!(site.sandbox.counted("throttled"), 4);
    assert_eq!(site.sandbox.counted("inside_forbidden_window"), 0);
    assert_eq!(site.stats().balance("dead"), 0);
}

#[test]
fn a_hold_that_a_clock_jump_meets_while_nobody_runs_is_neither_lost_nor_prolonged() {
    for offset in ["+1d", "-1d"] {
        let site = Site::new();
        let Some(clock) = WallClock::new(&site) else {
            return;
        };
        let worker = |line: &str| Process::start(&mut clock.in_force(site.command(line))).wait();
        site.enqueue("acme", "s1", 0);
        let throttle = json!({"status": 429, "headers": {"Retry-After": "6"}});
        site.sandbox
            .fault(json!({"tenant": "acme", "action": throttle}));
        worker("drain --patience 1s").expect(75);
        clock.jump(offset);
        // The boot's clock did not jump, and it rules.
        let held = worker("stats --json").expect(0).json();
        assert_eq!(
            held["tenants"]["acme"]["gate"]["holds"][0]["kind"], "throttled",
            "{offset}: {held:#}"
        );
        worker("drain --patience 30s").expect(0);
        site.assert_all_delivered(1);
        assert_eq!(
            site.sandbox.counted("inside_forbidden_window"),
            0,
            "{offset}"
        );
    }
}

#[test]
fn the_clock_of_these_tests_jumps() {
    let site = Site::new();
    let Some(clock) = WallClock::new(&site) else {
        return;
    };
    site.enqueue("acme", "s1", 0);
    let age = || {
        let command = &mut clock.in_force(site.command("stats --json"));
        let told = Process::start(command).wait().expect(0).json();
        told["tenants"]["acme"]["oldest_age_s"].as_u64().unwrap()
    };
    assert!(age() < 3600);
    clock.jump("+1d");
    assert!((86_000..90_000).contains(&age()), "{}", age());
}
