//! A child process with its output gathered as it comes. Dropping it kills it, so no test leaves one behind.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{PATIENCE, canary, wait_for, wait_within};

/// How a process ended, and all it said.
#[derive(Debug)]
pub struct Ended {
    /// `None`: killed.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The last line of standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        let line = self.out.lines().next_back().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Every whole line of standard output as JSON; a line that a kill cut is left out.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let lines = self.out.split_inclusive('\n');
        let whole = lines.filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}")))
            .collect()
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

type Text = Arc<Mutex<Vec<u8>>>;

pub struct Process {
    child: Child,
    out: Text,
    err: Text,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self::with_input(command, Stdio::null())
    }

    /// With this as its standard input.
    pub fn reading(command: &mut Command, input: Stdio) -> Self {
        let process = Self::with_input(command, input);
        // A command holds its standard input until it is dropped.
        command.stdin(Stdio::null());
        process
    }

    fn with_input(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (out, err) = (Text::default(), Text::default());
        let readers = vec![
            gather(child.stdout.take().expect("piped"), &out),
            gather(child.stderr.take().expect("piped"), &err),
        ];
        Self {
            child,
            out,
            err,
            readers,
        }
    }

    /// Given these bytes on standard input, and its end.
    pub fn fed(command: &mut Command, bytes: &[u8]) -> Self {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let process = Self::reading(command, reader.into());
        // A child that ends early needs no more.
        let _ = writer.write_all(bytes);
        drop(writer);
        process
    }

    pub fn out(&self) -> String {
        text(&self.out)
    }

    pub fn err(&self) -> String {
        text(&self.err)
    }

    /// Waits until standard error holds `what`; fails if the process ends before.
    pub fn wait_until_told(&mut self, what: &str) {
        wait_for(&format!("{what:?} on standard error"), || {
            let told = self.err().contains(what);
            assert!(
                told || self.ended().is_none(),
                "ended without {what:?}: {}",
                self.err()
            );
            told.then_some(())
        });
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits for its end, [`PATIENCE`] at most.
    pub fn wait(self) -> Ended {
        self.wait_at_most(PATIENCE)
            .unwrap_or_else(|process| panic!("still running; said {}", process.err()))
    }

    /// Gives the process back if it still runs after `patience`.
    pub fn wait_at_most(mut self, patience: Duration) -> Result<Ended, Self> {
        match wait_within(patience, || self.ended()) {
            Some(status) => Ok(self.reaped(status)),
            None => Err(self),
        }
    }

    /// SIGKILL, this process only.
    pub fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        let status = self.child.wait().expect("our own child");
        self.reaped(status)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.id()).expect("a pid is an i32");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid is not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    }

    /// No secret was said. A test that fails already has said enough.
    fn assert_discreet(&self) {
        for said in [self.out(), self.err()] {
            let discreet = std::thread::panicking() || !canary::is_in(&said);
            assert!(discreet, "a secret was said: {said}");
        }
    }

    fn reaped(&mut self, status: ExitStatus) -> Ended {
        for reader in self.readers.drain(..) {
            reader.join().expect("reading does not panic");
        }
        self.assert_discreet();
        Ended {
            code: status.code(),
            out: self.out(),
            err: self.err(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.assert_discreet();
    }
}

fn text(bytes: &Text) -> String {
    String::from_utf8_lossy(&bytes.lock().expect("no holder panics")).into_owned()
}

fn gather(mut from: impl Read + Send + 'static, to: &Text) -> JoinHandle<()> {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            to.lock()
                .expect("no holder panics")
                .extend_from_slice(&piece[..count]);
        }
    })
}
