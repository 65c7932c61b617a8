//! The file of the record log: appended to, and replaced whole when most of it is superseded. An error of the disk costs
//! nobody more than the call that met it: the next one writes a fresh file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Found};
use super::types::Entry;
use crate::disk::{Disk, DiskFile};

const HEADER: [u8; 16] = *b"REELAYRC\x01\0\0\0\0\0\0\0";
const FILE: &str = "log";
const NEW: &str = "log.new";
const UNREADABLE: &str = "log.unreadable";

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// In units of 8 bytes, so that 32 GiB can be named.
    at: u32,
    length: u32,
}

impl Place {
    fn new(offset: u64, length: usize) -> io::Result<Self> {
        let full = |_| io::Error::new(io::ErrorKind::StorageFull, "the record log is full");
        Ok(Self {
            at: u32::try_from(offset / frame::ALIGN).map_err(full)?,
            length: u32::try_from(length).map_err(full)?,
        })
    }

    pub fn bytes(self) -> u64 {
        frame::framed(self.length)
    }

    fn offset(self) -> u64 {
        u64::from(self.at) * frame::ALIGN
    }
}

pub struct Log {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None` until something is written.
    file: Option<Arc<dyn DiskFile>>,
    end: u64,
    /// A write or a sync failed: what the file holds is not known any more.
    broken: bool,
    unsynced: bool,
}

impl Log {
    /// Creates nothing. `each` is told every record with its place, oldest first; `damage` every range that does not read.
    pub fn open(
        store: &Path,
        disk: Arc<dyn Disk>,
        mut each: impl FnMut(&Self, Place, Entry),
        mut damage: impl FnMut(u64, String),
    ) -> Self {
        let dir = store.join("records");
        let mut log = Self {
            file: disk.open(&dir.join(FILE)).ok(),
            dir,
            disk,
            end: HEADER.len() as u64,
            broken: false,
            unsynced: false,
        };
        let Some(file) = log.file.clone() else {
            return log;
        };
        let mut header = [0; HEADER.len()];
        let read = file.read_at(&mut header, 0);
        if read.is_err() || header != HEADER {
            damage(
                0,
                "its header is not one of this program; it was set aside".to_owned(),
            );
            log.set_aside();
            return log;
        }
        let scanned = frame::scan(file.as_ref(), log.end, |found| match found {
            Found::Frame(offset, body) => {
                let entry = serde_json::from_slice(body);
                match (entry, Place::new(offset, body.len())) {
                    (Ok(entry), Ok(place)) => each(&log, place, entry),
                    _ => damage(offset, "a record that this program cannot read".to_owned()),
                }
            }
            Found::Damage(first, end) => damage(first, format!("no record up to {end}")),
        });
        match scanned {
            Ok(end) => log.end = end,
            Err(error) => {
                damage(0, format!("it cannot be read: {error}"));
                log.broken = true;
            }
        }
        log
    }

    fn set_aside(&mut self) {
        let moved = self
            .disk
            .rename(&self.dir.join(FILE), &self.dir.join(UNREADABLE));
        if let Err(error) = moved {
            tracing::warn!(%error, "the record log could not be set aside; it will be replaced");
        }
        self.file = None;
    }

    pub fn length(&self) -> u64 {
        self.end
    }

    /// Appends whole records; they survive a killed process. Nothing of them counts if it fails.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<Vec<Place>> {
        if self.broken {
            return Err(io::Error::other("the record log waits for its replacement"));
        }
        if self.file.is_none() {
            self.begin()?;
        }
        if self.broken {
            return Err(io::Error::other("a fresh record log is not durable yet"));
        }
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            let (offset, length) = encode(entry, self.end, &mut bytes)?;
            places.push(Place::new(offset, length)?);
        }
        let file = self.file.clone().expect("begun above");
        // What a torn append left behind must not come back behind a shorter one.
        let written = match file.length()? > self.end {
            true => file.set_len(self.end),
            false => Ok(()),
        };
        if let Err(error) = written.and_then(|()| file.write_at(&[&bytes], self.end)) {
            self.broken = file.set_len(self.end).is_err();
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.unsynced = true;
        Ok(places)
    }

    pub fn sync(&mut self) -> io::Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        file.sync().inspect_err(|_| self.broken = true)?;
        self.unsynced = false;
        Ok(())
    }

    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub fn read(&self, place: Place) -> io::Result<Entry> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a damaged record");
        let file = self.file.as_ref().ok_or_else(damaged)?;
        let size = usize::try_from(place.bytes()).map_err(|_| damaged())?;
        let mut bytes = vec![0; size];
        let read = file.read_at(&mut bytes, place.offset())?;
        let body = frame::decode(&bytes[..read]).ok_or_else(damaged)?;
        serde_json::from_slice(body).map_err(|_| damaged())
    }

    /// An empty file, durable under its name.
    fn begin(&mut self) -> io::Result<()> {
        self.disk.create_dir(&self.dir)?;
        if let Some(store) = self.dir.parent() {
            self.disk.sync_dir(store)?;
        }
        let file = self.new_file()?;
        self.replace(file, HEADER.len() as u64)
    }

    fn new_file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(NEW);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&path)?;
        file.write_at(&[&HEADER], 0)?;
        Ok(file)
    }

    fn replace(&mut self, file: Arc<dyn DiskFile>, end: u64) -> io::Result<()> {
        file.sync()?;
        self.disk
            .rename(&self.dir.join(NEW), &self.dir.join(FILE))?;
        // The old file has lost its name, whatever comes of this one's: nothing may be written there any more.
        self.file = Some(file);
        self.end = end;
        self.broken = self.disk.sync_dir(&self.dir).is_err();
        self.unsynced = false;
        Ok(())
    }

    /// Begins a file that is to replace this one.
    pub fn rewrite(&self) -> io::Result<Rewrite> {
        Ok(Rewrite {
            file: self.new_file()?,
            end: HEADER.len() as u64,
            bytes: Vec::new(),
        })
    }

    pub fn finish(&mut self, mut rewrite: Rewrite) -> io::Result<()> {
        rewrite.flush()?;
        self.replace(rewrite.file, rewrite.end)
    }
}

/// A replacement under way.
pub struct Rewrite {
    file: Arc<dyn DiskFile>,
    end: u64,
    bytes: Vec<u8>,
}

/// What a rewrite keeps in memory before it writes.
const FLUSH_FROM: usize = 1 << 20;

impl Rewrite {
    pub fn add(&mut self, entry: &Entry) -> io::Result<Place> {
        let (offset, length) = encode(entry, self.end, &mut self.bytes)?;
        if self.bytes.len() >= FLUSH_FROM {
            self.flush()?;
        }
        Place::new(offset, length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&[&self.bytes], self.end)?;
        self.end += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Adds a frame to `bytes`, which will stand at `base`; its offset and the length of its body.
fn encode(entry: &Entry, base: u64, bytes: &mut Vec<u8>) -> io::Result<(u64, usize)> {
    let body = serde_json::to_vec(entry)?;
    let offset = base + bytes.len() as u64;
    if !frame::encode(&body, bytes) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a record is too long",
        ));
    }
    Ok((offset, body.len()))
}
