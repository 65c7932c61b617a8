//! A disk that writes down every write and flush it got, in order, and what it would hold if the power had gone
//! anywhere in between.
//!
//! The log is qemu's, in the format of Linux's dm-log-writes: a superblock, then entries of one sector each, with
//! their data behind them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::rig::{BLOCK, Daemon, FusePoint, Loop, Mount, make_ext4, text, tool};
use super::wait_for;

pub const TOOLS: [&str; 1] = ["qemu-storage-daemon"];
const BLOCKS: u64 = 64 << 8;
/// Of the log.
const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// Where a driver's marker goes: behind the filesystem.
pub const MARKER_AT: u64 = BLOCKS * BLOCK;

pub struct LoggedDisk {
    mount: Option<Mount>,
    device: Option<Loop>,
    daemon: Daemon,
    _point: FusePoint,
    dir: tempfile::TempDir,
}

impl LoggedDisk {
    pub fn new() -> Self {
        let dir = scratch();
        let at = |name: &str| dir.path().join(name);
        make_ext4(&at("base.img"), BLOCKS, &[]);
        fs::copy(at("base.img"), at("disk.img")).unwrap();
        File::create(at("log.img"))
            .unwrap()
            .set_len(4 << 30)
            .unwrap();
        let export = at("export");
        File::create(&export).unwrap();
        let disk = format!("driver=file,node-name=f,filename={}", text(&at("disk.img")));
        let log = format!("driver=file,node-name=l,filename={}", text(&at("log.img")));
        let fuse = format!(
            "type=fuse,id=e,node-name=w,mountpoint={},writable=on",
            text(&export)
        );
        #[rustfmt::skip]
        let mut daemon = Daemon::start(&[
            "qemu-storage-daemon", "--blockdev", &disk, "--blockdev", &log,
            "--blockdev", "driver=blklogwrites,node-name=w,file=f,log=l,log-sector-size=512",
            "--export", &fuse,
        ], &at("daemon.log"));
        let point = FusePoint(export.clone());
        wait_for("qemu-storage-daemon", || {
            let said = || fs::read_to_string(at("daemon.log")).unwrap_or_default();
            assert!(!daemon.has_ended(), "{}", said());
            fs::metadata(&export)
                .is_ok_and(|found| found.len() > 0)
                .then_some(())
        });
        let device = Loop::over(&export);
        let mount = Mount::new(device.path(), &at("m"), "data=ordered");
        Self {
            mount: Some(mount),
            device: Some(device),
            daemon,
            _point: point,
            dir,
        }
    }

    pub fn path(&self) -> &Path {
        self.mount.as_ref().expect("mounted").path()
    }

    pub fn device(&self) -> &Path {
        self.device.as_ref().expect("there").path()
    }

    /// Ends the recording.
    pub fn finish(mut self) -> Recording {
        drop(self.mount.take());
        drop(self.device.take());
        self.daemon.end();
        let log = File::open(self.dir.path().join("log.img")).unwrap();
        let entries = entries(&log);
        let base = self.dir.path().join("base.img");
        Recording {
            entries,
            log,
            base,
            dir: self,
        }
    }
}

/// In memory where there is room: what is synced here need not wait for a real disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    made.flatten()
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

struct Entry {
    at: u64,
    bytes: u64,
    flags: u64,
    data_at: u64,
}

fn entries(log: &File) -> Vec<Entry> {
    let word = |at: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, at).expect("the log is whole");
        u64::from_le_bytes(bytes)
    };
    assert_eq!(word(0), MAGIC, "no log of writes");
    assert_eq!(word(24) & 0xffff_ffff, SECTOR);
    let mut at = SECTOR;
    let read = (0..word(16)).map(|_| {
        let (sector, sectors, flags) = (word(at), word(at + 8), word(at + 16));
        let entry = Entry {
            at: sector * SECTOR,
            bytes: sectors * SECTOR,
            flags,
            data_at: at + SECTOR,
        };
        at = entry.data_at;
        if flags & DISCARD == 0 {
            at += entry.bytes;
        }
        entry
    });
    read.collect()
}

/// What was recorded.
pub struct Recording {
    entries: Vec<Entry>,
    log: File,
    base: PathBuf,
    dir: LoggedDisk,
}

/// A disk as a power cut may leave it.
pub struct Crash {
    /// How far the driver had said what it did, at least.
    pub said: usize,
    /// And at most; `None`: to the end.
    pub said_next: Option<usize>,
    /// Blocks that were written and not flushed, and of those the ones that are gone.
    pub unflushed: usize,
    pub lost: usize,
}

/// Goes through crash points from the first to the last.
pub struct Replay<'a> {
    recording: &'a Recording,
    /// What everything up to here makes of the disk.
    durable: File,
    applied: usize,
}

impl Recording {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn flushes(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.flags & (FLUSH | FUA) != 0)
            .count()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.dir.path().join(name)
    }

    pub fn mount_point(&self) -> PathBuf {
        self.at("crashed")
    }

    /// The image that [`Replay::crash_at`] makes.
    pub fn image(&self) -> PathBuf {
        self.at("crash.img")
    }

    pub fn replay(&self) -> Replay<'_> {
        let path = self.at("durable.img");
        fs::copy(&self.base, &path).unwrap();
        let durable = File::options().read(true).write(true).open(path).unwrap();
        Replay {
            recording: self,
            durable,
            applied: 0,
        }
    }

    fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut data = vec![0; entry.bytes as usize];
        self.log
            .read_exact_at(&mut data, entry.data_at)
            .expect("the log is whole");
        data
    }

    /// What a marker among the writes says.
    fn marker(&self, entry: &Entry) -> Option<usize> {
        if entry.at != MARKER_AT || entry.bytes == 0 {
            return None;
        }
        let data = self.data(entry);
        let text = String::from_utf8_lossy(&data[..16]).into_owned();
        text.strip_prefix("marker ")?.parse().ok()
    }
}

impl Replay<'_> {
    /// Power lost after entry `point`: everything before the last flush is there, and of what came after it any
    /// blocks, in any order.
    pub fn crash_at(&mut self, point: usize, random: &mut Rng) -> Crash {
        let Recording { entries, .. } = self.recording;
        let flushed = (0..=point)
            .rev()
            .find(|at| entries[*at].flags & (FLUSH | FUA) != 0);
        let flushed = flushed.map_or(0, |at| at + 1);
        assert!(self.applied <= flushed, "crash points come in order");
        for entry in &entries[self.applied..flushed] {
            if entry.flags & DISCARD == 0 && entry.bytes > 0 {
                let data = self.recording.data(entry);
                self.durable.write_all_at(&data, entry.at).unwrap();
            }
        }
        self.applied = flushed;
        // Most of it is holes, which the standard library would fill.
        let (from, to) = (self.recording.at("durable.img"), self.recording.image());
        tool(&["cp", "--sparse=always", text(&from), text(&to)]);
        let (unflushed, lost) = self.apply_some(flushed, point, random);
        let markers = |range: &[Entry]| {
            range
                .iter()
                .filter_map(|entry| self.recording.marker(entry))
                .max()
        };
        let next = entries[point + 1..]
            .iter()
            .find_map(|entry| self.recording.marker(entry));
        Crash {
            said: markers(&entries[..=point]).unwrap_or(0),
            said_next: next,
            unflushed,
            lost,
        }
    }

    fn apply_some(&self, from: usize, point: usize, random: &mut Rng) -> (usize, usize) {
        let writes = self.recording.entries[from..=point].iter();
        let writes = writes.filter(|entry| entry.flags & DISCARD == 0);
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for entry in writes {
            let data = self.recording.data(entry);
            let blocks = data.chunks(BLOCK as usize).enumerate();
            pieces.extend(blocks.map(|(n, block)| (entry.at + n as u64 * BLOCK, block.to_vec())));
        }
        let unflushed = pieces.len();
        // Most caches lose much; some lose little, or everything.
        let kept_of_ten = [0, 1, 5, 5, 9, 10][random.usize(..6)];
        pieces.retain(|_| random.u32(..10) < kept_of_ten);
        random.shuffle(&mut pieces);
        let image = File::options()
            .write(true)
            .open(self.recording.image())
            .unwrap();
        for (at, piece) in &pieces {
            image.write_all_at(piece, *at).unwrap();
        }
        (unflushed, unflushed - pieces.len())
    }
}
