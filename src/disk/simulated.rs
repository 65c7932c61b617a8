//! A disk in memory that keeps what was synced and, at a power cut, any part of the rest.
//!
//! Every file has a live image, which programs see, and a durable one. A write goes to the live image and waits; a sync
//! applies what waits to the durable image; a failed sync forgets that it waited, as a page cache does. A power cut keeps the durable image plus a random
//! choice of the sectors that wait, and a random prefix of the changes of names that wait.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    waiting: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Resize(u64),
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
}

struct World {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    waiting_names: Vec<NameChange>,
    random: fastrand::Rng,
    /// Mutating operations until the power goes.
    power_left: Option<u32>,
    syncs_to_fail: u32,
    free_bytes: u64,
    /// Faults that really landed.
    faults: Faults,
}

/// How often each fault landed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    pub power_cuts: u32,
    pub sectors_lost: u32,
    pub names_lost: u32,
    pub syncs_failed: u32,
    pub operations_refused: u32,
}

#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<World>>);

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: usize,
}

impl SimulatedDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed))))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no holder panics")
    }

    /// After so many further changes every operation fails, as if the process were gone.
    pub fn cut_power_after(&self, operations: u32) {
        self.world().power_left = Some(operations);
    }

    pub fn fail_next_syncs(&self, count: u32) {
        self.world().syncs_to_fail = count;
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.world().free_bytes = bytes;
    }

    pub fn faults(&self) -> Faults {
        self.world().faults
    }

    /// Loses a random choice of everything that was not synced, and gives the power back.
    pub fn restart_after_power_cut(&self) {
        let mut guard = self.world();
        let world = &mut *guard;
        world.power_left = None;
        world.faults.power_cuts += 1;
        let kept = world.random.usize(0..=world.waiting_names.len());
        let changes = std::mem::take(&mut world.waiting_names);
        world.faults.names_lost += (changes.len() - kept) as u32;
        for change in changes.into_iter().take(kept) {
            apply_name(&mut world.durable_names, change);
        }
        world.names = world.durable_names.clone();
        // Most cuts lose most; some lose little.
        let keep_one_in = [1, 2, 2, 4, 1000][world.random.usize(0..5)];
        let named: Vec<usize> = world.names.values().copied().collect();
        for (inode, file) in world.files.iter_mut().enumerate() {
            if !named.contains(&inode) {
                *file = Content::default();
            }
            for change in std::mem::take(&mut file.waiting) {
                match change {
                    Change::Resize(length) => file.durable.resize(length as usize, 0),
                    Change::Write(offset, bytes) => {
                        let first = SECTOR - offset as usize % SECTOR;
                        let mut at = 0;
                        while at < bytes.len() {
                            let length = if at == 0 { first } else { SECTOR }.min(bytes.len() - at);
                            if world.random.usize(0..keep_one_in) == 0 {
                                let to = offset as usize + at;
                                put(&mut file.durable, to, &bytes[at..at + length]);
                            } else {
                                world.faults.sectors_lost += 1;
                            }
                            at += length;
                        }
                    }
                }
            }
            file.live = file.durable.clone();
        }
    }

    /// The paths of all files, as a program sees them.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    /// An independent copy of everything.
    pub fn fork(&self) -> Self {
        let world = self.world();
        Self(Arc::new(Mutex::new(World {
            files: world.files.clone(),
            names: world.names.clone(),
            durable_names: world.durable_names.clone(),
            waiting_names: world.waiting_names.clone(),
            random: world.random.clone(),
            ..World::new(0)
        })))
    }

    /// The same files under another directory.
    pub fn moved(self, from: &Path, to: &Path) -> Self {
        {
            let mut guard = self.world();
            let world = &mut *guard;
            for names in [&mut world.names, &mut world.durable_names] {
                *names = std::mem::take(names)
                    .into_iter()
                    .map(|(path, inode)| match path.strip_prefix(from) {
                        Ok(inside) => (to.join(inside), inode),
                        Err(_) => (path, inode),
                    })
                    .collect();
            }
        }
        self
    }

    /// Changes bytes of a file behind everybody's back, on the medium and in every cache.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = world.names[path];
        let file = &mut world.files[inode];
        assert!(file.waiting.is_empty(), "corrupt only what is at rest");
        change(&mut file.durable);
        file.live = file.durable.clone();
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.files[world.names[path]].live.clone()
    }

    /// Syncs everything, as time would.
    pub fn settle(&self) {
        let mut guard = self.world();
        let world = &mut *guard;
        for change in std::mem::take(&mut world.waiting_names) {
            apply_name(&mut world.durable_names, change);
        }
        for file in &mut world.files {
            apply_all(file);
        }
    }
}

fn apply_all(file: &mut Content) {
    for change in std::mem::take(&mut file.waiting) {
        match change {
            Change::Resize(length) => file.durable.resize(length as usize, 0),
            Change::Write(offset, bytes) => put(&mut file.durable, offset as usize, &bytes),
        }
    }
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Set(path, inode) => drop(names.insert(path, inode)),
        NameChange::Remove(path) => drop(names.remove(&path)),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            waiting_names: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            power_left: None,
            syncs_to_fail: 0,
            free_bytes: u64::MAX,
            faults: Faults::default(),
        }
    }

    /// Counts a change; without power it is refused.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.power_left {
            None => Ok(()),
            Some(0) => {
                self.faults.operations_refused += 1;
                Err(io::Error::other("the power is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn rename_now(&mut self, change: NameChange) {
        apply_name(&mut self.names, change.clone());
        self.waiting_names.push(change);
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let live = &world.files[self.inode].live;
        let from = (offset as usize).min(live.len());
        let count = buffer.len().min(live.len() - from);
        buffer[..count].copy_from_slice(&live[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.spend()?;
        let bytes = parts.concat();
        let file = &mut world.files[self.inode];
        put(&mut file.live, offset as usize, &bytes);
        file.waiting.push(Change::Write(offset, bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.spend()?;
        if world.syncs_to_fail > 0 {
            world.syncs_to_fail -= 1;
            world.faults.syncs_failed += 1;
            // The cache calls these pages clean now; the medium never saw them.
            world.files[self.inode].waiting.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        apply_all(&mut world.files[self.inode]);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.spend()?;
        if world.free_bytes < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut world.files[self.inode];
        if file.live.len() < length as usize {
            file.live.resize(length as usize, 0);
            file.waiting.push(Change::Resize(length));
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.spend()?;
        let file = &mut world.files[self.inode];
        file.live.resize(length as usize, 0);
        file.waiting.push(Change::Resize(length));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.world().files[self.inode].live.len() as u64)
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.spend()?;
        let inode = world.files.len();
        world.files.push(Content::default());
        world.rename_now(NameChange::Set(path.to_owned(), inode));
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.world().names.get(path).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(inside
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.spend()?;
        let inode = world
            .names
            .get(from)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        world.rename_now(NameChange::Remove(from.to_owned()));
        world.rename_now(NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.spend()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.rename_now(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut guard = self.world();
        let world = &mut *guard;
        world.spend()?;
        let inside = |change: &NameChange| match change {
            NameChange::Set(name, _) | NameChange::Remove(name) => name.parent() == Some(path),
        };
        for change in std::mem::take(&mut world.waiting_names) {
            if inside(&change) {
                apply_name(&mut world.durable_names, change);
            } else {
                world.waiting_names.push(change);
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.world().free_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimulatedDisk::new(seed);
            let path = Path::new("/d/f");
            let file = disk.create(path).unwrap();
            file.write_at(&[&[1; 512]], 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[&[2; 512]], 512).unwrap();
            disk.restart_after_power_cut();
            let bytes = disk.read(path);
            assert_eq!(bytes[..512], [1; 512]);
            lost += usize::from(bytes.len() < 1024);
        }
        assert!((1..50).contains(&lost), "{lost}");
    }

    #[test]
    fn a_failed_sync_hides_what_the_medium_never_got() {
        let disk = SimulatedDisk::new(1);
        let path = Path::new("/d/f");
        let file = disk.create(path).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[b"gone"], 0).unwrap();
        disk.fail_next_syncs(1);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok());
        assert_eq!(disk.read(path), b"gone");
        disk.restart_after_power_cut();
        assert_eq!(disk.read(path), b"");
    }
}
