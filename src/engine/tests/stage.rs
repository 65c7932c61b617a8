//! A store in a temporary directory, an engine on it, a platform that follows a script and keeps a ledger, and a
//! token endpoint that can be told to fail. Slots are the real ones.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;

use crate::auth::{About, Grant, MintFailure, Minted, Minting, Refusal, Rules, Slot};
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
    pub sequence: u64,
    pub attempt: u32,
    pub late: bool,
    pub gaps: Vec<Gap>,
    pub token: String,
    /// Since the stage was set.
    pub at: Duration,
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
    on_the_wire: Vec<(String, String)>,
    most_on_the_wire: usize,
}

pub struct ScriptedPlatform {
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
    takes: Mutex<Duration>,
    limits: Mutex<Limits>,
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
        let duplicate = stored.contains(&seen.sequence);
        if !duplicate {
            stored.push(seen.sequence);
        }
        duplicate
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
            let part = &mut delivery.parts[0];
            let mut payload = Vec::new();
            part.payload.read_to_end(&mut payload).unwrap();
            assert_eq!(Digest::of(&payload), part.meta.digest);
            let key = &part.meta.key;
            let seen = Seen {
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
            tokio::time::sleep(takes).await;
            let seen = &on_the_wire.1;
            let reply = (self.script.lock().unwrap())(seen);
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
            Answer { verdict, limits }
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
}

impl Default for ScriptedGrant {
    fn default() -> Self {
        Self {
            minted: Mutex::default(),
            down: Mutex::default(),
            refusal: Mutex::default(),
            hangs: Mutex::default(),
            life: Mutex::new(HOUR),
        }
    }
}

impl Grant for ScriptedGrant {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async move {
            let hangs = *self.hangs.lock().unwrap();
            if hangs {
                std::future::pending::<()>().await;
            }
            if *self.down.lock().unwrap() {
                let cause = "connection refused".to_owned();
                return Err(MintFailure::Unreachable { cause });
            }
            if let Some(refusal) = self.refusal.lock().unwrap().clone() {
                return Err(MintFailure::Refused(refusal));
            }
            let mut minted = self.minted.lock().unwrap();
            *minted += 1;
            Ok(Minted {
                access_token: SecretString::from(format!("token-{minted:06}")),
                lifetime: *self.life.lock().unwrap(),
                scopes: None,
            })
        })
    }

    fn about(&self) -> About {
        About {
            endpoint: "https://login.test".into(),
            client_id: "5b1c9e".into(),
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
    pub seed: u64,
    pub store_defects: Sabotaged,
    store: Option<Store>,
    pub engine: Option<Engine>,
}

impl Stage {
    pub fn new(tenants: &[&str]) -> Self {
        let mut stage = Self::unopened(tenants);
        stage.open();
        stage
    }

    fn unopened(tenants: &[&str]) -> Self {
        let wall = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(JumpingClock {
                runtime: RuntimeClock::starting_at(wall),
                offset_ms: Mutex::new(0),
            }),
            platform: Arc::new(ScriptedPlatform {
                script: Mutex::new(Box::new(|_| Reply::Store)),
                ledger: Mutex::default(),
                takes: Mutex::new(Duration::from_millis(50)),
                limits: Mutex::default(),
                started: tokio::time::Instant::now(),
            }),
            grants: tenants.iter().map(|_| Arc::default()).collect(),
            tenants: tenants.iter().map(|name| name.parse().unwrap()).collect(),
            workers: 16,
            on_dead: OnDead::Skip,
            concurrency: 4,
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

    /// Accepts one chunk, and returns when the index knows it.
    pub fn put(&self, tenant: &str, session: &str, sequence: u64) {
        let key = key(tenant, session, sequence);
        self.accept(&key);
        // Answered behind the index's own news of the arrival.
        self.store().head(&key.session_key()).unwrap();
    }

    /// Accepts one chunk.
    pub fn accept(&self, key: &ChunkKey) {
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
        let payload = format!("{key}").into_bytes();
        self.store()
            .enqueue(chunk, &mut payload.as_slice())
            .unwrap();
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
            max_retries: LaneSettings::MAX_RETRIES,
            min_retry_span: LaneSettings::MIN_RETRY_SPAN,
            gap_wait: LaneSettings::GAP_WAIT,
            on_dead: self.on_dead,
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

    pub fn requests(&self) -> Vec<Seen> {
        self.platform.ledger.lock().unwrap().requests.clone()
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
