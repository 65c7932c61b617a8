//! This program as child processes: commands that end by themselves, and services that are ended. A child that is
//! dropped is killed by its pid, so an error, an interrupt and a panic leave none behind.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::END_WITH;
use super::error::DemoError;

/// A command that takes longer hangs.
const COMMAND: Duration = Duration::from_secs(45);
/// From start to the line that says where it listens.
const READY: Duration = Duration::from_secs(20);
/// A service that was asked to end; longer than its own grace for uploads.
const END: Duration = Duration::from_secs(30);
/// What is quoted of a child's last words.
const QUOTED: usize = 2000;

/// Where this program's file is and where its children work.
pub(super) struct Program {
    exe: PathBuf,
    directory: PathBuf,
}

/// A command that ended.
pub(super) struct Done {
    pub(super) command: String,
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Done {
    pub(super) fn is_ok(&self) -> bool {
        self.status.success()
    }

    pub(super) fn ok(self) -> Result<Self, DemoError> {
        if self.is_ok() {
            return Ok(self);
        }
        Err(ended(&self.command, self.status, &self.stderr))
    }
}

/// As a person would type it.
pub(super) fn typed<S: AsRef<str>>(arguments: &[S]) -> String {
    let words = arguments.iter().map(AsRef::as_ref);
    std::iter::once("worker")
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

impl Program {
    pub(super) fn new(directory: &Path) -> Result<Self, DemoError> {
        Ok(Self {
            exe: std::env::current_exe().map_err(DemoError::Program)?,
            directory: directory.to_owned(),
        })
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(arguments)
            .current_dir(&self.directory)
            // A service manager's word to this process is none to its children.
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            // The one thing that dropping a child cannot do: end it when this process is killed.
            .env(END_WITH, std::process::id().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(super) async fn once<S: AsRef<str> + AsRef<OsStr>>(
        &self,
        arguments: &[S],
    ) -> Result<Done, DemoError> {
        let command = typed(arguments);
        let running = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        let output = timeout(COMMAND, running)
            .await
            .map_err(|_| DemoError::Late {
                what: format!("the end of {command}"),
                within: COMMAND,
            })?
            .map_err(start(&command))?;
        Ok(Done {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a service that writes to `log`, and returns the first line that it prints.
    pub(super) async fn announced<S: AsRef<str> + AsRef<OsStr>>(
        &self,
        arguments: &[S],
        log: &str,
    ) -> Result<(Service, String), DemoError> {
        let command = typed(arguments);
        let path = self.directory.join(log);
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(append(&path)?)
            .spawn()
            .map_err(start(&command))?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let read = timeout(READY, reader.read_line(&mut line)).await;
        let mut service = Service {
            command,
            log: path,
            child,
            reader: Some(reader),
        };
        match read {
            Ok(Ok(1..)) => Ok((service, line.trim_end().to_owned())),
            Ok(Ok(0)) => Err(service.early_end().await),
            Ok(Err(source)) => Err(start(&service.command)(source)),
            Err(_) => Err(DemoError::Late {
                what: format!("a first line of {}", service.command),
                within: READY,
            }),
        }
    }

    /// Starts a service that writes to `log`.
    pub(super) fn service<S: AsRef<str> + AsRef<OsStr>>(
        &self,
        arguments: &[S],
        log: &str,
    ) -> Result<Service, DemoError> {
        let command = typed(arguments);
        let path = self.directory.join(log);
        let child = self
            .command(arguments)
            .stdout(append(&path)?)
            .stderr(append(&path)?)
            .spawn()
            .map_err(start(&command))?;
        Ok(Service {
            command,
            log: path,
            child,
            reader: None,
        })
    }
}

/// A child that runs until it is ended.
pub(super) struct Service {
    command: String,
    log: PathBuf,
    child: Child,
    /// Held open: a service that prints into a closed pipe would fail.
    #[expect(dead_code, reason = "only its being open matters")]
    reader: Option<BufReader<ChildStdout>>,
}

impl Service {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error if it ended although nobody asked it to.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.died(status)),
            Err(source) => Err(start(&self.command)(source)),
        }
    }

    /// SIGKILL: it learns nothing.
    pub(super) async fn kill(mut self) -> Result<(), DemoError> {
        self.check()?;
        let status = self.finish(Signal::KILL).await?;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            return Ok(());
        }
        Err(self.died(status))
    }

    /// SIGTERM, and the clean end that must follow.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        self.check()?;
        let status = self.finish(Signal::TERM).await?;
        if status.success() {
            return Ok(());
        }
        Err(self.died(status))
    }

    async fn finish(&mut self, signal: Signal) -> Result<ExitStatus, DemoError> {
        let failed = |source| DemoError::Signal {
            command: self.command.clone(),
            source,
        };
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .expect("a child that was not waited for has a pid");
        kill_process(pid, signal).map_err(|error| failed(error.into()))?;
        match timeout(END, self.child.wait()).await {
            Ok(status) => status.map_err(start(&self.command)),
            Err(_) => Err(DemoError::Late {
                what: format!("the end of {}", self.command),
                within: END,
            }),
        }
    }

    async fn early_end(&mut self) -> DemoError {
        match timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => self.died(status),
            Ok(Err(source)) => start(&self.command)(source),
            Err(_) => DemoError::Late {
                what: format!("the end of {}", self.command),
                within: END,
            },
        }
    }

    fn died(&self, status: ExitStatus) -> DemoError {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        ended(&self.command, status, &said)
    }
}

fn append(path: &Path) -> Result<File, DemoError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(DemoError::file(path))
}

fn start(command: &str) -> impl Fn(io::Error) -> DemoError + use<> {
    let command = command.to_owned();
    move |source| DemoError::Start {
        command: command.clone(),
        source,
    }
}

fn ended(command: &str, status: ExitStatus, said: &str) -> DemoError {
    let said = match said.trim_end() {
        "" => "it said nothing",
        said => said,
    };
    let from = said.char_indices().rev().take(QUOTED).last();
    DemoError::Ended {
        command: command.to_owned(),
        status: status.to_string(),
        said: said[from.map_or(0, |(at, _)| at)..].to_owned(),
    }
}
