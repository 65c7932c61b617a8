//! Many producers and few syncs: whoever writes, syncs and answers, nobody is left waiting and nothing accepted is lost.

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::support::{Fixture, new_chunk, payload_of, seed, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::sabotage::{Sabotage, Sabotaged};
use crate::store::header::SegmentHeader;
use crate::store::inner::{Book, SegmentSlot};
use crate::store::layout::SegmentId;
use crate::store::ledger::Ledger;
use crate::store::segment::Segment;
use crate::store::{EnqueueError, SequenceChoice, Settings, Store, roll};

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(120);
const EACH: u64 = 12;

fn open_on(dir: &Path, disk: Arc<dyn Disk>, sabotaged: Sabotaged) -> Store {
    let settings = Settings {
        sabotaged,
        ..settings()
    };
    Store::open_on(dir, settings, Arc::new(SystemClock), disk).unwrap()
}

/// So many producers at once, each with a session of its own and pauses of its own, each trying again until it is
/// accepted.
fn produce(store: &Store, producers: u64, seed: u64) {
    let (done, ended) = mpsc::channel();
    for producer in 0..producers {
        let (store, done) = (store.clone(), done.clone());
        std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed ^ producer);
            for sequence in 0..EACH {
                let name = format!("s{producer}");
                let payload = payload_of(&name, sequence);
                loop {
                    let chunk = new_chunk("acme", &name, SequenceChoice::Exactly(sequence));
                    match store.enqueue(chunk, &mut payload.as_slice()) {
                        Ok(_) => break,
                        Err(EnqueueError::Latched(_) | EnqueueError::Io(_)) => {
                            std::thread::yield_now();
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                if random.bool() {
                    std::thread::sleep(Duration::from_micros(random.u64(..300)));
                }
            }
            let _ = done.send(());
        });
    }
    for _ in 0..producers {
        let answer = ended.recv_timeout(PATIENCE);
        answer.unwrap_or_else(|_| panic!("a producer waits for ever, seed {seed}"));
    }
}

/// Chunks of a session that can be delivered as they were given, up to the first that cannot.
fn intact(store: &Store, name: &str) -> usize {
    let mut found = 0;
    while let Some(mut lease) = store.lease(&session(name)).unwrap() {
        let mut bytes = Vec::new();
        lease.sending().unwrap();
        let payload = lease.payload().unwrap().read_to_end(&mut bytes);
        if payload.is_err() || bytes != payload_of(name, lease.meta().key.sequence) {
            break;
        }
        lease.ack().unwrap();
        found += 1;
    }
    found
}

/// Chunks that were accepted and are gone after syncs that failed and a power cut.
fn lost(producers: u64, seed: u64, sabotaged: Sabotaged) -> u64 {
    let (disk, dir) = (SimulatedDisk::new(seed), tempfile::tempdir().unwrap());
    let store = open_on(dir.path(), Arc::new(disk.clone()), sabotaged);
    let working = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..random.u32(..3) {
                std::thread::sleep(Duration::from_millis(random.u64(..4)));
                if working.load(Ordering::Relaxed) {
                    disk.fail_next_syncs(1);
                }
            }
        });
        produce(&store, producers, seed);
        working.store(false, Ordering::Relaxed);
    });
    store.abandon();
    disk.fail_next_syncs(0);
    disk.restart_after_power_cut();
    let store = open_on(dir.path(), Arc::new(disk), Sabotaged::NONE);
    let kept: usize = (0..producers)
        .map(|producer| intact(&store, &format!("s{producer}")))
        .sum();
    producers * EACH - kept as u64
}

#[test]
fn every_producer_is_answered_and_keeps_its_chunks_whoever_made_the_sync() {
    let seed = seed();
    println!("REELAY_SEED={seed}");
    for round in 0..24 {
        let producers = 1 + round % 6;
        assert_eq!(
            lost(producers, seed ^ round, Sabotaged::NONE),
            0,
            "seed {seed}, round {round}"
        );
    }
}

#[test]
fn an_answer_before_the_sync_would_be_noticed_here_too() {
    for sabotage in [
        Sabotage::SkipSync,
        Sabotage::AckBeforeSync,
        Sabotage::TrustFailedSync,
    ] {
        let found =
            (0..200).any(|seed| lost(1 + seed % 3, seed, Sabotaged::NONE.with(sabotage)) > 0);
        assert!(found, "{sabotage:?}");
    }
}

/// A disk whose driver goes mad when it is told to.
struct Mad(Arc<AtomicBool>);

struct MadFile(Arc<dyn DiskFile>, Arc<AtomicBool>);

impl DiskFile for MadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_at(parts, offset)
    }
    fn sync(&self) -> io::Result<()> {
        assert!(!self.1.load(Ordering::Relaxed), "a sync that panics");
        self.0.sync()
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

impl Disk for Mad {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.create(path)?;
        Ok(Arc::new(MadFile(file, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

#[test]
fn a_panic_while_a_chunk_is_synced_leaves_no_producer_waiting() {
    for producers in [1, 4] {
        let (mad, dir) = (
            Arc::new(AtomicBool::new(false)),
            tempfile::tempdir().unwrap(),
        );
        let store = open_on(dir.path(), Arc::new(Mad(Arc::clone(&mad))), Sabotaged::NONE);
        produce(&store, producers, 0);
        mad.store(true, Ordering::Relaxed);
        let (told, answers) = mpsc::channel();
        for producer in 0..producers {
            let (store, told) = (store.clone(), told.clone());
            std::thread::spawn(move || {
                let chunk = new_chunk("acme", &format!("t{producer}"), SequenceChoice::Exactly(0));
                let answer = store.enqueue(chunk, &mut b"bytes".as_slice());
                drop(told.send(answer.map(drop)));
            });
        }
        for _ in 0..producers {
            let answer = answers.recv_timeout(PATIENCE).expect("an answer");
            assert!(matches!(answer, Err(EnqueueError::Closing)), "{answer:?}");
        }
        let began = std::time::Instant::now();
        while store.index_lost().is_none() {
            assert!(began.elapsed() < PATIENCE, "the process is about to end");
            std::thread::yield_now();
        }
        let (told, closed) = mpsc::channel();
        std::thread::spawn(move || told.send(store.close().is_err()));
        let failed = closed.recv_timeout(PATIENCE).expect("every thread ends");
        assert!(failed, "and none of them in order");
    }
}

/// Where a segment began while the ledger was written, the ledger told its end: an opening after a kill would have cut
/// off what was accepted into it.
#[test]
fn no_ledger_tells_the_end_of_a_segment_that_began_meanwhile() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    let inner = &store.inner;
    let (former, id) = (SegmentId(1), SegmentId(2));
    let header = SegmentHeader {
        id,
        segment_bytes: inner.settings.segment_bytes,
        nonce: 7,
        predecessor: None,
    };
    let segment = Segment::create(&inner.disk, &inner.segments_dir(), &header).unwrap();
    let segment = segment.publish(&inner.segments_dir()).unwrap();
    let slot = Arc::new(SegmentSlot::new(segment, Book::default()));
    std::thread::scope(|scope| {
        let ledger = inner.ledger.lock().unwrap();
        let writing = scope.spawn(|| roll::write_ledger(inner));
        // It has begun, and waits for the ledger.
        let began = std::time::Instant::now();
        while inner.ledger_writing.try_lock().is_ok() {
            assert!(began.elapsed() < PATIENCE, "nobody writes a ledger");
            std::thread::yield_now();
        }
        (0..1000).for_each(|_| std::thread::yield_now());
        let mut segments = inner.segments.write().unwrap();
        *inner.active.lock().unwrap() = Some(id);
        segments.insert(id, slot);
        drop((segments, ledger));
        writing.join().unwrap().unwrap();
    });
    let closed = inner.ledger.lock().unwrap().closed.clone();
    assert!(closed.contains_key(&former));
    assert!(!closed.contains_key(&id), "{closed:?}");
}

#[test]
fn the_ledger_of_a_segment_that_began_is_written_while_nobody_waits_for_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in 0..8 {
        let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
        store.enqueue(chunk, &mut [7; 150_000].as_slice()).unwrap();
    }
    let began = std::time::Instant::now();
    loop {
        let found = Ledger::read(&RealDisk, fixture.dir()).unwrap();
        if !found.ledger.closed.is_empty() {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "no ledger tells of a second segment"
        );
        std::thread::yield_now();
    }
}
