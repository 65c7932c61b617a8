//! SIGKILL at an exact system call: every write, sync, rename, unlink, reservation and cut of one cycle of enqueue,
//! delivery and reclaim, thread by thread. Afterwards nothing is lost, and what was acknowledged is not sent again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::driver::Job;
use crate::support::rig::is_there;
use crate::support::{Account, Ended, Fault, Process, number, tool_is_missing, wait_for};

/// What changes a disk. Each thread counts its own calls, each by its name.
const CALLS: &str = "pwrite64,pwritev,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate,sync_file_range";

/// A thread's name, a call, and which of its calls.
type Place = (String, String, u64);

/// A store of its own whose driver waits for a line before it does everything once.
struct Cycle {
    dir: tempfile::TempDir,
    driver: Process,
    go: std::io::PipeWriter,
}

fn job<'a>(job: &'a str, store: &'a Path, sabotage: &'a str) -> Job<'a> {
    Job {
        job,
        store,
        seed: 5,
        sabotage,
        stop_at: "",
        marker: None,
    }
}

impl Cycle {
    fn start(sabotage: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (reader, go) = std::io::pipe().unwrap();
        let mut command = job("cycle", &dir.path().join("store"), sabotage).command();
        let mut driver = Process::reading(&mut command, Stdio::from(reader));
        wait_for("the driver to be ready", || {
            assert!(driver.ended().is_none(), "{}", driver.err());
            driver.out().contains("= end").then_some(())
        });
        let cycle = Self { dir, driver, go };
        // A thread gives itself its name, when it gets to run.
        wait_for("the store's threads to have their names", || {
            let names: Vec<String> = cycle.threads().into_values().collect();
            let there = |name: &&str| names.iter().any(|found| found == name);
            ["committer", "syncer", "keeper", "index"]
                .iter()
                .all(there)
                .then_some(())
        });
        cycle
    }

    /// Its threads by name.
    fn threads(&self) -> BTreeMap<u32, String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.driver.id())).unwrap();
        let named = tasks.filter_map(|task| {
            let task = task.ok()?.path();
            let id = task.file_name()?.to_str()?.parse().ok()?;
            let name = fs::read_to_string(task.join("comm")).ok()?;
            Some((id, name.trim().to_owned()))
        });
        named.collect()
    }

    /// Attaches a tracer, lets the cycle begin, and waits for its end.
    fn traced(mut self, tracer: &mut Command) -> (tempfile::TempDir, Ended) {
        let mut tracer = Process::start(tracer);
        tracer.wait_until_told("attached");
        self.go.write_all(b"go\n").unwrap();
        let ended = self.driver.wait();
        tracer.wait();
        (self.dir, ended)
    }

    /// Killed when the named thread enters that call.
    fn killed_at(self, (thread, call, which): &Place) -> (tempfile::TempDir, Ended) {
        let threads = self.threads();
        let found = threads.iter().find(|(_, name)| *name == thread);
        let id = found
            .unwrap_or_else(|| panic!("no {thread} in {threads:?}"))
            .0;
        let inject = format!("inject={call}:signal=SIGKILL:when={which}");
        let mut tracer = Command::new("strace");
        tracer
            .args([
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
                &inject,
            ])
            .args(["-p", &id.to_string()]);
        self.traced(&mut tracer)
    }
}

/// Every call of one cycle, by what an undisturbed one does.
fn places() -> Vec<Place> {
    let cycle = Cycle::start("");
    let threads = cycle.threads();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut tracer = Command::new("strace");
    tracer
        .args(["-f", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(log.path())
        .args(["-p", &cycle.driver.id().to_string()]);
    let (_dir, ended) = cycle.traced(&mut tracer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in fs::read_to_string(log.path()).unwrap().lines() {
        let mut words = line.split_whitespace();
        let thread = words.next().and_then(|id| threads.get(&id.parse().ok()?));
        let call = words.next().and_then(|call| call.split_once('('));
        if let (Some(thread), Some((call, _))) = (thread, call) {
            *counts.entry((thread.clone(), call.to_owned())).or_default() += 1;
        }
    }
    println!("one cycle: {counts:?}");
    let each = counts.into_iter().flat_map(|((thread, call), count)| {
        (1..=count).map(move |which| (thread.clone(), call.clone(), which))
    });
    each.collect()
}

/// What a store that was killed says and delivers afterwards, against what it answered before.
fn account(dir: &Path, ended: &Ended) -> Result<(), String> {
    let mut account = Account::new(Fault::Kill);
    account.hear(&ended.out)?;
    let after = job("verify", &dir.join("store"), "").start().wait();
    if after.code != Some(0) {
        return Err(format!("{after:?}"));
    }
    account.hear(&after.out)
}

#[test]
fn a_kill_at_any_system_call_of_a_cycle_loses_and_doubles_nothing() {
    if !is_there("strace") {
        return tool_is_missing("strace");
    }
    // For a machine in a hurry: every so many only.
    let step = number("REELAY_CALLS_STEP", 1) as usize;
    let places: Vec<Place> = places().into_iter().step_by(step).collect();
    let mut landed: BTreeMap<String, u64> = BTreeMap::new();
    for place in &places {
        let (dir, ended) = Cycle::start("").killed_at(place);
        if ended.code.is_none() {
            *landed.entry(place.1.clone()).or_default() += 1;
        }
        assert_eq!(account(dir.path(), &ended), Ok(()), "killed at {place:?}");
    }
    let count: u64 = landed.values().sum();
    println!(
        "{count} kills landed at {} places: {landed:?}",
        places.len()
    );
    for call in ["pwritev", "fdatasync", "fsync", "unlink"] {
        assert!(landed.contains_key(call), "none at {call}");
    }
    // How often the index and the keeper write depends on time.
    assert!(count as usize * 10 >= places.len() * 7);
}

#[test]
fn an_exact_kill_shows_a_store_that_answers_too_early_and_one_that_forgets_an_ack() {
    if !is_there("strace") {
        return tool_is_missing("strace");
    }
    let noticed = |sabotage, thread: &str, call: &str| {
        (1..12).find(|which| {
            let place = (thread.to_owned(), call.to_owned(), *which);
            let (dir, ended) = Cycle::start(sabotage).killed_at(&place);
            account(dir.path(), &ended).is_err()
        })
    };
    let early = noticed("AnswerBeforeWrite", "committer", "pwritev");
    println!("AnswerBeforeWrite shows at the committer's write {early:?}");
    assert!(early.is_some());
    let forgotten = noticed("ForgetWord", "syncer", "fdatasync");
    let forgotten = forgotten.or_else(|| noticed("ForgetWord", "index", "fdatasync"));
    println!("ForgetWord shows at {forgotten:?}");
    assert!(forgotten.is_some());
}
