//! The real binary beside an emulated platform, each test in a directory of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// The one bound on waiting for something that another process does.
pub const EVENTUALLY: Duration = Duration::from_secs(30);

/// Waits until `look` finds something; fails with `what` otherwise.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < EVENTUALLY, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Every line of standard output as JSON.
    pub fn objects(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// A directory with `worker.toml`, ended processes and nothing shared with other tests.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
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
        use std::os::unix::fs::PermissionsExt;
        self.write(name, b"canary-secret");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(WORKER);
        command
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn worker(&self, arguments: &str) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    pub fn start(&self, arguments: &str) -> Started {
        self.spawn(self.command(arguments))
    }

    pub fn spawn(&self, mut command: Command) -> Started {
        assert!(self.dir.path().exists());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Started(Some(child.unwrap()))
    }

    /// Waits until a holder listens.
    pub fn wait_for_holder(&self) {
        let socket = self.path("store/control.sock");
        eventually("a holder that listens", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }
}

/// A process that is ended with its test.
pub struct Started(Option<Child>);

impl Started {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended yet")
    }

    pub fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(self.child());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ran {
        eventually("a process to end", || self.child().try_wait().unwrap());
        let child = self.0.take().expect("not ended yet");
        child.wait_with_output().unwrap().into()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An emulated platform in its own process, configured as `worker.toml` of a place.
pub struct Platform {
    pub place: Place,
    _process: Started,
    address: String,
}

impl Platform {
    pub fn start(options: &str) -> Self {
        let place = Place::new();
        let mut command = place.command(&format!("sandbox --write-config worker.toml {options}"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect("an address")
            .to_owned();
        Self {
            place,
            _process: Started(Some(child)),
            address,
        }
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    pub fn ledger(&self) -> Value {
        self.request("GET", "/_sandbox/ledger", "")
    }

    pub fn faults(&self, rules: &str) {
        self.request("POST", "/_sandbox/faults", rules);
    }

    pub fn change(&self, tenant: &str, change: &str) {
        self.request("POST", &format!("/_sandbox/tenants/{tenant}"), change);
    }
}

/// Bytes that differ from file to file and do not compress.
pub fn payload(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
