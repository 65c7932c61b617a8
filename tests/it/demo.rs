//! `worker demo`, played for real: it is green when the queue keeps its promises, red when it does not, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Three times what it takes, for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Stage {
    _root: tempfile::TempDir,
    keep: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let keep = root.path().join("kept");
        Self { _root: root, keep }
    }

    fn demo(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["demo", "--json", "--keep"])
            .arg(&self.keep)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for pid in working_in(&self.keep) {
            signal(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Processes whose working directory this is: the demo's children, and nobody else.
fn working_in(directory: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let at = fs::read_link(entry.path().join("cwd"));
        if let (Some(pid), Ok(at)) = (pid, at)
            && at == directory
        {
            found.push(pid);
        }
    }
    found
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may have ended by itself meanwhile.
    let _ = rustix::process::kill_process(pid, signal);
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The demo's end, which must come by itself.
fn finish(mut demo: Child) -> Output {
    until("the end of the demo", || demo.try_wait().unwrap().is_some());
    demo.wait_with_output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[test]
fn the_demo_loses_nothing_although_every_fault_happens() {
    let stage = Stage::new();
    let output = finish(stage.demo(&["--seed", "1"]));
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["failures"], serde_json::json!([]));
    assert_eq!(report["identical"], true);

    let faults = &report["faults"];
    let at_least = |what: &Value, least: u64| assert!(what.as_u64().unwrap() >= least, "{faults}");
    at_least(&faults["expired_tokens"], 5);
    at_least(&faults["unauthorized"], 1);
    at_least(&faults["throttled"], 1);
    at_least(&faults["kill"]["leased"], 1);
    at_least(&faults["kill"]["waiting"], 10);
    assert_eq!(faults["scope_blocked"], true);
    assert_eq!(faults["scope_cured"], true);

    // The films are the originals, read here from the repository.
    let originals = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recording");
    let takes = report["recordings"].as_array().unwrap();
    assert_eq!(takes.len(), 6);
    for take in takes {
        let folder = originals.join(take["session"].as_str().unwrap());
        let chunks = (0..12).map(|n| fs::read(folder.join(format!("{n:06}.ts"))).unwrap());
        let whole: Vec<u8> = chunks.flatten().collect();
        let arrived = fs::read(take["path"].as_str().unwrap()).unwrap();
        assert!(arrived == whole, "{take}");
    }
    for row in report["tenants"].as_object().unwrap().values() {
        let number = |name: &str| row[name].as_u64().unwrap();
        assert_eq!(number("captured"), number("delivered"), "{row}");
        assert_eq!(number("lost") + number("doubled"), 0, "{row}");
    }
    assert_eq!(working_in(&stage.keep), Vec::<i32>::new());
}

#[test]
fn the_demo_fails_and_says_why_if_one_chunk_is_dropped() {
    let stage = Stage::new();
    let output = finish(stage.demo(&["--drop-one"]));
    let report = report(&output);
    assert_eq!(output.status.code(), Some(70), "{report:#}");
    assert_eq!(report["identical"], false);
    let lost: u64 = report["tenants"]
        .as_object()
        .unwrap()
        .values()
        .map(|row| row["lost"].as_u64().unwrap())
        .sum();
    assert_eq!(lost, 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("1 of 24 captured chunks"), "{said}");
}

/// Waits for a child of the demo that is `worker run`; its sandbox runs longer already.
fn until_a_run(stage: &Stage) {
    let runs = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"run".as_slice())
    };
    until("a child that is worker run", || {
        working_in(&stage.keep).iter().any(runs)
    });
}

#[test]
fn a_killed_demo_takes_its_children_along() {
    let stage = Stage::new();
    let mut demo = stage.demo(&[]);
    until_a_run(&stage);
    demo.kill().unwrap();
    demo.wait().unwrap();
    until("the end of its children", || {
        working_in(&stage.keep).is_empty()
    });
}

#[test]
fn an_interrupted_demo_leaves_no_process_behind() {
    let stage = Stage::new();
    let demo = stage.demo(&[]);
    until_a_run(&stage);
    signal(
        i32::try_from(demo.id()).unwrap(),
        rustix::process::Signal::INT,
    );
    let output = finish(demo);
    assert_eq!(output.status.code(), Some(75));
    until("the end of its children", || {
        working_in(&stage.keep).is_empty()
    });
}
