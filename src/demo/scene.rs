//! The demo's hands: what a step can do. Each does one thing, shows it, and gives up after a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Clock, Instant};
use crate::model::Timestamp;

use super::cast::{Cast, Part};
use super::children::{Done, Program, Service, typed};
use super::error::DemoError;
use super::platform::Platform;
use super::recording::CHUNK_DURATION;
use super::verdict::{Arrived, Witness, count};
use super::{Line, Tell};

/// Between two looks at something that is waited for.
const BREATH: Duration = Duration::from_millis(100);
/// Where a wait looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// `worker --stats --json`.
    Stats,
    /// `GET /_sandbox/ledger`.
    Ledger,
}

/// Longer than any wait that the script causes, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const CONFIG: &str = "worker.toml";
const WORKER_LOG: &str = "worker.log";

pub(super) struct Scene {
    pub(super) directory: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cast: Cast,
    pub(super) platform: Platform,
    pub(super) witness: Witness,
    program: Program,
    sandbox: Service,
    worker: Option<Service>,
    tell: Tell,
    /// When every recording began.
    begun: (Instant, Timestamp),
    /// Never handed over: this sequence of the first part.
    dropped: Option<usize>,
}

/// Files of every session, in a folder a tenant, as a recorder would leave them.
pub(super) fn lay_out(directory: &Path, cast: &Cast) -> Result<(), DemoError> {
    for part in &cast.parts {
        for (sequence, chunk) in part.recording.chunks.iter().enumerate() {
            let path = directory.join(file(part, sequence));
            let folder = path.parent().expect("a file stands in a folder");
            std::fs::create_dir_all(folder).map_err(DemoError::file(folder))?;
            std::fs::write(&path, chunk).map_err(DemoError::file(&path))?;
        }
    }
    Ok(())
}

fn file(part: &Part, sequence: usize) -> String {
    format!(
        "{}/{}/{sequence:06}.ts",
        part.tenant, part.recording.session
    )
}

impl Scene {
    /// Starts the platform, which writes the configuration.
    pub(super) async fn open(
        directory: &Path,
        cast: Cast,
        clock: Arc<dyn Clock>,
        tell: Tell,
    ) -> Result<Self, DemoError> {
        let program = Program::new(directory)?;
        let tenants = super::cast::TENANTS.len().to_string();
        let arguments = [
            "sandbox",
            "--tenants",
            &tenants,
            "--token-life",
            "3s",
            "--write-config",
            CONFIG,
        ];
        tell(Line::Command(&typed(&arguments)));
        let (sandbox, line) = program.announced(&arguments, "sandbox.log").await?;
        tell(Line::Output(&line));
        let base = line
            .strip_prefix("listening on ")
            .ok_or_else(|| DemoError::Odd {
                command: typed(&arguments),
                said: line.clone(),
            })?;
        Ok(Self {
            directory: directory.to_owned(),
            platform: Platform::new(base)?,
            begun: (clock.now(), clock.wall()),
            clock,
            cast,
            witness: Witness::default(),
            program,
            sandbox,
            worker: None,
            tell,
            dropped: None,
        })
    }

    pub(super) fn drop_one(&mut self) {
        self.dropped = self.cast.parts[0].recording.chunks.len().checked_sub(1);
    }

    pub(super) fn step(&self, text: &str) {
        (self.tell)(Line::Step(text));
    }

    pub(super) fn remark(&self, text: &str) {
        (self.tell)(Line::Remark(text));
    }

    /// Adds to the configuration that the platform wrote.
    pub(super) fn configure(&self, text: &str) -> Result<(), DemoError> {
        let path = self.directory.join(CONFIG);
        let mut whole = std::fs::read_to_string(&path).map_err(DemoError::file(&path))?;
        whole.push_str(text);
        std::fs::write(&path, whole).map_err(DemoError::file(&path))
    }

    /// Runs a command and shows it with what it printed, whatever its exit code.
    pub(super) async fn show(&self, arguments: &[&str]) -> Result<Done, DemoError> {
        (self.tell)(Line::Command(&typed(arguments)));
        let done = self.program.once(arguments).await?;
        for line in done.stdout.lines().chain(done.stderr.lines()) {
            // The next command is this script's to say.
            if !line.starts_with("next: worker") {
                (self.tell)(Line::Output(line));
            }
        }
        Ok(done)
    }

    /// Makes or ends a fault.
    pub(super) async fn platform(&self, path: &str, body: &Value) -> Result<(), DemoError> {
        (self.tell)(Line::Platform(&format!("POST {path} {body}")));
        self.platform.post(path, body).await
    }

    /// Every session hands over the chunks that were recorded meanwhile, as soon as the last of them is complete.
    pub(super) async fn capture(&mut self, from: usize, to: usize) -> Result<(), DemoError> {
        let recorded = |chunks: usize| CHUNK_DURATION * u32::try_from(chunks).unwrap_or(u32::MAX);
        let due = self.begun.0.saturating_add(recorded(to));
        self.clock.sleep_until(due).await;
        let started_at = self.begun.1.saturating_add(recorded(from)).to_string();
        let (mut chunks, mut bytes) = (0, 0);
        for (place, part) in self.cast.parts.iter().enumerate() {
            let dropped = self.dropped.filter(|_| place == 0);
            let mine: Vec<usize> = (from..to).filter(|n| Some(*n) != dropped).collect();
            if mine.is_empty() {
                continue;
            }
            let ends = to == part.recording.chunks.len();
            let command = enqueue(part, &mine, &started_at, ends);
            (self.tell)(Line::Command(&typed(&command)));
            self.program.once(&command).await?.ok()?;
            chunks += mine.len();
            bytes += mine
                .iter()
                .map(|n| part.recording.chunks[*n].len())
                .sum::<usize>();
        }
        (self.tell)(Line::Output(&format!(
            "{chunks} chunks ({} KiB) are durable",
            bytes / 1024
        )));
        self.check()
    }

    pub(super) async fn start_worker(&mut self) -> Result<(), DemoError> {
        let arguments = ["run"];
        (self.tell)(Line::Command(&typed(&arguments)));
        self.worker = Some(self.program.service(&arguments, WORKER_LOG)?);
        self.until("worker run being ready", Look::Stats, |stats| {
            count(&stats["workers"]["busy"]) + count(&stats["workers"]["idle"]) > 0
        })
        .await
    }

    pub(super) async fn kill_worker(&mut self) -> Result<(), DemoError> {
        let worker = self.worker.take().expect("the worker runs");
        let pid = worker.pid().unwrap_or_default();
        (self.tell)(Line::Remark(&format!("kill -9 {pid}   (worker run)")));
        worker.kill().await
    }

    pub(super) async fn stop_worker(&mut self) -> Result<(), DemoError> {
        let worker = self.worker.take().expect("the worker runs");
        let pid = worker.pid().unwrap_or_default();
        (self.tell)(Line::Remark(&format!("kill -TERM {pid}   (worker run)")));
        worker.stop().await
    }

    pub(super) async fn close(self) -> Result<(), DemoError> {
        self.sandbox.stop().await
    }

    /// The numbers, as a script would read them.
    pub(super) async fn stats(&self) -> Result<Value, DemoError> {
        let done = self.program.once(&["--stats", "--json"]).await?.ok()?;
        serde_json::from_str(&done.stdout).map_err(|_| DemoError::Odd {
            command: done.command,
            said: done.stdout,
        })
    }

    /// Looks until what is waited for is there.
    pub(super) async fn until(
        &mut self,
        what: &str,
        look: Look,
        found: impl Fn(&Value) -> bool,
    ) -> Result<(), DemoError> {
        let give_up = self.clock.now().saturating_add(PATIENCE);
        loop {
            self.check()?;
            let seen = match look {
                Look::Stats => self.stats().await?,
                Look::Ledger => self.ledger().await?,
            };
            if found(&seen) {
                return Ok(());
            }
            let now = self.clock.now();
            if now >= give_up {
                return Err(DemoError::Late {
                    what: what.to_owned(),
                    within: PATIENCE,
                });
            }
            self.clock.sleep_until(now.saturating_add(BREATH)).await;
        }
    }

    pub(super) async fn ledger(&self) -> Result<Value, DemoError> {
        self.platform.get_json("/_sandbox/ledger").await
    }

    /// Requests that the platform holds now; waits for so many of them.
    pub(super) async fn held(&self, at_least: usize) -> Result<u64, DemoError> {
        let path = format!("/_sandbox/held?at_least={at_least}&within_ms=10000");
        (self.tell)(Line::Platform(&format!("GET {path}")));
        let held = self.platform.get_json(&path).await?;
        Ok(count(&held["held"]))
    }

    /// Every session as the platform has it, written down as a film.
    pub(super) async fn arrived(&self) -> Result<Vec<Arrived>, DemoError> {
        let mut all = Vec::new();
        for part in &self.cast.parts {
            let session = part.recording.session;
            let bytes = self.platform.session(part.tenant, session).await?;
            let bytes = bytes.unwrap_or_default();
            let folder = self.directory.join("recordings");
            std::fs::create_dir_all(&folder).map_err(DemoError::file(&folder))?;
            let path = folder.join(format!("{}-{session}.ts", part.tenant));
            std::fs::write(&path, &bytes).map_err(DemoError::file(&path))?;
            let part = *part;
            all.push(Arrived { part, bytes, path });
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Both services must live as long as nobody ends them.
    fn check(&mut self) -> Result<(), DemoError> {
        self.sandbox.check()?;
        self.worker.as_mut().map_or(Ok(()), Service::check)
    }
}

fn enqueue(part: &Part, chunks: &[usize], started_at: &str, ends: bool) -> Vec<String> {
    let first = chunks.first().copied().unwrap_or_default().to_string();
    let duration = format!("{}ms", CHUNK_DURATION.as_millis());
    let mut words: Vec<String> = [
        "enqueue",
        "--tenant",
        part.tenant,
        "--session",
        part.recording.session,
        "--sequence",
        &first,
        "--started-at",
        started_at,
        "--duration",
        &duration,
    ]
    .map(str::to_owned)
    .into();
    if ends {
        words.push("--last".to_owned());
    }
    words.extend(chunks.iter().map(|sequence| file(part, *sequence)));
    words
}

/// `{"scopes": […]}` and the like for one tenant.
pub(super) fn tenant(name: &str) -> String {
    format!("/_sandbox/tenants/{name}")
}

/// What holds every delivery of every tenant; one session's after it was stored, so that its answer is lost.
pub(super) fn holds(stored: &Part) -> Value {
    json!([
        {"tenant": stored.tenant, "session": stored.recording.session, "action": "hold_reply"},
        {"times": "forever", "action": "hold"},
    ])
}
