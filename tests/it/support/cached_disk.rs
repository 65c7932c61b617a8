//! An ext4 on a disk with a volatile write cache. At a power cut everything that was not flushed is gone.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::rig::{BLOCK, Daemon, FusePoint, Loop, Mount, make_ext4, text, write_block};
use super::wait_for;

pub const TOOLS: [&str; 2] = ["nbdkit", "nbdfuse"];
const BLOCKS: u64 = 96 << 8;

/// The running half: from the mount down to the daemon that is the disk.
struct Plugged {
    mount: Mount,
    device: Loop,
    fuse: Daemon,
    _point: FusePoint,
    disk: Daemon,
}

pub struct CachedDisk {
    plugged: Option<Plugged>,
    /// The journal's own device, where the data's errors must not reach the journal.
    journal: Option<Loop>,
    dir: tempfile::TempDir,
    canaries: u64,
}

impl CachedDisk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_ext4(&dir.path().join("disk.img"), BLOCKS, &[]);
        Self::plug(dir, None)
    }

    /// One whose writes of data can be made to fail while the filesystem's journal stays whole.
    pub fn with_journal_apart() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("journal.img");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        super::rig::tool(&[
            "mke2fs",
            "-q",
            "-F",
            "-O",
            "journal_dev",
            "-b",
            "4096",
            text(&image),
        ]);
        let journal = Loop::over(&image);
        let option = format!("device={}", text(journal.path()));
        make_ext4(&dir.path().join("disk.img"), BLOCKS, &["-J", &option]);
        Self::plug(dir, Some(journal))
    }

    fn plug(dir: tempfile::TempDir, journal: Option<Loop>) -> Self {
        let mut disk = Self {
            plugged: None,
            journal,
            dir,
            canaries: 0,
        };
        disk.power_up();
        disk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the filesystem is mounted.
    pub fn path(&self) -> &Path {
        self.plugged().mount.path()
    }

    fn plugged(&self) -> &Plugged {
        self.plugged.as_ref().expect("powered")
    }

    /// From now on every write to the disk fails, or does no more.
    pub fn fail_writes(&self, fail: bool) {
        let switch = self.at("failing");
        if fail {
            fs::write(switch, b"").unwrap();
        } else {
            fs::remove_file(switch).unwrap();
        }
    }

    pub fn power_up(&mut self) {
        assert!(self.plugged.is_none());
        let socket = self.at("socket");
        let _ = fs::remove_file(&socket);
        let image = self.at("disk.img");
        let failing = format!("error-pwrite-file={}", text(&self.at("failing")));
        #[rustfmt::skip]
        let mut disk = Daemon::start(&[
            "nbdkit", "--foreground", "--unix", text(&socket), "--filter=error", "--filter=cache",
            "file", text(&image),
            "cache=writeback", "cache-max-size=1G", "cache-min-block-size=4096",
            "error-pwrite=EIO", "error-pwrite-rate=100%", &failing,
        ], &self.at("nbdkit.log"));
        wait_for("nbdkit", || {
            assert!(
                !disk.has_ended(),
                "nbdkit ended: {}",
                self.said("nbdkit.log")
            );
            socket.exists().then_some(())
        });
        let point = self.at("fuse");
        fs::create_dir_all(&point).unwrap();
        let file = point.join("disk");
        let mut fuse = Daemon::start(
            &["nbdfuse", text(&file), "--unix", text(&socket)],
            &self.at("nbdfuse.log"),
        );
        let point = FusePoint(point);
        wait_for("nbdfuse", || {
            assert!(
                !fuse.has_ended(),
                "nbdfuse ended: {}",
                self.said("nbdfuse.log")
            );
            fs::metadata(&file)
                .is_ok_and(|found| found.len() > 0)
                .then_some(())
        });
        let device = Loop::over(&file);
        let options = self.journal.as_ref().map_or_else(
            || "data=ordered".to_owned(),
            |journal| format!("journal_path={}", text(journal.path())),
        );
        let mount = Mount::new(device.path(), &self.at("m"), &options);
        self.plugged = Some(Plugged {
            mount,
            device,
            fuse,
            _point: point,
            disk,
        });
    }

    fn said(&self, log: &str) -> String {
        fs::read_to_string(self.at(log)).unwrap_or_default()
    }

    /// Cuts the power in this moment; whoever works on the disk sees errors from now on. Call [`CachedDisk::unplug`]
    /// when they are gone.
    pub fn cut(&mut self) {
        self.canaries += 1;
        let canary = self.canary();
        let plugged = self.plugged.as_mut().expect("powered");
        write_block(plugged.device.path(), BLOCKS * BLOCK, &canary).expect("the canary is written");
        plugged.disk.kill();
    }

    /// Takes away what is left after a cut. Whether the fault landed: what the disk had taken last is gone.
    pub fn unplug(&mut self) -> bool {
        let Plugged {
            mount,
            device,
            mut fuse,
            _point: point,
            disk,
        } = self.plugged.take().expect("powered");
        drop(mount);
        drop(device);
        fuse.kill();
        drop(point);
        drop(disk);
        let mut found = vec![0; self.canary().len()];
        let image = fs::File::open(self.at("disk.img")).unwrap();
        image.read_exact_at(&mut found, BLOCKS * BLOCK).unwrap();
        found != self.canary()
    }

    fn canary(&self) -> Vec<u8> {
        format!("canary {:09}", self.canaries).into_bytes()
    }
}
