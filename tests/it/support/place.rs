//! A recording host in a temporary folder: a configuration, a store, files to enqueue; commands of the real binary in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::{Ended, Process};
use super::{PATIENCE, WORKER, canary, payload, wait_for, wait_within};

pub struct Place {
    dir: tempfile::TempDir,
    /// Everything that the processes here could have logged, a file each.
    traces: tempfile::TempDir,
    /// The defect that every command here has; empty: none but the environment's own.
    pub(super) sabotage: &'static str,
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

/// What follows the program's name: a line as it is typed, or its words where one holds a space.
pub trait Arguments {
    fn words(&self) -> Vec<&str>;
}

impl Arguments for str {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl Arguments for String {
    fn words(&self) -> Vec<&str> {
        self.as_str().words()
    }
}

impl Arguments for [&str] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl<const N: usize> Arguments for [&str; N] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A defect that is looked for has been found by its test.
        if self.sabotage.is_empty() {
            canary::assert_none(&[self.path(), self.traces()]);
            canary::keep(self.traces());
        }
    }
}

impl Place {
    /// Empty.
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            traces: tempfile::tempdir().unwrap(),
            sabotage: "",
        }
    }

    /// With a configuration whose platform nobody runs.
    pub fn configured() -> Self {
        let place = Self::new();
        place.write(
            "worker.toml",
            b"[store]\npath = \"store\"\nmin_free_bytes = \"1MiB\"\nmax_bytes = \"1GiB\"\n\
              [tenants.acme]\napi_url = \"http://127.0.0.1:9\"\ntoken_url = \"http://127.0.0.1:9/token\"\n\
              [tenants.acme.auth]\nclient_id = \"c\"\nclient_secret_file = \"acme.secret\"\n",
        );
        place.secret("acme.secret", 0o600);
        place
    }

    pub fn secret(&self, name: &str, mode: u32) {
        self.write(name, b"canary-secret");
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// Waits until a holder listens.
    pub fn wait_for_holder(&self) {
        let socket = self.store().join("control.sock");
        wait_for("a holder that listens", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), change(text)).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn traces(&self) -> &Path {
        self.traces.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("worker.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A command of the real binary, with this place's configuration.
    pub fn command(&self, arguments: &(impl Arguments + ?Sized)) -> Command {
        let mut command = Command::new(WORKER);
        command
            .env_remove("REELAY_STOP_AT")
            .env("REELAY_TRACES", self.traces())
            .current_dir(self.dir.path())
            .args(arguments.words());
        if !self.sabotage.is_empty() {
            command.env("REELAY_SABOTAGE", self.sabotage);
        }
        command
    }

    pub fn start(&self, arguments: &(impl Arguments + ?Sized)) -> Process {
        Process::start(&mut self.command(arguments))
    }

    pub fn worker(&self, arguments: &(impl Arguments + ?Sized)) -> Ended {
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

    /// What [`Place::enqueue`] put into the session up to and with `last`.
    pub fn enqueued(&self, tenant: &str, session: &str, last: u64) -> Vec<u8> {
        let name = |sequence| format!("{tenant}-{session}-{sequence}.ts");
        (0..=last)
            .flat_map(|sequence| payload(&name(sequence), 3000))
            .collect()
    }
}
