//! A store in a temporary directory, an engine of plain data, and a served socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Instant, SystemClock};
use crate::config::{Config, load_text};
use crate::control::Reach;
use crate::control::running::{Ended, Holder, Lane, Later, Running};
use crate::control::server;
use crate::control::socket::SocketPath;
use crate::control::wire::{DrainOutcome, DrainReport, DrainSpec, Finding};
use crate::model::{Count, DeadReason, SessionKey, TenantId, Timestamp, WorkersView};
use crate::store::{NewChunk, SequenceChoice, Store, StoreError, StoreView};

pub fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub fn chunk(session: &str, sequence: SequenceChoice) -> NewChunk {
    NewChunk {
        tenant: tenant(),
        session: session.parse().unwrap(),
        sequence,
        started_at: Timestamp(1_000),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        length: None,
    }
}

/// An engine that has nothing to do and says so.
pub struct Fake {
    command: &'static str,
    ended: Option<Ended>,
    stops: bool,
}

pub fn fake(command: &'static str) -> Arc<dyn Running> {
    Arc::new(Fake::command(command))
}

impl Fake {
    pub fn command(command: &'static str) -> Self {
        Self {
            command,
            ended: None,
            stops: true,
        }
    }

    pub fn ending(ended: Ended) -> Self {
        Self {
            ended: Some(ended),
            ..Self::command("run")
        }
    }

    pub fn that_never_stops(self) -> Self {
        Self {
            stops: false,
            ..self
        }
    }
}

impl Running for Fake {
    fn command(&self) -> &'static str {
        self.command
    }
    fn lanes(&self, _: &StoreView) -> BTreeMap<TenantId, Lane> {
        BTreeMap::from([(tenant(), Lane::default())])
    }
    fn workers(&self) -> WorkersView {
        WorkersView { busy: 1, idle: 2 }
    }
    fn pause(&self, _: &TenantId) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn resume(&self, _: &TenantId) -> Result<usize, StoreError> {
        Ok(0)
    }
    fn drain(&self, _: DrainSpec) -> Later<'_, DrainReport> {
        let report = DrainReport {
            outcome: DrainOutcome::Drained,
            delivered: Count::default(),
            left: Count::default(),
            tenants: BTreeMap::new(),
            handed_over: false,
            recordings: BTreeMap::new(),
            unreadable: 0,
        };
        Box::pin(std::future::ready(report))
    }
    fn check(&self) -> Later<'_, Vec<Finding>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    fn hand_over(&self) -> bool {
        self.command == "drain"
    }
    fn stop(&self, _: Duration) -> Later<'_, ()> {
        if self.stops {
            Box::pin(std::future::ready(()))
        } else {
            Box::pin(std::future::pending())
        }
    }
    fn ended(&self) -> Later<'_, Ended> {
        match self.ended.clone() {
            Some(ended) => Box::pin(std::future::ready(ended)),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Half a second passes whenever somebody looks.
#[derive(Default)]
struct HurriedClock(Mutex<Duration>);

impl Clock for HurriedClock {
    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }
    fn now(&self) -> Instant {
        let mut now = self.0.lock().unwrap();
        *now += Duration::from_millis(500);
        Instant(*now)
    }
    fn boot_id(&self) -> [u8; 16] {
        [1; 16]
    }
    fn sleep_until(&self, _: Instant) -> Later<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

pub struct Desk {
    dir: tempfile::TempDir,
    config: Arc<Config>,
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = "[store]\npath = \"s\"\nmin_free_bytes = \"1B\"\nmax_bytes = \"1GiB\"\n\
                    [host]\nname = \"rec-017\"\n\
                    [tenants.acme]\nregion = \"us1\"\n\
                    [tenants.acme.auth]\nclient_id = \"c\"\nclient_secret_file = \"acme.secret\"\n";
        let config = load_text(text, &dir.path().join("worker.toml"), None).unwrap();
        Self {
            dir,
            config: Arc::new(config),
        }
    }

    pub fn store(&self) -> &Path {
        &self.config.store.path
    }

    pub fn holder(&self, running: Option<Arc<dyn Running>>) -> Holder {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = self.config.store_settings();
        Holder {
            store: Store::open(self.store(), settings, Arc::clone(&clock)).unwrap(),
            config: Arc::clone(&self.config),
            clock,
            running,
            trend: Arc::default(),
        }
    }

    pub fn reach(&self, wait: Duration, told: Arc<Mutex<Vec<String>>>) -> Reach {
        assert!(self.dir.path().exists());
        Reach {
            config: Arc::clone(&self.config),
            clock: Arc::new(HurriedClock::default()),
            wait,
            notice: Arc::new(move |text| told.lock().unwrap().push(text.to_owned())),
        }
    }

    pub fn serve(&self, holder: Holder) -> Served {
        let listener = SocketPath::of_store(self.store())
            .unwrap()
            .listen()
            .unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned().shared();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(server::serve(listener, holder, stopped))
                .unwrap();
        });
        Served { stop, thread }
    }

    /// One request by hand; status and body.
    pub fn raw(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let place = SocketPath::of_store(self.store()).unwrap();
        let mut stream = UnixStream::connect(place.path()).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }

    /// The head of a session dies.
    pub fn bury(&self, holder: &Holder, session: &str) {
        let key = SessionKey {
            tenant: tenant(),
            session: session.parse().unwrap(),
        };
        let lease = holder.store.lease(&key).unwrap().unwrap();
        lease.bury(DeadReason::Rejected, None).unwrap();
    }
}

pub struct Served {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Served {
    pub fn end(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}
