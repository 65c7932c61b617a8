//! A recording host in a temporary folder: a sandbox, the configuration that fits it, a store, files to enqueue.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::{Ended, Process};
use super::{PATIENCE, Sandbox, payload, wait_for, wait_within};

pub struct Site {
    dir: tempfile::TempDir,
    pub sandbox: Sandbox,
    /// The defect that every command here has; empty: none but the environment's own.
    sabotage: &'static str,
}

/// What `worker --stats --json` and `worker fsck --json` say of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Told(pub Value);

impl Told {
    pub fn balance(&self, what: &str) -> u64 {
        self.0["balance"][what]
            .as_u64()
            .unwrap_or_else(|| panic!("{what} in {}", self.0))
    }

    pub fn is_balanced(&self) -> bool {
        self.0["balance"]["balanced"] == true
    }

    /// The holds of a tenant: kind and reason.
    pub fn holds(&self, tenant: &str) -> Vec<(String, String)> {
        let holds = self.0["tenants"][tenant]["gate"]["holds"].as_array();
        let text = |hold: &Value, key: &str| hold[key].as_str().unwrap_or_default().to_owned();
        let holds = holds.into_iter().flatten();
        holds
            .map(|hold| (text(hold, "kind"), text(hold, "reason")))
            .collect()
    }

    pub fn chunks(&self, tenant: &str, state: &str) -> u64 {
        self.0["tenants"][tenant][state]["chunks"]
            .as_u64()
            .unwrap_or_else(|| panic!("{state} of {tenant} in {}", self.0))
    }
}

impl Site {
    /// Three tenants with tokens of an hour.
    pub fn new() -> Self {
        Self::with("1h", "")
    }

    /// `more` goes to the end of the configuration.
    pub fn with(token_life: &str, more: &str) -> Self {
        Self::granting("client_credentials", 3, token_life, more)
    }

    /// Tenants whose configuration uses these grants.
    pub fn granted(grants: &str, tenants: usize, token_life: &str) -> Self {
        Self::granting(grants, tenants, token_life, "")
    }

    fn granting(grants: &str, tenants: usize, token_life: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("worker.toml");
        let sandbox = Sandbox::granting(&config, grants, tenants, token_life);
        let site = Self {
            dir,
            sandbox,
            sabotage: "",
        };
        site.configure(|text| format!("{text}\n[host]\nname = \"rec-1\"\n\n{more}"));
        // Segments that a handful of recordings fill.
        site.configure(|text| text.replacen("[store]", "[store]\nsegment_bytes = \"1MiB\"", 1));
        site
    }

    /// Gives every command here a defect, for a test that must notice it.
    pub fn sabotaged(mut self, sabotage: &'static str) -> Self {
        self.sabotage = sabotage;
        self
    }

    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), change(text)).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("worker.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A command of the real binary, with this site's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .env_remove("REELAY_STOP_AT")
            .current_dir(self.dir.path())
            .args(arguments);
        if !self.sabotage.is_empty() {
            command.env("REELAY_SABOTAGE", self.sabotage);
        }
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(arguments))
    }

    pub fn worker(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// `worker run`, once it answers.
    pub fn run(&self) -> Process {
        self.run_with(&mut self.command(&["run"]))
    }

    pub fn run_with(&self, command: &mut Command) -> Process {
        let mut process = Process::start(command);
        let socket = self.store().join("control.sock");
        wait_for("worker run to listen", || {
            assert!(process.ended().is_none(), "run: {}", process.err());
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        process
    }

    pub fn stats(&self) -> Told {
        Told(self.worker(&["--stats", "--json"]).expect(0).json())
    }

    /// The whole journal read, with nothing damaged.
    pub fn fsck(&self) -> Told {
        let told = self.worker(&["fsck", "--json"]).expect(0).json();
        assert_eq!(told["damaged"], Value::Array(Vec::new()), "{told}");
        Told(told)
    }

    /// Waits until the numbers are as wanted; fails with what they are instead.
    #[track_caller]
    pub fn wait_stats(&self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let looked = || Some(self.stats()).filter(|told| wanted(told));
        wait_within(PATIENCE, looked)
            .unwrap_or_else(|| panic!("waited for {what}: {}", self.stats().0))
    }

    /// A file of its own bytes; the name says which.
    pub fn file(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, payload(name, bytes)).unwrap();
        path
    }

    /// One small chunk, numbered, which must be accepted.
    #[track_caller]
    pub fn enqueue(&self, tenant: &str, session: &str, sequence: u64) {
        let file = self.file(&format!("{tenant}-{session}-{sequence}.ts"), 3000);
        let arguments = ["enqueue", "--tenant", tenant, "--session", session];
        let mut command = self.command(&arguments);
        command
            .args(["--sequence", &sequence.to_string()])
            .arg(file);
        Process::start(&mut command).wait().expect(0);
    }

    /// What [`Site::enqueue`] put into the session up to and with `last`.
    pub fn enqueued(&self, tenant: &str, session: &str, last: u64) -> Vec<u8> {
        let name = |sequence| format!("{tenant}-{session}-{sequence}.ts");
        (0..=last)
            .flat_map(|sequence| payload(&name(sequence), 3000))
            .collect()
    }

    /// Nothing owed, lost or dead, and the platform has `chunks` of them, each once and in order.
    #[track_caller]
    pub fn assert_all_delivered(&self, chunks: u64) {
        for told in [self.stats(), self.fsck()] {
            assert!(told.is_balanced(), "{}", told.0);
            assert_eq!(told.balance("enqueued"), chunks, "{}", told.0);
            assert_eq!(told.balance("delivered"), chunks, "{}", told.0);
        }
        let ledger = self.sandbox.ledger();
        assert_eq!(ledger["delivered"], chunks, "{ledger}");
        for fault in [
            "order_inversions",
            "conflicts",
            "undeclared_gaps",
            "after_last",
        ] {
            assert_eq!(ledger[fault], 0, "{fault}: {ledger}");
        }
    }
}
