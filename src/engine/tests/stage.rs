//! A store in a temporary directory, an engine on it, a platform that follows a script and keeps a ledger, and a
//! token endpoint that can be told to fail. Slots are the real ones.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use secrecy::SecretString;

use super::meter::Meter;
use crate::auth::{About, Claims, Grant, MintFailure, Minted, Minting, Refusal, Rules, Slot};
use crate::chance::Chance;
use crate::clock::{Clock, Instant, RuntimeClock};
use crate::engine::{
    DrainProgress, DrainReport, DrainSettings, End, Engine, EngineDeps, LaneSettings, OnDead,
    Settings,
};
use crate::model::{
    ChunkKey, Count, Digest, FailureClass, FailureRecord, Gap, GateState, Route, SessionKey,
    TenantId, Timestamp,
};
use crate::platform::{
    Answer, Answering, Delivery, Failure, Limits, Platform, ReceiptPolicy, Target, Verdict,
};
use crate::policy::grouping;
use crate::sabotage::Sabotaged;
use crate::store::{self, DeadFilter, DeadLetter, NewChunk, SequenceChoice, Store};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the platform saw of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub tenant: String,
    pub session: String,
    /// The first part's, and how many there are.
    pub sequence: u64,
    pub parts: u64,
    /// Of all payloads.
    pub bytes: u64,
    pub attempt: u32,
    pub late: bool,
    pub gaps: Vec<Gap>,
    pub token: String,
    /// Since the stage was set.
    pub at: Duration,
}

impl Seen {
    pub fn sequences(&self) -> std::ops::Range<u64> {
        self.sequence..self.sequence + self.parts
    }
}

/// What it does about it.
#[derive(Debug, Clone)]
pub enum Reply {
    Store,
    Fail(Box<FailureRecord>, Option<Duration>),
    Panic,
    /// Never, until it is dropped.
    Hang,
}

impl Reply {
    pub fn fail(class: FailureClass, status: Option<u16>) -> Self {
        Self::Fail(Box::new(record(class, status)), None)
    }

    pub fn throttle(hint: Duration) -> Self {
        let record = record(FailureClass::Throttled, Some(429));
        Self::Fail(Box::new(record), Some(hint))
    }
}

fn record(class: FailureClass, status: Option<u16>) -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class,
        status,
        code: Some("a.code".into()),
        correlation_id: Some("c-1".into()),
        fields: vec![],
        missing: None,
        message: "no".into(),
        body: String::new(),
        token_generation: None,
        token_fingerprint: None,
        attempt: 0,
        next_try_at: None,
    }
}

type Script = Box<dyn FnMut(&Seen) -> Reply + Send>;

#[derive(Default)]
struct Ledger {
    requests: Vec<Seen>,
    /// Stored sequences by tenant and session, in the order of arrival.
    stored: BTreeMap<(String, String), Vec<u64>>,
    /// Parts that came although they were stored.
    duplicates: u64,
    on_the_wire: Vec<(String, String)>,
    most_on_the_wire: usize,
}

pub struct ScriptedPlatform {
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
    takes: Mutex<Duration>,
    limits: Mutex<Limits>,
    /// A tenant's quota; engines that share one are told apart by their seed.
    meters: Mutex<BTreeMap<String, Arc<Mutex<Meter>>>>,
    engine: Mutex<u64>,
    jitter: Mutex<fastrand::Rng>,
    /// Until when a refusal that was read forbids a tenant to begin anything, and how often that happened.
    forbidden: Mutex<(BTreeMap<String, Duration>, u64)>,
    started: tokio::time::Instant,
}

impl ScriptedPlatform {
    fn begins(&self, seen: &Seen) {
        let mut ledger = self.ledger.lock().unwrap();
        let session = (seen.tenant.clone(), seen.session.clone());
        assert!(
            !ledger.on_the_wire.contains(&session),
            "two requests of {session:?} at once"
        );
        ledger.on_the_wire.push(session);
        ledger.most_on_the_wire = ledger.most_on_the_wire.max(ledger.on_the_wire.len());
        ledger.requests.push(seen.clone());
    }

    fn ends(&self, seen: &Seen) {
        let session = (seen.tenant.clone(), seen.session.clone());
        let mut ledger = self.ledger.lock().unwrap();
        ledger.on_the_wire.retain(|of| *of != session);
    }

    fn store(&self, seen: &Seen) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        let session = (seen.tenant.clone(), seen.session.clone());
        let stored = ledger.stored.entry(session).or_default();
        let mut duplicates = 0;
        for sequence in seen.sequences() {
            if stored.contains(&sequence) {
                duplicates += 1;
            } else {
                stored.push(sequence);
            }
        }
        ledger.duplicates += duplicates;
        duplicates > 0
    }
}

impl ScriptedPlatform {
    /// The quota's answer, where there is one. Requests overtake each other on the way there and back.
    async fn count(&self, seen: &Seen, takes: Duration) -> Option<(bool, Limits)> {
        let meter = self.meters.lock().unwrap().get(&seen.tenant).cloned()?;
        {
            let mut forbidden = self.forbidden.lock().unwrap();
            let until = forbidden.0.get(&seen.tenant).copied().unwrap_or_default();
            forbidden.1 += u64::from(seen.at < until);
        }
        let (there, back) = {
            let mut random = self.jitter.lock().unwrap();
            (random.f64(), random.f64())
        };
        tokio::time::sleep(takes.mul_f64(there)).await;
        let engine = *self.engine.lock().unwrap();
        let counted = (meter.lock().unwrap()).count(self.started.elapsed(), engine);
        tokio::time::sleep(takes.mul_f64(back)).await;
        Some(counted)
    }

    fn refuse(&self, seen: &Seen, limits: Limits, at: Timestamp) -> Answer {
        let wait = limits.reset_in.unwrap_or_default();
        let until = self.started.elapsed() + wait;
        let mut forbidden = self.forbidden.lock().unwrap();
        forbidden.0.insert(seen.tenant.clone(), until);
        let mut record = record(FailureClass::Throttled, Some(429));
        record.at = at;
        let verdict = Verdict::Failed(Failure {
            record,
            retry_after: Some(wait),
            conflict: false,
            route: Route::Deliver,
        });
        Answer {
            verdict,
            limits,
            recording: None,
        }
    }
}

/// Ends the request in the ledger also when it is dropped on the wire.
struct OnTheWire<'a>(&'a ScriptedPlatform, Seen);

impl Drop for OnTheWire<'_> {
    fn drop(&mut self) {
        self.0.ends(&self.1);
    }
}

impl Platform for ScriptedPlatform {
    fn deliver(&self, mut delivery: Delivery) -> Answering<'_> {
        Box::pin(async move {
            let mut bytes = 0;
            let mut damaged = false;
            for part in &mut delivery.parts {
                let mut payload = Vec::new();
                match part.payload.read_to_end(&mut payload) {
                    Ok(_) => assert_eq!(Digest::of(&payload), part.meta.digest),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                        damaged = true;
                    }
                }
                bytes += payload.len() as u64;
            }
            let sequences = delivery.parts.iter().map(|part| part.meta.key.sequence);
            assert!(sequences.is_sorted_by(|a, b| a + 1 == *b), "contiguous");
            let key = &delivery.parts[0].meta.key;
            let seen = Seen {
                parts: delivery.parts.len() as u64,
                bytes,
                tenant: key.tenant.to_string(),
                session: key.session.to_string(),
                sequence: key.sequence,
                attempt: delivery.attempt,
                late: delivery.late,
                gaps: delivery.gaps.clone(),
                token: delivery.token.expose().to_owned(),
                at: self.started.elapsed(),
            };
            self.begins(&seen);
            let on_the_wire = OnTheWire(self, seen);
            let takes = *self.takes.lock().unwrap();
            let seen = &on_the_wire.1;
            if let Some((within, limits)) = self.count(seen, takes).await {
                if !within {
                    return self.refuse(seen, limits, delivery.at);
                }
                let verdict = Verdict::Delivered {
                    duplicate: self.store(seen),
                };
                return Answer {
                    verdict,
                    limits,
                    recording: None,
                };
            }
            tokio::time::sleep(takes).await;
            let reply = match damaged {
                true => Reply::fail(FailureClass::Damaged, None),
                false => (self.script.lock().unwrap())(seen),
            };
            let verdict = match reply {
                Reply::Store => Verdict::Delivered {
                    duplicate: self.store(seen),
                },
                Reply::Fail(mut record, retry_after) => {
                    record.at = delivery.at;
                    record.attempt = delivery.attempt;
                    Verdict::Failed(Failure {
                        record: *record,
                        retry_after,
                        conflict: false,
                        route: Route::Deliver,
                    })
                }
                Reply::Panic => panic!("scripted"),
                Reply::Hang => std::future::pending().await,
            };
            let limits = *self.limits.lock().unwrap();
            Answer {
                verdict,
                limits,
                recording: None,
            }
        })
    }
}

/// A token endpoint; every token names its number.
pub struct ScriptedGrant {
    pub minted: Mutex<u64>,
    pub down: Mutex<bool>,
    pub refusal: Mutex<Option<Refusal>>,
    pub hangs: Mutex<bool>,
    pub life: Mutex<Duration>,
    /// Tenants of one client spend one request budget.
    pub client: Mutex<String>,
    pub asked: Mutex<u64>,
}

impl Default for ScriptedGrant {
    fn default() -> Self {
        Self {
            minted: Mutex::default(),
            down: Mutex::default(),
            refusal: Mutex::default(),
            hangs: Mutex::default(),
            life: Mutex::new(HOUR),
            client: Mutex::default(),
            asked: Mutex::default(),
        }
    }
}

impl Grant for ScriptedGrant {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async move {
            *self.asked.lock().unwrap() += 1;
            let hangs = *self.hangs.lock().unwrap();
            if hangs {
                std::future::pending::<()>().await;
            }
            if *self.down.lock().unwrap() {
                let cause = "connection refused".to_owned();
                return Err(MintFailure::Unreachable { cause });
            }
            if let Some(refusal) = self.refusal.lock().unwrap().clone() {
                return Err(MintFailure::Refused(Box::new(refusal)));
            }
            let mut minted = self.minted.lock().unwrap();
            *minted += 1;
            Ok(Minted {
                access_token: SecretString::from(format!("token-{minted:06}")),
                lifetime: *self.life.lock().unwrap(),
                scopes: None,
                claims: Claims::default(),
            })
        })
    }

    fn about(&self) -> About {
        About {
            endpoint: "https://login.test".into(),
            client_id: self.client.lock().unwrap().clone(),
            secret_file: "acme.secret".into(),
            grant: "client_credentials",
            ..About::default()
        }
    }
}

/// The virtual clock; its wall time can be set to another one.
pub struct JumpingClock {
    runtime: RuntimeClock,
    offset_ms: Mutex<i64>,
}

impl JumpingClock {
    pub fn jump(&self, milliseconds: i64) {
        *self.offset_ms.lock().unwrap() += milliseconds;
    }
}

impl Clock for JumpingClock {
    fn wall(&self) -> Timestamp {
        Timestamp(self.runtime.wall().0 + *self.offset_ms.lock().unwrap())
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn boot_id(&self) -> [u8; 16] {
        self.runtime.boot_id()
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.runtime.sleep_until(until)
    }
}

fn grant_of(client: &str) -> Arc<ScriptedGrant> {
    let grant = ScriptedGrant::default();
    *grant.client.lock().unwrap() = client.to_owned();
    Arc::new(grant)
}

pub struct Stage {
    dir: tempfile::TempDir,
    pub clock: Arc<JumpingClock>,
    pub platform: Arc<ScriptedPlatform>,
    /// A tenant's own.
    pub grants: Vec<Arc<ScriptedGrant>>,
    tenants: Vec<TenantId>,
    pub workers: usize,
    pub on_dead: OnDead,
    pub concurrency: usize,
    /// One chunk a request, unless a test is about groups.
    pub group: grouping::Limits,
    pub seed: u64,
    pub store_defects: Sabotaged,
    store: Option<Store>,
    pub engine: Option<Engine>,
}

impl Stage {
    pub fn new(tenants: &[&str]) -> Self {
        Self::in_dir(tenants, tempfile::tempdir().unwrap())
    }

    /// The store's files stand in memory where there is much of it: for tests of what the engine decides about very many
    /// chunks, not of what a disk does.
    pub fn in_memory(tenants: &[&str]) -> Self {
        const ENOUGH: u64 = 4 << 30;
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map_or(0, |about| about.f_bavail * about.f_frsize);
        let dir = match free >= ENOUGH {
            true => tempfile::tempdir_in(memory).ok(),
            false => None,
        };
        let dir = dir.unwrap_or_else(|| tempfile::tempdir().unwrap());
        Self::in_dir(tenants, dir)
    }

    fn in_dir(tenants: &[&str], dir: tempfile::TempDir) -> Self {
        let mut stage = Self::unopened(tenants, dir);
        stage.open();
        stage
    }

    fn unopened(tenants: &[&str], dir: tempfile::TempDir) -> Self {
        let wall = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
        Self {
            dir,
            clock: Arc::new(JumpingClock {
                runtime: RuntimeClock::starting_at(wall),
                offset_ms: Mutex::new(0),
            }),
            platform: Arc::new(ScriptedPlatform {
                script: Mutex::new(Box::new(|_| Reply::Store)),
                ledger: Mutex::default(),
                takes: Mutex::new(Duration::from_millis(50)),
                limits: Mutex::default(),
                meters: Mutex::default(),
                engine: Mutex::default(),
                jitter: Mutex::new(fastrand::Rng::with_seed(11)),
                forbidden: Mutex::default(),
                started: tokio::time::Instant::now(),
            }),
            grants: tenants.iter().map(|name| grant_of(name)).collect(),
            tenants: tenants.iter().map(|name| name.parse().unwrap()).collect(),
            workers: 16,
            on_dead: OnDead::Skip,
            concurrency: 4,
            group: grouping::Limits::ALONE,
            seed: 1,
            store_defects: Sabotaged::NONE,
            store: None,
            engine: None,
        }
    }

    pub fn open(&mut self) {
        let settings = store::Settings {
            segment_bytes: 1 << 20,
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            max_chunk_bytes: 64 << 20,
            remember: DAY * 7,
            tenants: self.tenants.clone(),
            host: "rec-017".parse().unwrap(),
            sabotaged: self.store_defects,
        };
        let clock: Arc<dyn Clock> = self.clock.clone();
        self.store = Some(Store::open(self.dir.path(), settings, clock).unwrap());
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// From now on the platform does this.
    pub fn script(&self, script: impl FnMut(&Seen) -> Reply + Send + 'static) {
        *self.platform.script.lock().unwrap() = Box::new(script);
    }

    pub fn all_is_well(&self) {
        self.script(|_| Reply::Store);
    }

    pub fn requests_take(&self, time: Duration) {
        *self.platform.takes.lock().unwrap() = time;
    }

    pub fn limits_say(&self, limits: Limits) {
        *self.platform.limits.lock().unwrap() = limits;
    }

    /// From now on a tenant's requests are counted.
    pub fn meter(&self, tenant: &str, meter: &Arc<Mutex<Meter>>) {
        *self.platform.engine.lock().unwrap() = self.seed;
        let mut meters = self.platform.meters.lock().unwrap();
        meters.insert(tenant.to_owned(), Arc::clone(meter));
    }

    /// Requests that began although a refusal which had been read forbade it.
    pub fn inside_forbidden(&self) -> u64 {
        self.platform.forbidden.lock().unwrap().1
    }

    /// Accepts these sequences of many sessions, `s0`, `s1` and so on, in several threads.
    pub fn accept_all(
        &self,
        tenant: &str,
        sessions: u64,
        sequences: std::ops::Range<u64>,
        bytes: usize,
    ) {
        let payload = vec![7_u8; bytes];
        std::thread::scope(|scope| {
            for part in 0..16 {
                let (payload, sequences) = (&payload, sequences.clone());
                scope.spawn(move || {
                    for sequence in sequences {
                        for session in (part..sessions).step_by(16) {
                            let key = key(tenant, &format!("s{session}"), sequence);
                            self.accept_bytes(&key, payload);
                        }
                    }
                });
            }
        });
        let last = key(tenant, "s0", 0).session_key();
        self.store().head(&last).unwrap();
    }

    /// Accepts one chunk, and returns when the index knows it.
    pub fn put(&self, tenant: &str, session: &str, sequence: u64) {
        let key = key(tenant, session, sequence);
        self.accept(&key);
        // Answered behind the index's own news of the arrival.
        self.store().head(&key.session_key()).unwrap();
    }

    /// Accepts one chunk.
    pub fn accept(&self, key: &ChunkKey) {
        self.accept_bytes(key, format!("{key}").as_bytes());
    }

    fn accept_bytes(&self, key: &ChunkKey, mut payload: &[u8]) {
        let chunk = NewChunk {
            tenant: key.tenant.clone(),
            session: key.session.clone(),
            sequence: SequenceChoice::Exactly(key.sequence),
            started_at: Timestamp(1_772_359_200_000),
            duration_ms: 30_000,
            media_type: "video/mp4".into(),
            last: false,
            length: None,
        };
        self.store().enqueue(chunk, &mut payload).unwrap();
    }

    /// Sequences 0 to `count` of each session.
    pub fn fill(&self, tenant: &str, sessions: &[&str], count: u64) {
        for sequence in 0..count {
            for session in sessions {
                self.put(tenant, session, sequence);
            }
        }
    }

    /// The engine's configuration no longer names it; its chunks are in the store.
    pub fn forget_tenant(&mut self, name: &str) {
        let number = self.tenants.iter().position(|t| t.as_str() == name);
        self.tenants.remove(number.unwrap());
    }

    fn lane(&self, tenant: &TenantId, slot: &Arc<Slot>) -> LaneSettings {
        LaneSettings {
            target: Arc::new(Target {
                tenant: tenant.clone(),
                api_url: "https://api.test".into(),
                path: "/recordings".into(),
                receipt: ReceiptPolicy::Body,
            }),
            token: slot.clone(),
            platform: self.platform.clone(),
            concurrency: self.concurrency,
            fallback: None,
            max_retries: LaneSettings::MAX_RETRIES,
            min_retry_span: LaneSettings::MIN_RETRY_SPAN,
            gap_wait: LaneSettings::GAP_WAIT,
            on_dead: self.on_dead,
            group: self.group,
            requests_per_minute: None,
        }
    }

    pub async fn start(&mut self) {
        self.start_with(Sabotaged::NONE).await;
    }

    pub async fn start_with(&mut self, sabotaged: Sabotaged) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let chance = Arc::new(Chance::seeded(self.seed));
        let slot = |grant: &Arc<ScriptedGrant>| {
            let (clock, chance) = (clock.clone(), chance.clone());
            Arc::new(Slot::new(grant.clone(), Rules::default(), clock, chance))
        };
        let lanes = self.tenants.iter().zip(&self.grants);
        let lanes = lanes.map(|(tenant, grant)| self.lane(tenant, &slot(grant)));
        let deps = EngineDeps {
            store: self.store().clone(),
            lanes: lanes.collect(),
            clock: clock.clone(),
            chance: chance.clone(),
            settings: Settings {
                workers: self.workers,
                bytes: Settings::BYTES,
                only: None,
                // A day of virtual time has 28,800 of the usual ones.
                index_watch: HOUR,
                sabotaged,
            },
        };
        self.engine = Some(Engine::start(deps).await);
    }

    /// Stops the engine, closes the store and opens it again.
    pub async fn restart(&mut self) {
        self.stop(Duration::from_secs(5)).await;
        self.reopen();
        self.start().await;
    }

    /// Ends like a killed process, and starts again.
    pub async fn kill(&mut self) {
        self.stop(Duration::ZERO).await;
        // What the disk has now is what a killed process leaves; the store itself has threads to end.
        let left = tempfile::tempdir().unwrap();
        copy_whole(self.dir.path(), left.path());
        self.store.take().unwrap().close().unwrap();
        self.dir = left;
        self.open();
        self.start().await;
    }

    /// Flips a bit of a stored payload that [`Stage::put`] wrote.
    pub fn damage(&self, key: &ChunkKey) {
        let payload = format!("{key}").into_bytes();
        for entry in std::fs::read_dir(self.dir.path().join("segments")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(payload.len())
                .position(|part| part == payload);
            if let Some(at) = found {
                bytes[at] ^= 1;
                // In place: the store has the file open.
                let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all(&bytes).unwrap();
                return;
            }
        }
        panic!("{key} is not stored");
    }

    /// Closes the store and opens it again.
    pub fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.open();
    }

    pub async fn stop(&mut self, grace: Duration) -> End {
        let engine = self.engine.take().unwrap();
        engine.stop(grace).await
    }

    pub async fn drain(&self) -> DrainReport {
        self.drain_with(None, DrainSettings::PATIENCE).await
    }

    pub async fn drain_with(&self, timeout: Option<Duration>, patience: Duration) -> DrainReport {
        let settings = DrainSettings {
            tenants: None,
            timeout,
            patience,
        };
        let progress = tokio::sync::watch::Sender::new(DrainProgress::default());
        self.engine().drain(settings, &progress).await
    }

    /// Sequences that the platform stored, in the order of their arrival.
    pub fn stored(&self, tenant: &str, session: &str) -> Vec<u64> {
        let ledger = self.platform.ledger.lock().unwrap();
        let session = (tenant.to_owned(), session.to_owned());
        ledger.stored.get(&session).cloned().unwrap_or_default()
    }

    /// How many chunks of the sessions `s0`, `s1` and so on were stored, each session's from its first without a hole.
    pub fn prefixes(&self, tenant: &str, sessions: u64) -> u64 {
        let counts = (0..sessions).map(|session| {
            let stored = self.stored(tenant, &format!("s{session}"));
            let count = stored.len() as u64;
            assert!(
                stored.iter().copied().eq(0..count),
                "s{session}: {stored:?}"
            );
            count
        });
        counts.sum()
    }

    /// Parts that the platform got although it had stored them.
    pub fn duplicates(&self) -> u64 {
        self.platform.ledger.lock().unwrap().duplicates
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.platform.ledger.lock().unwrap().requests.clone()
    }

    /// Since the stage was set.
    pub fn platform_time(&self) -> Duration {
        self.platform.started.elapsed()
    }

    pub fn most_on_the_wire(&self) -> usize {
        self.platform.ledger.lock().unwrap().most_on_the_wire
    }

    pub fn dead(&self) -> Vec<DeadLetter> {
        self.store().dead(&DeadFilter::default()).unwrap()
    }

    /// What the platform is still owed.
    pub fn left(&self) -> Count {
        let view = self.store().view();
        let mut left = Count::default();
        for (_, counts) in view.tenants {
            left.add(counts.live);
        }
        left
    }

    /// Counted failures of the next chunk of a session.
    pub fn counted(&self, tenant: &str, session: &str) -> u32 {
        let head = self.store().head(&key(tenant, session, 0).session_key());
        head.unwrap().map_or(0, |head| head.failures)
    }

    pub fn gate(&self, tenant: &str) -> GateState {
        self.engine().lanes()[&tenant.parse::<TenantId>().unwrap()]
            .gate
            .state
    }
}

/// Every file below, with what changes when it is written or replaced.
fn listed(below: &Path) -> std::io::Result<Vec<(PathBuf, u64, u64, SystemTime)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(below)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            files.extend(listed(&entry.path())?);
        } else if about.is_file() {
            files.push((entry.path(), about.ino(), about.len(), about.modified()?));
        }
    }
    files.sort();
    Ok(files)
}

/// What stood there at one moment, although the store's own threads write meanwhile: copied until nothing changed.
fn copy_whole(from: &Path, to: &Path) {
    loop {
        std::fs::remove_dir_all(to).unwrap();
        let before = listed(from);
        let copied = copy_dir(from, to);
        match (before, listed(from), copied) {
            (Ok(before), Ok(after), Ok(())) if before == after => return,
            _ => std::thread::yield_now(),
        }
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

pub fn key(tenant: &str, session: &str, sequence: u64) -> ChunkKey {
    let SessionKey { tenant, session } = SessionKey {
        tenant: tenant.parse().unwrap(),
        session: session.parse().unwrap(),
    };
    ChunkKey {
        tenant,
        session,
        sequence,
    }
}

/// Virtual time passes, and everything that is due in it happens.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
