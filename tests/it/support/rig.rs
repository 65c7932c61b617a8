//! Disks that can be broken: loop devices, mounts and the daemons behind them. Each is taken down when it is dropped,
//! also by a test that panics.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{tool_is_missing, wait_for, wait_within};

/// Of every filesystem here.
pub const BLOCK: u64 = 4096;
/// What an unmount waits for a process that is on its way out.
const RELEASE: Duration = Duration::from_secs(20);

/// Whether disks can be broken here. A machine without FUSE or loop devices is no reason to fail. A missing tool is one where tools
/// are required, and so is a user who may not mount, unless `REELAY_NO_MOUNTS=1` says that this is meant.
pub fn can_break_disks(tools: &[&str]) -> bool {
    let devices = ["/dev/fuse", "/dev/loop-control"];
    if let Some(missing) = devices.iter().find(|device| !Path::new(device).exists()) {
        println!("skipped: no {missing} on this machine");
        return false;
    }
    let is_set = |name| std::env::var_os(name).is_some();
    let may_mount = rustix::process::geteuid().is_root();
    if !may_mount || is_set("REELAY_NO_MOUNTS") {
        let excused = may_skip(is_set("REELAY_REQUIRE_TOOLS"), is_set("REELAY_NO_MOUNTS"));
        assert!(
            excused,
            "only root may mount; REELAY_NO_MOUNTS=1 does without"
        );
        println!("skipped: only root may mount");
        return false;
    }
    for tool in tools
        .iter()
        .chain(&["mke2fs", "losetup", "mount", "umount"])
    {
        if !is_there(tool) {
            tool_is_missing(tool);
            return false;
        }
    }
    true
}

/// Whether a test that may not mount may be skipped.
fn may_skip(required: bool, no_mounts: bool) -> bool {
    !required || no_mounts
}

#[test]
fn whoever_may_not_mount_fails_where_nothing_may_be_skipped_unless_it_is_said() {
    assert!(may_skip(false, false) && may_skip(false, true) && may_skip(true, true));
    assert!(!may_skip(true, false));
}

/// Also one that the kernel has as a module.
pub fn knows_filesystem(name: &str) -> bool {
    let known = || fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains(name));
    known() || (try_tool(&["modprobe", name]).is_ok() && known())
}

pub fn is_there(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"];
    path.split(':')
        .chain(more)
        .any(|dir| Path::new(dir).join(tool).exists())
}

/// Runs a tool to its end; what it printed, or what it complained of.
pub fn try_tool(words: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let done = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{words:?}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("{words:?}: {} {said}", done.status))
}

#[track_caller]
pub fn tool(words: &[&str]) -> String {
    try_tool(words).unwrap_or_else(|complaint| panic!("{complaint}"))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("our own paths are text")
}

/// A sparse file with an ext4 of so many blocks in front and one free block behind it.
pub fn make_ext4(image: &Path, blocks: u64, options: &[&str]) {
    let file = fs::File::create(image).expect("room for an image");
    file.set_len((blocks + 1) * BLOCK).expect("a sparse file");
    let count = blocks.to_string();
    let mut words = vec!["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096"];
    words.extend(options);
    words.extend([text(image), count.as_str()]);
    tool(&words);
}

/// A daemon, killed at the end.
pub struct Daemon(Child);

impl Daemon {
    #[track_caller]
    pub fn start(words: &[&str], log: &Path) -> Self {
        let log = fs::File::create(log).expect("a log");
        let again = log.try_clone().expect("a descriptor");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new(words[0])
            .args(&words[1..])
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        Self(child)
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// SIGTERM, then waits for it to end.
    pub fn end(&mut self) {
        let pid = i32::try_from(self.0.id()).expect("a pid is an i32");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid is not 0");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_for("a daemon to end", || self.has_ended().then_some(()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loop device over a file.
pub struct Loop(String);

impl Loop {
    #[track_caller]
    pub fn over(file: &Path) -> Self {
        // Another test may take the device that was found free.
        let found = wait_within(RELEASE, || {
            try_tool(&["losetup", "--find", "--show", text(file)]).ok()
        });
        Self(found.unwrap_or_else(|| tool(&["losetup", "--find", "--show", text(file)])))
    }

    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // At once, or when the last user of a broken filesystem lets go.
        let _ = try_tool(&["losetup", "--detach", &self.0]);
    }
}

/// A mounted filesystem.
pub struct Mount(PathBuf);

impl Mount {
    /// # Errors
    /// What `mount` says.
    pub fn try_new(device: &Path, at: &Path, options: &str) -> Result<Self, String> {
        fs::create_dir_all(at).expect("a mount point");
        try_tool(&["mount", "-o", options, text(device), text(at)])?;
        Ok(Self(at.to_owned()))
    }

    #[track_caller]
    pub fn new(device: &Path, at: &Path, options: &str) -> Self {
        Self::try_new(device, at, options).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let released = wait_within(RELEASE, || try_tool(&["umount", text(&self.0)]).ok());
        if released.is_none() {
            let _ = try_tool(&["umount", "--lazy", text(&self.0)]);
        }
    }
}

/// Leaves a directory that a FUSE daemon gave a meaning, also when the daemon is gone.
pub struct FusePoint(pub PathBuf);

impl Drop for FusePoint {
    fn drop(&mut self) {
        let _ = try_tool(&["umount", "--lazy", text(&self.0)]);
    }
}

/// One block straight to a device, past every cache of this machine.
pub fn write_block(device: &Path, offset: u64, content: &[u8]) -> io::Result<()> {
    const DIRECT: i32 = 0o40_000;
    let mut room = vec![0; 2 * BLOCK as usize];
    let skip = room.as_ptr().align_offset(BLOCK as usize);
    let block = &mut room[skip..skip + BLOCK as usize];
    block[..content.len()].copy_from_slice(content);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(DIRECT)
        .open(device)?;
    file.write_all_at(block, offset)
}
