//! What the handlers share: the world behind its lock, the fault script, the holds and the way out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fault::{Action, Phase, Script, Subject};
use super::world::World;

#[derive(Debug)]
pub(super) struct App {
    world: Mutex<World>,
    script: Mutex<Script>,
    started: Instant,
    pub(super) stop: CancellationToken,
    /// Counts releases; what waits is released by the next one.
    releases: watch::Sender<u64>,
    held: watch::Sender<BTreeMap<u64, Value>>,
    pub(super) body_bytes_max: u64,
}

impl App {
    pub(super) fn new(world: World, script: Script, body_bytes_max: u64) -> Self {
        Self {
            world: Mutex::new(world),
            script: Mutex::new(script),
            started: Instant::now(),
            stop: CancellationToken::new(),
            releases: watch::Sender::new(0),
            held: watch::Sender::new(BTreeMap::new()),
            body_bytes_max,
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no holder of the world panics")
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no holder of the script panics")
    }

    /// Since the emulator's start, on a clock that never jumps.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn pick(&self, phase: Phase, subject: Subject<'_>) -> Option<Action> {
        let action = self.script().pick(phase, subject, self.now());
        if action.is_some() {
            self.world().counters(subject.tenant).faults += 1;
        }
        action
    }

    /// Waits for the next release, or for the emulator's end. Cancel safe: a dropped wait is no longer listed.
    pub(super) async fn hold(&self, subject: Subject<'_>) {
        let mut released = self.releases.subscribe();
        let _listed = Listed::new(&self.held, subject);
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = released.changed() => {}
        }
    }

    pub(super) fn release(&self) -> usize {
        let count = self.held.borrow().len();
        self.releases.send_modify(|releases| *releases += 1);
        count
    }

    /// What is held, as soon as that is at least `count` requests or `within` has passed.
    pub(super) async fn held(&self, count: usize, within: Duration) -> Value {
        let mut held = self.held.subscribe();
        let enough = held.wait_for(|held| held.len() >= count);
        let _ = tokio::time::timeout(within, enough).await;
        let list: Vec<Value> = self.held.borrow().values().cloned().collect();
        json!({"held": list.len(), "requests": list})
    }

    pub(super) async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }
}

/// A held request's entry in the list, for as long as it is held.
struct Listed<'a> {
    held: &'a watch::Sender<BTreeMap<u64, Value>>,
    id: u64,
}

impl<'a> Listed<'a> {
    fn new(held: &'a watch::Sender<BTreeMap<u64, Value>>, subject: Subject<'_>) -> Self {
        let mut id = 0;
        held.send_modify(|held| {
            id = held.last_key_value().map_or(0, |(last, _)| last + 1);
            held.insert(
                id,
                json!({"tenant": subject.tenant, "session": subject.session, "sequence": subject.sequences.map(|(first, _)| first)}),
            );
        });
        Self { held, id }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.held.send_modify(|held| drop(held.remove(&self.id)));
    }
}

/// The mark of a request that is being worked on; gone when it is dropped.
pub(super) struct InProgress {
    app: Arc<App>,
    tenant: String,
    key: String,
}

impl InProgress {
    /// `None` if a request with this key is under way.
    pub(super) fn begin(app: &Arc<App>, tenant: &str, key: &str) -> Option<Self> {
        let fresh = app
            .world()
            .tenants
            .get_mut(tenant)?
            .in_progress
            .insert(key.to_owned());
        fresh.then(|| Self {
            app: Arc::clone(app),
            tenant: tenant.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(tenant) = self.app.world().tenants.get_mut(&self.tenant) {
            tenant.in_progress.remove(&self.key);
        }
    }
}

/// Milliseconds after the Unix epoch.
pub(super) fn wall_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Seconds after the Unix epoch, for the one header dialect that tells a date.
pub(super) fn wall_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
