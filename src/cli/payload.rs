//! Where an enqueued payload comes from: a file that must not change while it is read, or a pipe that is
//! first written down, so that a slow producer never holds the store.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::control::{Code, Refusal};
use crate::model::Timestamp;

/// A pipe's payload up to here stays in memory.
const IN_MEMORY: usize = 1 << 20;

/// One payload to enqueue, not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Stdin,
}

impl Origin {
    pub fn parse(argument: PathBuf) -> Self {
        if argument.as_os_str() == "-" {
            Self::Stdin
        } else {
            Self::File(argument)
        }
    }

    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }
}

/// An opened payload.
pub struct Payload {
    pub reader: Box<dyn Read + Send>,
    pub bytes: u64,
    /// When it was finished, as far as anybody knows.
    pub ended_at: Timestamp,
}

/// Opens a file for one steady reading.
///
/// # Errors
/// Not there, not a regular file, or empty.
pub fn open(path: &Path) -> Result<Payload, Refusal> {
    let shown = path.display();
    let bad = |error: io::Error| Refusal::new(Code::BadInput, format!("{shown}: {error}"));
    let no_file = |about: &Metadata| {
        let what = match about.is_dir() {
            true => "is a directory; name the files in it",
            false => "is not a regular file; pipe it in and give - instead",
        };
        Refusal::new(Code::BadInput, format!("{shown} {what}"))
    };
    // Before it is opened: opening a named pipe waits for whoever writes into it.
    let about = std::fs::metadata(path).map_err(bad)?;
    if !about.is_file() {
        return Err(no_file(&about));
    }
    let file = File::open(path).map_err(bad)?;
    let about = file.metadata().map_err(bad)?;
    if !about.is_file() {
        return Err(no_file(&about));
    }
    if about.len() == 0 {
        return Err(Refusal::new(
            Code::Empty,
            format!("{shown} is empty; nothing was enqueued"),
        ));
    }
    let ended_at = Timestamp(about.mtime() * 1_000 + about.mtime_nsec() / 1_000_000);
    Ok(Payload {
        bytes: about.len(),
        ended_at,
        reader: Box::new(Steady::new(file, &about)),
    })
}

/// Writes standard input down, in memory or in an unnamed file beside the store.
///
/// # Errors
/// More than `limit` bytes, nothing at all, or a disk that does not take them.
pub fn spool(
    input: &mut dyn Read,
    limit: u64,
    beside: &Path,
    now: Timestamp,
) -> Result<Payload, Refusal> {
    let failed = |what: &str, error: io::Error| {
        Refusal::new(Code::Storage, format!("standard input: {what}: {error}"))
    };
    // As private as the store makes it: it may be this that makes it.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(beside)
        .map_err(|error| failed("making the store's directory", error))?;
    let mut spool = tempfile::spooled_tempfile_in(IN_MEMORY, beside);
    let bytes = io::copy(&mut input.take(limit.saturating_add(1)), &mut spool)
        .map_err(|error| failed("writing it down", error))?;
    if bytes > limit {
        let message = format!("standard input is larger than max_chunk_bytes ({limit})");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    if bytes == 0 {
        let message = "standard input is empty; nothing was enqueued";
        return Err(Refusal::new(Code::Empty, message));
    }
    spool
        .rewind()
        .map_err(|error| failed("reading it back", error))?;
    Ok(Payload {
        reader: Box::new(spool),
        bytes,
        ended_at: now,
    })
}

/// A file that reports any change at the end of its reading, before its last byte is accepted: a chunk is
/// whole or refused.
struct Steady {
    file: File,
    length: u64,
    changed_at: (i64, i64),
    read: u64,
}

impl Steady {
    fn new(file: File, about: &Metadata) -> Self {
        Self {
            file,
            length: about.len(),
            changed_at: (about.mtime(), about.mtime_nsec()),
            read: 0,
        }
    }

    fn check(&self) -> io::Result<()> {
        let about = self.file.metadata()?;
        let (was, is) = (self.length, about.len().max(self.read));
        let what = if is > was {
            format!("the file grew while it was read, from {was} to {is} bytes")
        } else if self.read < was || about.len() < was {
            let is = self.read.min(about.len());
            format!("the file shrank while it was read, from {was} to {is} bytes")
        } else if (about.mtime(), about.mtime_nsec()) != self.changed_at {
            "the file was written to while it was read".to_owned()
        } else {
            return Ok(());
        };
        let message = format!("{what}; nothing of it was enqueued");
        Err(io::Error::new(ErrorKind::InvalidData, message))
    }
}

impl Read for Steady {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.read += count as u64;
        // Checked with the last byte and not only after it: a reader that knows the length stops there.
        if !into.is_empty() && (count == 0 || self.read >= self.length) {
            self.check()?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chunk.mp4");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn append(path: &Path) {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_refused() {
        let (_dir, path) = file(&[7; 100]);
        let mut payload = open(&path).unwrap();
        payload.reader.read_exact(&mut [0; 10]).unwrap();
        append(&path);
        let error = payload.reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(
            error
                .to_string()
                .contains("grew while it was read, from 100 to 104"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_shrinks_or_is_rewritten_while_it_is_read_is_refused() {
        let (_dir, path) = file(&[7; 100]);
        let mut payload = open(&path).unwrap();
        payload.reader.read_exact(&mut [0; 10]).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(40)
            .unwrap();
        let error = payload.reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("shrank"), "{error}");

        let (_dir, path) = file(&[7; 100]);
        let mut payload = open(&path).unwrap();
        payload.reader.read_exact(&mut [0; 10]).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let error = payload.reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("was written to"), "{error}");
    }

    #[test]
    fn a_change_is_seen_by_a_reader_that_stops_at_the_announced_length() {
        let (_dir, path) = file(&[7; 100]);
        let mut payload = open(&path).unwrap();
        append(&path);
        assert!(payload.reader.read_exact(&mut [0; 100]).is_err());
    }

    #[test]
    fn a_steady_file_reads_whole() {
        let (_dir, path) = file(&[7; 100]);
        let mut bytes = Vec::new();
        open(&path).unwrap().reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
    }

    #[test]
    fn what_is_empty_or_no_file_is_refused() {
        let (dir, path) = file(b"");
        assert_eq!(open(&path).err().unwrap().code, Code::Empty);
        assert_eq!(open(dir.path()).err().unwrap().code, Code::BadInput);
        assert_eq!(
            open(&dir.path().join("no")).err().unwrap().code,
            Code::BadInput
        );
    }

    /// Seen: opening it waited for a writer that never came.
    #[test]
    fn a_named_pipe_is_refused_before_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let (mode, node) = (rustix::fs::Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &path, node, mode, 0).unwrap();
        assert_eq!(open(&path).err().unwrap().code, Code::BadInput);
    }

    #[test]
    fn a_pipe_is_bounded_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let spooled = |text: &[u8], limit| spool(&mut &text[..], limit, dir.path(), Timestamp(0));
        assert_eq!(spooled(b"", 10).err().unwrap().code, Code::Empty);
        assert_eq!(spooled(b"12345", 4).err().unwrap().code, Code::TooLarge);
        let mut payload = spooled(b"1234", 4).unwrap();
        let mut bytes = Vec::new();
        payload.reader.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.as_slice(), payload.bytes), (&b"1234"[..], 4));
        let private = dir.path().join("store");
        spool(&mut &b"1"[..], 4, &private, Timestamp(0)).unwrap();
        assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(&private).unwrap();
        // Neither a long one nor a short one leaves a name behind.
        let long = vec![1; IN_MEMORY + 1];
        let kept = spooled(&long, u64::MAX).unwrap();
        assert_eq!(kept.bytes, long.len() as u64);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
