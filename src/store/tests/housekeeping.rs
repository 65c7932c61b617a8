//! What the store does by itself: finishing what a crash interrupted, giving space back, forgetting.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::{Fixture, drain, key, new_chunk, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::model::DeadReason;
use crate::store::header::SegmentHeader;
use crate::store::layout::{PAGE, SegmentId};
use crate::store::segment::Segment;
use crate::store::word::Word;
use crate::store::{EnqueueError, Outcome, SequenceChoice, Settings, Store, keeper};

fn open(dir: &Path, disk: &SimulatedDisk, settings: Settings) -> Store {
    let on = Arc::new(disk.clone());
    Store::open_on(dir, settings, Arc::new(SystemClock), on).unwrap()
}

fn put(store: &Store, sequence: u64, bytes: &[u8]) -> Result<Outcome, EnqueueError> {
    let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
    let mut bytes = bytes;
    store.enqueue(chunk, &mut bytes).map(|it| it.outcome)
}

/// Seen: the process ended between the commit of the replacement and the purge of what it replaces. Both stood in the
/// journal, and the next repeat was accepted as a replacement once more.
#[test]
fn a_purge_that_the_power_interrupted_is_finished_at_open() {
    let mut between = 0;
    for operations in 0..14 {
        let (disk, dir) = (SimulatedDisk::new(operations), tempfile::tempdir().unwrap());
        let store = open(dir.path(), &disk, settings());
        put(&store, 0, b"bytes").unwrap();
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        lease.bury(DeadReason::Damaged, None).unwrap();
        disk.cut_power_after(operations as u32);
        let answer = put(&store, 0, b"bytes");
        store.abandon();
        disk.restart_after_power_cut();
        for opening in 0..2 {
            let store = open(dir.path(), &disk, settings());
            let balance = store.view().balance;
            if balance.backlog > 0 {
                between += u32::from(opening == 0);
                assert_eq!((balance.dead, balance.purged), (0, 1), "{operations}");
            }
            assert!(balance.balanced, "{operations}: {balance:?}");
            let again = put(&store, 0, b"bytes").unwrap();
            if answer.is_ok() || opening > 0 {
                assert!(matches!(again, Outcome::Known(_)), "{operations}");
            }
            store.abandon();
        }
        let store = open(dir.path(), &disk, settings());
        assert_eq!(
            drain(&store, "s1"),
            [(0, b"bytes".to_vec())],
            "{operations}"
        );
        let balance = store.view().balance;
        let counts = (balance.enqueued, balance.delivered, balance.purged);
        assert_eq!(counts, (2, 1, 1), "{operations}");
    }
    assert!(between > 1, "no cut fell between replacement and purge");
}

/// Seen: a segment whose retirement met a failed ledger write left the map and stayed on the disk, and in the counter,
/// until the next start.
#[test]
fn a_segment_whose_ledger_was_not_written_goes_as_soon_as_one_is() {
    let (disk, dir) = (SimulatedDisk::new(1), tempfile::tempdir().unwrap());
    let store = open(dir.path(), &disk, settings());
    put(&store, 0, &[7; 100_000]).unwrap();
    drain(&store, "s1");
    store.abandon();
    let segments = || {
        let paths = disk.paths().into_iter();
        paths
            .filter(|path| path.extension().is_some_and(|it| it == "seg"))
            .count()
    };
    // Nobody appends to what a killed process left, so this opening has nothing but the segment that goes.
    let store = open(dir.path(), &disk, settings());
    for slot in store.inner.segments().values() {
        slot.segment.sync_words().unwrap();
    }
    disk.fail_next_syncs(1_000_000);
    while keeper::round(&store.inner).is_ok() {}
    assert!(segments() == 1 && store.view().used_bytes > 100_000);
    disk.fail_next_syncs(0);
    keeper::round(&store.inner).unwrap();
    assert_eq!((segments(), store.view().used_bytes), (0, 0));
    let balance = store.view().balance;
    assert_eq!((balance.delivered, balance.balanced), (1, true));
    store.close().unwrap();
    let again = open(dir.path(), &disk, settings()).view().balance;
    assert_eq!(again, balance);
}

/// Counts the files of another disk that are open.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
    /// What was begun when the last sync came.
    begun_before_sync: AtomicUsize,
}

struct Counted(Arc<dyn DiskFile>, Arc<Counts>);

impl Counting {
    fn counted(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let open = self.0.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most.fetch_max(open, Ordering::Relaxed);
        Arc::new(Counted(file, Arc::clone(&self.0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DiskFile for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_at(parts, offset)
    }
    fn begin_writing(&self, offset: u64, length: u64) {
        assert_eq!((offset % PAGE, length % PAGE), (0, 0), "whole pages");
        self.1.begun.fetch_add(length as usize, Ordering::SeqCst);
        self.0.begin_writing(offset, length);
    }
    fn sync(&self) -> io::Result<()> {
        let begun = self.1.begun.load(Ordering::SeqCst);
        self.1.begun_before_sync.store(begun, Ordering::SeqCst);
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

impl Disk for Counting {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(RealDisk.open(path)?))
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

/// Seen: an opening after a kill held every segment open at once, and a thousand are more than a process may have.
#[test]
fn an_opening_after_a_kill_needs_few_descriptors_whatever_the_number_of_segments() {
    const SEGMENTS: usize = 100;
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut sequence = 0;
    while store.inner.segments().len() < SEGMENTS {
        let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
        store.enqueue(chunk, &mut [7; 150_000].as_slice()).unwrap();
        sequence += 1;
    }
    // A dead letter is looked up at open.
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.bury(DeadReason::Rejected, None).unwrap();
    fixture.abandon(store);
    let disk = Counting::default();
    let few = |since: &str| {
        let most = disk.0.most.load(Ordering::Relaxed);
        assert!(most <= 72, "{since}: {most} files at once");
    };
    let on = Arc::new(disk.clone());
    let store = Store::open_on(fixture.dir(), settings(), Arc::new(SystemClock), on).unwrap();
    few("opening");
    keeper::round(&store.inner).unwrap();
    few("housekeeping");
    assert_eq!(drain(&store, "s1").len() as u64, sequence - 1);
    store.close().unwrap();
}

#[test]
fn the_disk_begins_with_whole_pages_of_a_commit_before_its_sync() {
    let fixture = Fixture::new();
    let disk = Counting::default();
    let on = Arc::new(disk.clone());
    let store = Store::open_on(fixture.dir(), settings(), Arc::new(SystemClock), on).unwrap();
    let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(0));
    store.enqueue(chunk, &mut [7; 150_000].as_slice()).unwrap();
    let end = store
        .inner
        .segments()
        .values()
        .next()
        .map(|slot| u64::from(slot.book().end) - slot.segment.layout.data_start());
    let begun = disk.0.begun_before_sync.load(Ordering::SeqCst) as u64;
    assert_eq!(Some(begun), end, "all that the commit wrote");
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(drain(&store, "s1").len(), 1);
}

/// Seen: damage found at open is buried by the first round of housekeeping; bytes that were given again before it were
/// accepted, and then the burial was written after all. After a kill the purged one counted as unreadable for ever.
#[test]
fn bytes_given_again_before_their_burial_is_written_are_not_buried_afterwards() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    let slot = store.inner.segments().values().next().cloned().unwrap();
    let (file, start) = (
        slot.segment.file().unwrap(),
        slot.segment.layout.data_start(),
    );
    store.close().unwrap();
    file.write_at(&[&[0; 64]], start).unwrap();
    let store = fixture.open();
    let owed = store.inner.burials_owed.lock().unwrap().len();
    assert_eq!(owed, 1, "the keeper was faster");
    let again = fixture.put(&store, "s1", 0).unwrap().outcome;
    assert_eq!(again, Outcome::Accepted);
    let counts = |store: &Store| {
        let it = store.view().balance;
        (it.backlog, it.dead, it.purged, it.balanced)
    };
    keeper::round(&store.inner).unwrap();
    assert_eq!(counts(&store), (1, 0, 1, true));
    fixture.abandon(store);
    let store = fixture.open();
    assert_eq!(counts(&store), (1, 0, 1, true));
    assert_eq!(drain(&store, "s1").len(), 1);
    store.close().unwrap();
    let store = fixture.open();
    assert!(store.inner.segments().is_empty());
    assert_eq!(counts(&store), (0, 0, 1, true));
}

#[test]
fn a_purge_that_could_not_be_written_is_tried_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.bury(DeadReason::Damaged, None).unwrap();
    store.inner.owe_purge(key("s1", 0));
    keeper::round(&store.inner).unwrap();
    let balance = store.view().balance;
    assert_eq!((balance.dead, balance.purged), (0, 1));
    assert!(store.inner.purges_owed.lock().unwrap().is_empty());
}

/// Seen: a segment stood in the map for a moment before it was the active one. Housekeeping took it for one that owes
/// nothing and unlinked it; what was accepted into it afterwards was lost.
#[test]
fn a_segment_that_has_just_begun_is_never_taken_for_one_that_is_done() {
    const CHUNKS: u64 = 150;
    let fixture = Fixture::new();
    let store = fixture.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                keeper::round(&store.inner).unwrap();
            }
        });
        for sequence in 0..CHUNKS {
            let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
            store.enqueue(chunk, &mut [7; 150_000].as_slice()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(drain(&store, "s1").len() as u64, CHUNKS);
}

/// The keeper took them for durable as soon as a sync had begun, and unlinked the payload file of a chunk whose word a
/// power cut then took back.
#[test]
fn words_are_not_called_durable_while_their_sync_is_under_way() {
    let disk = SimulatedDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = Path::new("/segments");
    shared.create_dir(dir).unwrap();
    let header = SegmentHeader {
        id: SegmentId(1),
        segment_bytes: 1 << 20,
        nonce: 7,
        predecessor: None,
    };
    let segment = Segment::create(&shared, dir, &header).unwrap();
    let segment = segment.publish(dir).unwrap();
    let other = dir.join("other");
    shared.create(&other).unwrap().sync().unwrap();
    segment.write_words(0, &[Word::new(16_384)]).unwrap();
    std::thread::scope(|scope| {
        // No sync ends while a file's content is looked at.
        disk.corrupt(&other, |_| {
            scope.spawn(|| segment.sync().unwrap());
            for _ in 0..10_000 {
                assert!(segment.has_unsynced_words());
                std::thread::yield_now();
            }
        });
    });
    assert!(!segment.has_unsynced_words());
}
