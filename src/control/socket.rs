//! The control socket's place and permissions. A path too long for a socket address is reached through an
//! open directory in `/proc/self/fd`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

pub const NAME: &str = "control.sock";
/// `sun_path` has 108 bytes with its final zero.
const LONGEST: usize = 107;
/// Waiting connections; the server takes them as fast as it has places.
const BACKLOG: i32 = 64;

/// Where to connect or bind. Keeps the directory open while the short path is in use.
pub struct SocketPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl SocketPath {
    /// # Errors
    /// The store's directory cannot be opened.
    pub fn of_store(store: &Path) -> io::Result<Self> {
        let plain = store.join(NAME);
        if plain.as_os_str().len() <= LONGEST {
            return Ok(Self {
                path: plain,
                _directory: None,
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(store, flags, Mode::empty())?;
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())),
            _directory: Some(directory),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Listens, for this user only. The caller holds the store's lock, so a socket that is there already
    /// is a dead process's.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&self) -> io::Result<UnixListener> {
        self.remove()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&self.path)?)?;
        // Nobody can connect before `listen`, so there is no moment with wider permissions.
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(UnixListener::from(socket))
    }

    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_store_with_a_very_long_path_can_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("d".repeat(120));
        std::fs::create_dir(&store).unwrap();
        let place = SocketPath::of_store(&store).unwrap();
        let _listener = place.listen().unwrap();
        let other = SocketPath::of_store(&store).unwrap();
        UnixStream::connect(other.path()).unwrap();
    }

    #[test]
    fn only_the_owner_may_connect_and_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = SocketPath::of_store(dir.path()).unwrap();
        drop(place.listen().unwrap());
        assert!(UnixStream::connect(place.path()).is_err());
        let _listener = place.listen().unwrap();
        UnixStream::connect(place.path()).unwrap();
        let mode = std::fs::metadata(place.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
