//! Secret files: read anew before each use, so that a rotated secret needs no restart, and refused when
//! other users of the host could read them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::grant::MintFailure;

/// Far above any secret or key; a bound against a file that is something else.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where secret files are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPlaces {
    /// The configuration file's directory.
    pub beside_config: PathBuf,
    /// The service manager's credentials (`$CREDENTIALS_DIRECTORY`), asked first: where it holds a name,
    /// the file beside the configuration may be out of the service's reach.
    pub credentials: Option<PathBuf>,
}

/// A secret file of the operator's: its name as configured, and where it is looked for.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSource {
    pub name: PathBuf,
    pub places: SecretPlaces,
}

/// People paste the secret itself where a file's name belongs.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSource")
    }
}

/// What of a file changes when it is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl SecretSource {
    /// Not on the runtime: the file may lie on a slow or hanging disk.
    ///
    /// # Errors
    /// [`MintFailure::Secret`] as [`read_secret`].
    pub async fn read(&self) -> Result<SecretString, MintFailure> {
        let source = self.clone();
        tokio::task::spawn_blocking(move || read_secret(&source.name, &source.places))
            .await
            .map_err(|error| MintFailure::Unreachable {
                cause: format!("reading the secret ended early: {error}"),
            })?
            .map_err(MintFailure::Secret)
    }

    /// `None` where there is no file.
    pub fn stamp(&self) -> Option<Stamp> {
        let (file, _, _) = open(&self.name, &self.places).ok()?;
        let about = file.metadata().ok()?;
        Some(Stamp {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }

    pub fn shown(&self) -> String {
        self.name.display().to_string()
    }
}

/// Why a secret file is not used. Names the file as configured, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{name} is readable by others ({mode:04o}): chmod 600 {name}")]
    Readable { name: String, mode: u32 },
    #[error("{name} is empty: write the secret into it")]
    Empty { name: String },
    #[error("{name} is larger than {limit} bytes: it is no secret file")]
    TooLarge { name: String, limit: u64 },
    #[error("{name} is not text")]
    NotText { name: String },
    #[error("{name} is not a regular file")]
    NotFile { name: String },
    #[error("{name} does not exist in {places}")]
    Missing { name: String, places: String },
    #[error("secret file {path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Reads the secret that the configuration calls `name`, without one newline at its end.
///
/// # Errors
/// Anything but a short text file that only its owner can read; see [`SecretError`].
pub fn read_secret(name: &Path, places: &SecretPlaces) -> Result<SecretString, SecretError> {
    let shown = name.display().to_string();
    let (file, path, private) = open(name, places)?;
    let wrap = |source| SecretError::Io {
        path: path.clone(),
        source,
    };
    let metadata = file.metadata().map_err(wrap)?;
    if !metadata.is_file() {
        return Err(SecretError::NotFile { name: shown });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & private != 0 {
        return Err(SecretError::Readable { name: shown, mode });
    }
    // Room for all of it at once, so that growing leaves no copies behind.
    let room = metadata.len().min(SECRET_BYTES_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(wrap)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLarge {
            name: shown,
            limit: SECRET_BYTES_MAX,
        });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText {
        name: shown.clone(),
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretError::Empty { name: shown });
    }
    Ok(SecretString::from(text))
}

/// The open file, its path, and the permission bits that it must not have.
fn open(name: &Path, places: &SecretPlaces) -> Result<(File, PathBuf, u32), SecretError> {
    let mut tried = Vec::new();
    if let (Some(directory), true) = (&places.credentials, is_plain(name)) {
        let path = directory.join(name);
        // Group bits of a credential are the mask of its access list, not a group's rights.
        match open_file(&path) {
            Ok(file) => return Ok((file, path, 0o007)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                tried.push(directory.display().to_string());
            }
            Err(source) => return Err(SecretError::Io { path, source }),
        }
    }
    let path = places.beside_config.join(name);
    match open_file(&path) {
        Ok(file) => Ok((file, path, 0o077)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(&places.beside_config);
            tried.push(parent.display().to_string());
            Err(SecretError::Missing {
                name: name.display().to_string(),
                places: tried.join(" or "),
            })
        }
        Err(source) => Err(SecretError::Io { path, source }),
    }
}

/// A pipe in place of the file must not hang the open.
fn open_file(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking.cast_signed())
        .open(path)
}

fn is_plain(name: &Path) -> bool {
    let mut components = name.components();
    matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(_)), None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::fs;

    struct Fixture {
        config: tempfile::TempDir,
        credentials: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                config: tempfile::tempdir().unwrap(),
                credentials: tempfile::tempdir().unwrap(),
            }
        }

        fn places(&self) -> SecretPlaces {
            SecretPlaces {
                beside_config: self.config.path().to_owned(),
                credentials: Some(self.credentials.path().to_owned()),
            }
        }

        fn read(&self) -> Result<String, String> {
            read_secret(Path::new("acme.secret"), &self.places())
                .map(|secret| secret.expose_secret().to_owned())
                .map_err(|error| error.to_string())
        }

        fn write(directory: &tempfile::TempDir, content: &[u8], mode: u32) {
            let path = directory.path().join("acme.secret");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_fix() {
        let fixture = Fixture::new();
        Fixture::write(&fixture.config, b"canary", 0o644);
        assert_eq!(
            fixture.read().unwrap_err(),
            "acme.secret is readable by others (0644): chmod 600 acme.secret"
        );
        Fixture::write(&fixture.config, b"canary", 0o640);
        assert!(fixture.read().unwrap_err().contains("(0640)"));
        Fixture::write(&fixture.credentials, b"canary", 0o444);
        assert!(fixture.read().unwrap_err().contains("(0444)"));
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_secret() {
        let fixture = Fixture::new();
        for (content, want) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("s3cret\n\n", "s3cret\n"),
            (" s3cret ", " s3cret "),
        ] {
            Fixture::write(&fixture.config, content.as_bytes(), 0o600);
            assert_eq!(fixture.read().unwrap(), want, "{content:?}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let fixture = Fixture::new();
        assert!(fixture.read().unwrap_err().contains("does not exist in"));
        for (content, want) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"\xff\xfe", "is not text"),
            (&[b'a'; 65_537], "larger than 65536 bytes"),
        ] {
            Fixture::write(&fixture.config, content, 0o600);
            let error = fixture.read().unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        fs::remove_file(fixture.config.path().join("acme.secret")).unwrap();
        fs::create_dir(fixture.config.path().join("acme.secret")).unwrap();
        assert!(fixture.read().unwrap_err().contains("not a regular file"));
    }

    #[test]
    fn a_pipe_in_place_of_a_secret_does_not_hang() {
        let fixture = Fixture::new();
        let path = fixture.config.path().join("acme.secret");
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .expect("mkfifo runs");
        assert!(made.success());
        assert!(fixture.read().unwrap_err().contains("not a regular file"));
    }

    #[test]
    fn the_service_managers_credential_comes_first_and_may_have_group_bits() {
        let fixture = Fixture::new();
        Fixture::write(&fixture.config, b"old", 0o600);
        assert_eq!(fixture.read().unwrap(), "old");
        Fixture::write(&fixture.credentials, b"new", 0o440);
        assert_eq!(fixture.read().unwrap(), "new");
    }

    #[test]
    fn a_name_with_a_directory_is_never_looked_up_among_the_credentials() {
        let fixture = Fixture::new();
        Fixture::write(&fixture.credentials, b"new", 0o400);
        for name in ["../acme.secret", "sub/acme.secret"] {
            assert!(matches!(
                read_secret(Path::new(name), &fixture.places()),
                Err(SecretError::Missing { .. })
            ));
        }
    }

    #[test]
    fn no_error_and_no_debug_output_shows_the_secret() {
        let fixture = Fixture::new();
        Fixture::write(&fixture.config, b"canary\xff", 0o600);
        let error = read_secret(Path::new("acme.secret"), &fixture.places()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("canary"));
        Fixture::write(&fixture.config, b"canary", 0o600);
        let secret = read_secret(Path::new("acme.secret"), &fixture.places()).unwrap();
        assert!(!format!("{secret:?}").contains("canary"));
    }
}
