//! The lock of a store: one process at a time, and its name for who finds it held.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::OpenError;

const LOCK: &str = "lock";

pub fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let io_error = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whatever stands there is only for the message.
            let _ = (&mut file).take(200).read_to_string(&mut holder);
            let pid = holder
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok());
            let holder = match (pid, holder.split_once(' ')) {
                (Some(pid), Some((_, command))) => format!("{} (pid {pid})", command.trim()),
                _ => "another process".to_owned(),
            };
            return Err(OpenError::Held {
                path: dir.to_owned(),
                holder,
                pid,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    // The first bare word: options and their values have dashes, dots, slashes or digits.
    let is_word = |text: &String| text.chars().all(|c| c.is_ascii_lowercase());
    let command = std::env::args().skip(1).find(is_word).unwrap_or_default();
    let line = format!("{} worker {}\n", std::process::id(), command.escape_debug());
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(line.as_bytes()));
    // On a full disk the name of the holder is not worth a failure.
    drop(written);
    Ok(file)
}
