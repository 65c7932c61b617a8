//! The file of a rotated refresh token (docs/FORMAT.md, tokens): replaced whole and synced before the token is used, because
//! its endpoint has forgotten the one before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::model::Digest;

/// A larger file was not written here.
const BYTES_MAX: u64 = 64 * 1024;
const VERSION: u64 = 1;

/// Where one slot keeps the refresh token that it was given last.
#[derive(Clone)]
pub struct RotatedFile {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    name: String,
}

/// A refresh token that an endpoint gave, and of which of the operator's tokens it descends.
#[derive(Debug)]
pub struct Rotated {
    pub token: SecretString,
    pub seed: Digest,
}

impl std::fmt::Debug for RotatedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RotatedFile({})", self.path().display())
    }
}

impl RotatedFile {
    /// `identity` tells the slot from every other one; the name is a hash of it.
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf, identity: &[&str]) -> Self {
        let digest = Digest::of(identity.join("\n").as_bytes());
        let name = format!("{}.refresh", &digest.hex()[..32]);
        Self {
            disk,
            directory,
            name,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// `None` where none was written yet, or what is there is none of ours: the operator's token is tried then.
    ///
    /// # Errors
    /// The disk's: an older token must not be sent because the newest cannot be read.
    pub fn read(&self) -> io::Result<Option<Rotated>> {
        let file = match self.disk.open(&self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.length()?.min(BYTES_MAX);
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
        let read = file.read_at(&mut bytes, 0)?;
        Ok(parse(&bytes[..read]))
    }

    /// Durable when it returns: written beside, synced, renamed over the last one, directory synced.
    ///
    /// # Errors
    /// Whatever the disk says; the file before is then still whole.
    pub fn write(&self, rotated: &Rotated) -> io::Result<()> {
        let text = Zeroizing::new(
            json!({
                "version": VERSION,
                "seed": rotated.seed.to_string(),
                "refresh_token": rotated.token.expose_secret(),
            })
            .to_string(),
        );
        self.disk.create_dir(&self.directory)?;
        let beside = self.directory.join(format!("{}.new", self.name));
        // One that a crash left behind; a new file alone is sure to be private.
        match self.disk.remove(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&beside)?;
        file.write_at(&[text.as_bytes()], 0)?;
        file.sync()?;
        self.disk.rename(&beside, &self.path())?;
        self.disk.sync_dir(&self.directory)?;
        // The directory itself may be new.
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        self.disk.sync_dir(parent)
    }
}

fn parse(bytes: &[u8]) -> Option<Rotated> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if value["version"].as_u64() != Some(VERSION) {
        return None;
    }
    Some(Rotated {
        token: SecretString::from(value["refresh_token"].as_str()?),
        seed: value["seed"].as_str()?.parse().ok()?,
    })
}
