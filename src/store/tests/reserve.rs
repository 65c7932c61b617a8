//! A disk with nothing left on it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use super::support::{Fixture, new_chunk, session, settings};
use crate::clock::SystemClock;
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::model::DeadReason;
use crate::store::{
    DeadFilter, EnqueueError, SequenceChoice, Settings, Store, keeper, moving, reserve,
};

/// A disk of a size that can be changed. What is reserved counts, as what is written does.
#[derive(Clone, Default)]
struct Small(Arc<Mutex<Space>>);

#[derive(Default)]
struct Space {
    capacity: u64,
    taken: BTreeMap<PathBuf, u64>,
}

impl Space {
    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.taken.values().sum())
    }
}

struct File {
    file: Arc<dyn DiskFile>,
    path: Mutex<PathBuf>,
    disk: Small,
}

impl Small {
    fn space(&self) -> MutexGuard<'_, Space> {
        self.0.lock().unwrap()
    }

    fn leave(&self, free: u64) {
        let mut space = self.space();
        space.capacity = space.taken.values().sum::<u64>() + free;
    }

    fn file(&self, file: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(File {
            file,
            path: Mutex::new(path.to_owned()),
            disk: self.clone(),
        })
    }

    /// A name that was given away keeps its place under the new one.
    fn grow(&self, path: &Mutex<PathBuf>, length: u64) -> io::Result<()> {
        let mut space = self.space();
        let mut path = path.lock().unwrap();
        if !space.taken.contains_key(&*path) {
            // Renamed since it was opened.
            path.set_extension("");
        }
        let now = space.taken.get(&*path).copied().unwrap_or(0);
        if length > now {
            if space.free() < length - now {
                return Err(io::ErrorKind::StorageFull.into());
            }
            space.taken.insert(path.clone(), length);
        }
        Ok(())
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.disk.grow(&self.path, offset + bytes as u64)?;
        self.file.write_at(parts, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.disk.grow(&self.path, length)?;
        self.file.allocate(length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.grow(&self.path, length)?;
        let path = self.path.lock().unwrap().clone();
        self.disk.space().taken.insert(path, length);
        self.file.set_len(length)
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

impl Disk for Small {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.create(path)?;
        self.space().taken.insert(path.to_owned(), 0);
        Ok(self.file(file, path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open(path)?, path))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        let mut space = self.space();
        let bytes = space.taken.remove(from).unwrap_or(0);
        space.taken.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.space().taken.remove(path);
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.space().free())
    }
}

fn open(fixture: &Fixture, disk: &Small) -> Store {
    let on = Arc::new(disk.clone());
    Store::open_on(fixture.dir(), settings(), Arc::new(SystemClock), on).unwrap()
}

fn put(store: &Store, name: &str, sequence: u64) -> Result<(), EnqueueError> {
    let chunk = new_chunk("acme", name, SequenceChoice::Exactly(sequence));
    store.enqueue(chunk, &mut [7; 60_000].as_slice()).map(drop)
}

fn has_reserve(fixture: &Fixture) -> bool {
    fixture.dir().join("reserve").exists()
}

#[test]
fn with_nothing_left_what_is_owed_is_settled_moved_and_let_go_and_nothing_new_is_taken() {
    let fixture = Fixture::new();
    let disk = Small::default();
    disk.leave(40 << 20);
    let store = open(&fixture, &disk);
    for sequence in 0..30 {
        put(&store, "s1", sequence).unwrap();
    }
    put(&store, "s2", 0).unwrap();
    put(&store, "s3", 0).unwrap();
    fixture.abandon(store);
    let store = open(&fixture, &disk);
    reserve::keep(&store.inner);
    assert!(has_reserve(&fixture));
    disk.leave(0);
    // There is no active segment, and no byte to make one of.
    assert!(matches!(put(&store, "s1", 30), Err(EnqueueError::Full(_))));
    let lease = store.lease(&session("s2")).unwrap().unwrap();
    lease.bury(DeadReason::Rejected, None).unwrap();
    assert!(!has_reserve(&fixture) && store.inner.reserve.is_spent());
    assert_eq!(store.dead(&DeadFilter::default()).unwrap().len(), 1);
    for _ in 0..28 {
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        lease.ack().unwrap();
    }
    // What the reserve gave is not for new chunks.
    assert!(matches!(put(&store, "s1", 30), Err(EnqueueError::Full(_))));
    let active = *store.inner.active.lock().unwrap();
    let all: Vec<_> = store.inner.segments().values().cloned().collect();
    let others: Vec<_> = all
        .iter()
        .filter(|it| Some(it.segment.id) != active)
        .collect();
    assert!(!others.is_empty());
    for slot in &others {
        moving::empty(&store.inner, slot).unwrap();
    }
    keeper::round(&store.inner).unwrap();
    assert!(others.iter().all(|slot| !slot.segment.path.exists()));
    assert!(disk.space().free() > 1 << 20);
    // Intake resumes by itself.
    disk.leave(40 << 20);
    reserve::keep(&store.inner);
    put(&store, "s1", 30).unwrap();
    let counts = |store: &Store| {
        let balance = store.view().balance;
        (
            balance.enqueued,
            balance.delivered,
            balance.backlog,
            balance.dead,
        )
    };
    assert_eq!(counts(&store), (33, 28, 4, 1));
    fixture.abandon(store);
    let store = open(&fixture, &disk);
    assert_eq!(counts(&store), (33, 28, 4, 1));
}

#[test]
fn a_start_on_a_full_disk_has_the_reserve_to_work_with() {
    let fixture = Fixture::new();
    let disk = Small::default();
    disk.leave(40 << 20);
    let store = open(&fixture, &disk);
    put(&store, "s1", 0).unwrap();
    reserve::keep(&store.inner);
    fixture.abandon(store);
    disk.leave(0);
    let store = open(&fixture, &disk);
    assert!(!has_reserve(&fixture) && disk.space().free() > 1 << 20);
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.ack().unwrap();
    store.close().unwrap();
    let balance = open(&fixture, &disk).view().balance;
    assert_eq!((balance.delivered, balance.balanced), (1, true));
}

#[test]
fn a_store_that_owes_nothing_keeps_no_reserve() {
    let fixture = Fixture::new();
    let few = Settings {
        max_bytes: 64 << 20,
        ..settings()
    };
    let store = fixture.open_with(few);
    reserve::keep(&store.inner);
    assert!(!has_reserve(&fixture));
    fixture.put(&store, "s1", 0).unwrap();
    reserve::keep(&store.inner);
    assert!(has_reserve(&fixture));
    let used = store.inner.used.load(Ordering::Relaxed);
    assert!(
        used < 1 << 20,
        "the reserve is no part of the quota: {used}"
    );
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    store.close().unwrap();
    assert!(!has_reserve(&fixture));
}
