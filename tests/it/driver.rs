//! A process that works on a store until somebody takes its disk or its life, and says what it was promised. The
//! fault tests start it: this test binary once more, told by its environment what to do.
//!
//! Every line begins with `~`. What is about to be tried is said before it is tried; a yes is said after it came.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use reelay::clock::SystemClock;
use reelay::model::{ChunkKey, DeadReason, SessionKey, Timestamp};
use reelay::sabotage::{Sabotaged, stop_at};
use reelay::store::{
    DeadFilter, EnqueueError, Lease, NewChunk, Outcome, SequenceChoice, SessionFilter, Settings,
    Store,
};

use crate::support::rig::write_block;
use crate::support::{Process, payload};

/// Each is one recording, taken in by a producer of its own.
const SESSIONS: [(&str, &str); 3] = [("acme", "s0"), ("acme", "s1"), ("globex", "s2")];
/// Producers wait while more is owed.
const BACKLOG: i64 = 150;
/// What the exact kills count.
const CYCLE: u64 = 6;

const JOB: &str = "REELAY_DRIVER";
const STORE: &str = "REELAY_DRIVER_STORE";
const SEED: &str = "REELAY_DRIVER_SEED";
const MARKER: &str = "REELAY_DRIVER_MARKER";

/// What a driver is to do.
pub struct Job<'a> {
    /// `work`: for ever. `take_in`: without settling anything. `verify`: look, deliver all, close. `cycle`: a line on
    /// standard input, then one of everything.
    pub job: &'a str,
    pub store: &'a Path,
    pub seed: u64,
    pub sabotage: &'a str,
    pub stop_at: &'a str,
    /// A device and the offset of a block there that tells how much was said, and how much that is already.
    pub marker: Option<(&'a Path, u64, usize)>,
}

impl Job<'_> {
    pub fn command(&self) -> std::process::Command {
        let binary = std::env::current_exe().expect("this test's binary");
        let mut command = std::process::Command::new(binary);
        command
            .args(["--exact", "--nocapture", "driver::a_driver_does_its_job"])
            .env(JOB, self.job)
            .env(STORE, self.store)
            .env(SEED, self.seed.to_string())
            .env("REELAY_SABOTAGE", self.sabotage)
            .env("REELAY_STOP_AT", self.stop_at);
        if let Some((device, offset, said)) = self.marker {
            command.env(MARKER, format!("{}:{offset}:{said}", device.display()));
        }
        command
    }

    pub fn start(&self) -> Process {
        Process::start(&mut self.command())
    }
}

/// Nothing, unless a fault test started this process for it.
#[test]
fn a_driver_does_its_job() {
    let Ok(job) = std::env::var(JOB) else { return };
    let told = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name}"));
    let mut said = 0;
    let marker = std::env::var(MARKER).ok().map(|text| {
        let words: Vec<&str> = text.split(':').collect();
        said = words[2].parse().expect("a count");
        (words[0].to_owned(), words[1].parse().expect("an offset"))
    });
    let dir = told(STORE);
    let store = Store::open(Path::new(&dir), settings(), Arc::new(SystemClock)).expect("it opens");
    let driver = Driver {
        owed: AtomicI64::new(0),
        said: Mutex::new(said),
        marker,
        store,
    };
    driver.report();
    let mut random = Rng::with_seed(told(SEED).parse().expect("a seed"));
    match job.as_str() {
        "work" => driver.work(&mut random, true),
        "take_in" => driver.work(&mut random, false),
        "verify" => driver.verify(),
        "cycle" => driver.cycle(&mut random),
        other => panic!("no job {other}"),
    }
}

fn settings() -> Settings {
    let mut tenants = SESSIONS.map(|(tenant, _)| tenant.parse().unwrap()).to_vec();
    tenants.dedup();
    Settings {
        segment_bytes: 1 << 20,
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        max_chunk_bytes: 16 << 20,
        remember: Duration::from_secs(86_400),
        tenants,
        host: "rec-1".parse().unwrap(),
        sabotaged: Sabotaged::from_env(),
    }
}

/// What follows from a chunk's name. One in thirteen is too large to stand among the frames of a small segment.
fn content(session: &str, sequence: u64) -> Vec<u8> {
    let name = format!("{session}/{sequence}");
    let draw = crc32fast::hash(name.as_bytes()) as usize;
    let bytes = match draw % 13 {
        0 => 230_000,
        1..4 => 60_000,
        _ => 1 + draw % 20_000,
    };
    payload(&name, bytes)
}

struct Driver {
    store: Store,
    owed: AtomicI64,
    said: Mutex<u64>,
    marker: Option<(String, u64)>,
}

impl Driver {
    fn say(&self, fact: &str) {
        let mut said = self.said.lock().expect("no holder panics");
        *said += 1;
        println!("~ {fact}");
        if let Some((device, offset)) = &self.marker {
            let content = format!("marker {said:09}");
            // When the disk is gone there is nothing left to mark.
            let _ = write_block(Path::new(device), *offset, content.as_bytes());
        }
    }

    fn say_of(&self, verb: &str, key: &ChunkKey) {
        self.say(&format!("{verb} {} {}", key.session, key.sequence));
    }

    /// All that the store knows.
    fn report(&self) {
        let filter = SessionFilter {
            limit: 1000,
            ..SessionFilter::default()
        };
        for session in self.store.sessions(&filter).sessions {
            let name = &session.key.session;
            for (low, high) in session.accepted {
                self.say(&format!("= accepted {name} {low} {high}"));
            }
            let owed = self.store.owed_of(&session.key).expect("the index answers");
            for (low, high) in owed {
                self.say(&format!("= owed {name} {low} {high}"));
            }
            self.owed.fetch_add(session.owed as i64, Ordering::Relaxed);
        }
        for letter in self.store.dead(&DeadFilter::default()).expect("it answers") {
            let ChunkKey {
                session, sequence, ..
            } = letter.key;
            self.say(&format!("= dead {session} {sequence} {sequence}"));
        }
        let checked = self.store.fsck().expect("everything is read");
        for damage in checked.damaged {
            self.say(&format!("= damaged {damage:?}"));
        }
        let balance = serde_json::to_string(&checked.balance).expect("plain data");
        self.say(&format!("= balance {balance}"));
        self.say("= end");
    }

    fn work(&self, random: &mut Rng, settling: bool) {
        std::thread::scope(|scope| {
            for (tenant, session) in SESSIONS {
                scope.spawn(move || self.produce(tenant, session, u64::MAX));
            }
            if !settling {
                return;
            }
            loop {
                for (tenant, session) in SESSIONS {
                    self.settle_one(&key_of(tenant, session), random);
                }
                self.turn_dead_letters(random);
            }
        });
    }

    /// Chunk after chunk, each until it is accepted.
    fn produce(&self, tenant: &str, session: &str, count: u64) {
        let filter = SessionFilter {
            session: Some(session.parse().unwrap()),
            limit: 1,
            ..SessionFilter::default()
        };
        let known = self.store.sessions(&filter).sessions;
        let highest = known
            .first()
            .and_then(|found| found.accepted.last().map(|(_, high)| *high));
        if let Some(highest) = highest {
            self.offer_again(tenant, session, highest);
        }
        let first = highest.map_or(0, |highest| highest + 1);
        for sequence in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
            while self.owed.load(Ordering::Relaxed) > BACKLOG {
                std::thread::sleep(Duration::from_millis(1));
            }
            while !self.offer(tenant, session, sequence) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn enqueue(&self, tenant: &str, session: &str, sequence: u64) -> Result<Outcome, EnqueueError> {
        let chunk = NewChunk {
            tenant: tenant.parse().unwrap(),
            session: session.parse().unwrap(),
            sequence: SequenceChoice::Exactly(sequence),
            started_at: Timestamp(1_772_359_200_000),
            duration_ms: 30_000,
            media_type: "video/mp4".into(),
            last: false,
            length: None,
        };
        let content = content(session, sequence);
        let answer = self.store.enqueue(chunk, &mut content.as_slice());
        answer.map(|enqueued| enqueued.outcome)
    }

    /// Whether the next chunk may follow.
    fn offer(&self, tenant: &str, session: &str, sequence: u64) -> bool {
        self.say(&format!("offer {session} {sequence}"));
        match self.enqueue(tenant, session, sequence) {
            Ok(outcome) => {
                if outcome == Outcome::Accepted {
                    self.owed.fetch_add(1, Ordering::Relaxed);
                }
                self.say(&format!("yes {session} {sequence}"));
                true
            }
            // What became of an earlier try is not known any more.
            Err(EnqueueError::CannotTell { .. }) => true,
            Err(error) => {
                self.say(&format!("refused {session} {sequence} {error}"));
                false
            }
        }
    }

    /// A chunk that is there is not accepted a second time.
    fn offer_again(&self, tenant: &str, session: &str, sequence: u64) {
        if let Ok(Outcome::Accepted) = self.enqueue(tenant, session, sequence) {
            self.say(&format!("twice {session} {sequence}"));
        }
    }

    fn settle_one(&self, session: &SessionKey, random: &mut Rng) {
        let Ok(Some(lease)) = self.store.lease(session) else {
            return;
        };
        match random.u32(0..12) {
            0 => drop(lease.release()),
            1 => {
                let key = lease.meta().key.clone();
                self.say_of("bury?", &key);
                if lease.bury(DeadReason::Rejected, None).is_ok() {
                    self.owed.fetch_sub(1, Ordering::Relaxed);
                    self.say_of("buried", &key);
                }
            }
            _ => self.deliver(lease),
        }
    }

    /// Reads the payload, as a sender does, and acknowledges it.
    fn deliver(&self, mut lease: Lease) {
        let key = lease.meta().key.clone();
        if lease.sending().is_err() {
            return;
        }
        let mut bytes = Vec::new();
        let read = lease
            .payload()
            .and_then(|mut reader| reader.read_to_end(&mut bytes));
        if read.is_err() {
            self.say_of("unreadable", &key);
            return;
        }
        if bytes != content(key.session.as_str(), key.sequence) {
            self.say_of("wrong", &key);
        }
        self.say_of("ack?", &key);
        if lease.ack().is_ok() {
            self.owed.fetch_sub(1, Ordering::Relaxed);
            self.say_of("acked", &key);
            stop_at("acked");
        }
    }

    fn turn_dead_letters(&self, random: &mut Rng) {
        let dead = self.store.dead(&DeadFilter::default()).unwrap_or_default();
        if dead.len() <= 3 {
            return;
        }
        let key = &dead[random.usize(..dead.len())].key;
        if random.bool() {
            self.say_of("redrive?", key);
            if self.store.redrive(key).is_ok() {
                self.owed.fetch_add(1, Ordering::Relaxed);
                self.say_of("redriven", key);
            }
        } else {
            self.say_of("purge?", key);
            if self.store.purge(key).is_ok() {
                self.say_of("purged", key);
            }
        }
    }

    /// Delivers everything, and closes.
    fn verify(self) {
        let mut sessions: BTreeMap<&str, &str> = BTreeMap::new();
        sessions.extend(SESSIONS.map(|(tenant, session)| (session, tenant)));
        for (session, tenant) in sessions {
            let key = key_of(tenant, session);
            while let Some(lease) = self.store.lease(&key).expect("the index answers") {
                self.deliver(lease);
            }
        }
        self.report();
        self.store.clone().close().expect("it closes");
        self.say("done");
    }

    /// Enough to fill a segment and have it go: enqueue, settle in every way, reclaim at the close.
    fn cycle(self, random: &mut Rng) {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("a line");
        let (tenant, session) = SESSIONS[random.usize(..SESSIONS.len())];
        self.produce(tenant, session, CYCLE);
        let key = key_of(tenant, session);
        let mut count = 0;
        while let Some(lease) = self.store.lease(&key).expect("the index answers") {
            count += 1;
            if count == 2 {
                let key = lease.meta().key.clone();
                self.say_of("bury?", &key);
                lease
                    .bury(DeadReason::Rejected, None)
                    .expect("it is buried");
                self.say_of("buried", &key);
                self.say_of("purge?", &key);
                self.store.purge(&key).expect("it is purged");
                self.say_of("purged", &key);
            } else {
                self.deliver(lease);
            }
        }
        self.store.clone().close().expect("it closes");
        self.say("done");
        std::io::stdout().flush().expect("somebody listens");
    }
}

fn key_of(tenant: &str, session: &str) -> SessionKey {
    SessionKey {
        tenant: tenant.parse().unwrap(),
        session: session.parse().unwrap(),
    }
}
