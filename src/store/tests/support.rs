//! A store in a temporary directory, and chunks whose bytes follow from their names.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::model::{ChunkKey, FailureClass, FailureRecord, SessionKey, Timestamp};
use crate::sabotage::Sabotaged;
use crate::store::{EnqueueError, Enqueued, NewChunk, SequenceChoice, Settings, Store};

pub struct Fixture {
    dir: tempfile::TempDir,
}

impl Store {
    /// Ends the threads and gives the lock back without any of what [`Self::close`] writes.
    pub(in crate::store) fn abandon(self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.commits.close();
        self.inner.keeper.1.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock().unwrap()) {
            thread.join().unwrap();
        }
        // sled must be dropped before its directory is opened again in this process; its mark stays "in use".
        let _ = self.inner.index.close(0);
        self.inner.lock.unlock().unwrap();
    }
}

pub fn settings() -> Settings {
    Settings {
        segment_bytes: 1 << 20,
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        max_chunk_bytes: 64 << 20,
        remember: Duration::from_secs(7 * 86_400),
        tenants: vec!["acme".parse().unwrap(), "globex".parse().unwrap()],
        host: "rec-017".parse().unwrap(),
        sabotaged: Sabotaged::NONE,
    }
}

pub fn new_chunk(tenant: &str, session: &str, sequence: SequenceChoice) -> NewChunk {
    NewChunk {
        tenant: tenant.parse().unwrap(),
        session: session.parse().unwrap(),
        sequence,
        started_at: Timestamp(1_772_359_200_000),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        length: None,
    }
}

pub fn session(name: &str) -> SessionKey {
    SessionKey {
        tenant: "acme".parse().unwrap(),
        session: name.parse().unwrap(),
    }
}

pub fn key(session: &str, sequence: u64) -> ChunkKey {
    ChunkKey {
        tenant: "acme".parse().unwrap(),
        session: session.parse().unwrap(),
        sequence,
    }
}

/// A few hundred to a few thousand bytes that name their chunk.
pub fn payload_of(session: &str, sequence: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(sequence * 31 + session.len() as u64);
    let mut bytes = format!("{session}/{sequence}:").into_bytes();
    bytes.extend((0..random.usize(100..3000)).map(|_| random.u8(..)));
    bytes
}

pub fn failure(status: u16) -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class: FailureClass::Transient,
        status: Some(status),
        code: None,
        correlation_id: None,
        fields: vec![],
        missing: None,
        message: "no".into(),
        body: String::new(),
        token_generation: Some(1),
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}

impl Fixture {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn open(&self) -> Store {
        self.open_with(settings())
    }

    pub fn open_with(&self, settings: Settings) -> Store {
        Store::open(self.dir(), settings, Arc::new(SystemClock)).unwrap()
    }

    /// Ends the store as a killed process would, but for the lock, which the kernel would release.
    pub fn abandon(&self, store: Store) {
        store.abandon();
    }

    pub fn put(
        &self,
        store: &Store,
        session: &str,
        sequence: u64,
    ) -> Result<Enqueued, EnqueueError> {
        let payload = payload_of(session, sequence);
        self.put_bytes(store, session, SequenceChoice::Exactly(sequence), &payload)
    }

    pub fn put_next(
        &self,
        store: &Store,
        session: &str,
        payload: &[u8],
    ) -> Result<Enqueued, EnqueueError> {
        self.put_bytes(
            store,
            session,
            SequenceChoice::Next {
                refuse_repeat: true,
            },
            payload,
        )
    }

    pub fn put_bytes(
        &self,
        store: &Store,
        session: &str,
        sequence: SequenceChoice,
        mut payload: &[u8],
    ) -> Result<Enqueued, EnqueueError> {
        store.enqueue(new_chunk("acme", session, sequence), &mut payload)
    }
}

/// Leases and acknowledges everything of a session of acme.
pub fn drain(store: &Store, name: &str) -> Vec<(u64, Vec<u8>)> {
    let mut delivered = Vec::new();
    while let Some(mut lease) = store.lease(&session(name)).unwrap() {
        let mut bytes = Vec::new();
        lease.sending().unwrap();
        lease.payload().unwrap().read_to_end(&mut bytes).unwrap();
        delivered.push((lease.meta().key.sequence, bytes));
        lease.ack().unwrap();
    }
    delivered
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The seed of a random test: the environment's, or a fresh one. The test prints it.
pub fn seed() -> u64 {
    let given = std::env::var("REELAY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 40))
}
