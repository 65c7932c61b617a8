//! A recording host whose store has a small filesystem of its own, and what fills one.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::rig::{BLOCK, Loop, Mount, make_ext4, text, tool, try_tool};
use super::{LOOK, PATIENCE, Site, wait_for, wait_within};

/// Enough for a backlog of a few segments.
const MEGABYTES: u64 = 48;
/// The first subvolume of a btrfs, as quotas name it.
const VOLUME: &str = "0/256";

pub struct SmallDisk {
    // Taken down from above.
    mount: Option<Mount>,
    /// Where its quota is set, if it can have one.
    top: Option<Mount>,
    device: Loop,
    site: Site,
    _image: tempfile::TempDir,
}

impl Deref for SmallDisk {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl SmallDisk {
    /// Nothing is kept free for the store: whoever fills the disk fills all of it.
    fn on(
        image: tempfile::TempDir,
        device: Loop,
        top: Option<Mount>,
        site: Site,
        options: &str,
    ) -> Self {
        site.configure(|text| {
            let kept = text
                .lines()
                .filter(|line| !line.starts_with("min_free_bytes"));
            let text: Vec<&str> = kept.collect();
            text.join("\n")
                .replacen("[store]", "[store]\nmin_free_bytes = \"0B\"", 1)
                + "\n"
        });
        let mount = Mount::new(device.path(), &site.store(), options);
        Self {
            mount: Some(mount),
            top,
            device,
            site,
            _image: image,
        }
    }

    pub fn ext4() -> Self {
        let image = tempfile::tempdir().unwrap();
        let blocks = MEGABYTES << 8;
        make_ext4(&image.path().join("disk.img"), blocks, &["-N", "512"]);
        let device = Loop::over(&image.path().join("disk.img"));
        Self::on(image, device, None, Site::new(), "rw")
    }

    /// A subvolume whose quota is set from outside it.
    pub fn btrfs() -> Self {
        let image = tempfile::tempdir().unwrap();
        let path = image.path().join("disk.img");
        File::create(&path).unwrap().set_len(256 << 20).unwrap();
        tool(&["mkfs.btrfs", "-q", text(&path)]);
        let device = Loop::over(&path);
        let top = Mount::new(device.path(), &image.path().join("top"), "rw");
        let volume = top.path().join("volume");
        tool(&["btrfs", "quota", "enable", text(top.path())]);
        tool(&["btrfs", "subvolume", "create", text(&volume)]);
        Self::on(image, device, Some(top), Site::new(), "subvol=volume")
    }

    /// Hardly more than is used; dropping it lifts it.
    pub fn quota(&self) -> Quota {
        let top = self.top.as_ref().expect("a btrfs").path().to_owned();
        tool(&["sync", "--file-system", text(&top)]);
        let shown = tool(&["btrfs", "qgroup", "show", "--raw", text(&top)]);
        let line = shown.lines().find(|line| line.starts_with(VOLUME));
        let used = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let used = used.unwrap_or_else(|| panic!("no {VOLUME} in {shown}"));
        let limit = (used + (512 << 10)).to_string();
        tool(&["btrfs", "qgroup", "limit", &limit, VOLUME, text(&top)]);
        println!("quota of {limit} bytes, {used} used");
        Quota(top)
    }

    /// Mounts it anew, as a person does after the filesystem gave up.
    pub fn mount_again(&mut self) {
        drop(self.mount.take());
        self.mount = Some(Mount::new(self.device.path(), &self.site.store(), "rw"));
    }

    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.store()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

pub struct Quota(PathBuf);

impl Drop for Quota {
    fn drop(&mut self) {
        let lift = ["btrfs", "qgroup", "limit", "none", VOLUME, text(&self.0)];
        let lifted = wait_within(PATIENCE, || try_tool(&lift).ok());
        println!("quota lifted: {}", lifted.is_some());
    }
}

/// Somebody else who writes to the disk for as long as it takes anything, and goes on when something is given back.
pub struct Filler {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    /// Fills the disk, and takes nothing more.
    pub fn once(dir: &Path) -> Self {
        let mut filler = Self::of(dir);
        filler.stop();
        filler
    }

    pub fn of(dir: &Path) -> Self {
        let path = dir.join("somebody-elses");
        let over = Arc::new(AtomicBool::new(false));
        let mut file = File::create(&path).unwrap();
        fill(&mut file);
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                fill(&mut file);
                std::thread::sleep(LOOK);
            }
        });
        Self {
            path,
            over,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Gives everything back.
    pub fn remove(self) {}
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_file(&self.path);
    }
}

fn fill(file: &mut File) {
    for bytes in [1 << 20, 64 << 10, BLOCK as usize, 1] {
        let piece = vec![7; bytes];
        while file.write_all(&piece).is_ok() {}
    }
    // What was only promised so far is taken.
    let _ = file.sync_all();
}

/// Takes every inode; the files go when this is dropped.
pub struct Inodes(PathBuf);

impl Inodes {
    pub fn all_of(dir: &Path) -> Self {
        let dir = dir.join("empty-files");
        fs::create_dir(&dir).unwrap();
        let mut count = 0;
        while File::create(dir.join(count.to_string())).is_ok() {
            count += 1;
        }
        println!("{count} inodes taken");
        Self(dir)
    }
}

impl Drop for Inodes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a directory that takes no names is, also for root.
pub struct Frozen(PathBuf);

impl Frozen {
    pub fn new(dir: &Path) -> Self {
        wait_for("the directory", || dir.exists().then_some(()));
        tool(&["chattr", "+i", text(dir)]);
        Self(dir.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = try_tool(&["chattr", "-i", text(&self.0)]);
    }
}
