//! The demo's hands: what a step can do. Each does one thing, shows it, and gives up after a while.

use std::io::Write as _;
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
/// Shorter than most pauses between two beats: whoever delivers in each of them needs a new one.
const TOKEN_LIFE: &str = "2s";
/// Shorter than any pause between two beats, so that a 401 is certain.
const REACTIVE_LIFE: &str = "1s";
/// From the platform's start to the recordings'.
const LEAD: Duration = Duration::from_secs(3);

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
    platform: Platform,
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
        let shorter = format!("{}={REACTIVE_LIFE}", cast.reactive);
        let arguments = [
            "sandbox",
            "--tenants",
            &tenants,
            "--token-life",
            TOKEN_LIFE,
            "--token-life-of",
            &shorter,
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
            begun: (
                clock.now().saturating_add(LEAD),
                clock.wall().saturating_add(LEAD),
            ),
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
    pub(super) async fn disturb(&self, path: &str, body: &Value) -> Result<(), DemoError> {
        (self.tell)(Line::Platform(&format!("POST {path} {body}")));
        self.platform.post(path, body).await
    }

    /// Ends every fault, and lets go what it holds.
    pub(super) async fn end_faults(&self) -> Result<(), DemoError> {
        let (faults, release) = ("/_sandbox/faults", "/_sandbox/release");
        (self.tell)(Line::Platform(&format!("DELETE {faults}")));
        self.platform.delete(faults).await?;
        (self.tell)(Line::Platform(&format!("POST {release}")));
        self.platform.post(release, &json!({})).await
    }

    /// Every session hands over the chunks that were recorded meanwhile, as soon as the last of them is complete.
    pub(super) async fn capture(&mut self, from: usize, to: usize) -> Result<(), DemoError> {
        let recorded = |chunks: usize| CHUNK_DURATION * u32::try_from(chunks).unwrap_or(u32::MAX);
        let due = self.begun.0.saturating_add(recorded(to));
        self.clock.sleep_until(due).await;
        let (mut chunks, mut bytes) = (0, 0);
        for (place, part) in self.cast.parts.iter().enumerate() {
            for sequence in from..to {
                let ended = self.begun.1.saturating_add(recorded(sequence + 1));
                self.write(part, sequence, ended)?;
            }
            let dropped = self.dropped.filter(|_| place == 0);
            let mine: Vec<usize> = (from..to).filter(|n| Some(*n) != dropped).collect();
            if mine.is_empty() {
                continue;
            }
            let ends = to == part.recording.chunks.len();
            let command = enqueue(part, &mine, ends);
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

    /// As a recorder leaves it: last written when the recording of the chunk ended.
    fn write(&self, part: &Part, sequence: usize, ended: Timestamp) -> Result<(), DemoError> {
        let path = self.directory.join(file(part, sequence));
        let since = Duration::from_millis(u64::try_from(ended.0).unwrap_or(0));
        let write = || {
            std::fs::create_dir_all(path.parent().expect("a file stands in a folder"))?;
            let mut file = std::fs::File::create(&path)?;
            file.write_all(part.recording.chunks[sequence])?;
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + since)
        };
        write().map_err(DemoError::file(&path))
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

fn enqueue(part: &Part, chunks: &[usize], ends: bool) -> Vec<String> {
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
