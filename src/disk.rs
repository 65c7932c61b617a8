//! The only door to the journal's files. Everything that must survive goes through here, so that a test can stand in
//! for a disk that loses, tears, reorders or refuses.

#[cfg(any(test, feature = "fuzzing"))]
pub mod simulated;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, fdatasync, statvfs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A chunk's bytes, checked as they are read; a read error of kind `InvalidData` means that they are damaged.
pub trait Payload: Read + Send {
    /// From the first byte again.
    ///
    /// # Errors
    /// Its source can be read only once, or not any more.
    fn rewind(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Payload for io::Empty {
    fn rewind(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Payload for io::Cursor<Vec<u8>> {
    fn rewind(&mut self) -> io::Result<()> {
        self.set_position(0);
        Ok(())
    }
}

/// An open file. All offsets are absolute; nothing moves a cursor.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; returns fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one after another, at `offset`.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Lets the medium begin with what was written to these bytes, so that a later [`DiskFile::sync`] waits less. Promises
    /// nothing and waits for nothing.
    fn begin_writing(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }
    /// Forces the file's content, and what is needed to read it back, to the medium.
    fn sync(&self) -> io::Result<()>;
    /// Reserves space so that later writes below `length` need none.
    fn allocate(&self, length: u64) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// The few operations on directories and names that the journal needs.
pub trait Disk: Send + Sync + 'static {
    /// A new file, private to the owner. An existing one is an error.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, unordered.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Forces names made, changed or removed in `path` to the medium.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this user may still write on the filesystem of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// More open files than this are of no use to anybody.
const FILES_MAX: u64 = 65_536;

/// Takes as many open files as this process may have: a backlog can have more segments than the usual 1,024.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        // Where it is not granted, the usual number has to do.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            // The kernel takes at most 1024 slices a call.
            let batch = &left[..left.len().min(1024)];
            match rustix::io::pwritev(&self.0, batch, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut left, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The system takes the advice as a reason to write what is dirty now; what is being written stays in its cache.
    fn begin_writing(&self, offset: u64, length: u64) {
        if let Some(length) = NonZeroU64::new(length) {
            // A filesystem that knows no such advice writes when it is told to sync.
            let _ = fadvise(&self.0, offset, Some(length), Advice::DontNeed);
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.0)?)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // A filesystem without preallocation: a sparse file will do.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.0.set_len(length),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
