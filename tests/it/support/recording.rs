//! The real recording in `tests/recording`: three sessions of twelve chunks.

use std::fs;
use std::path::PathBuf;

pub const SESSIONS: [&str; 3] = ["desk-1", "desk-2", "desk-3"];

fn folder(session: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recording")
        .join(session)
}

/// The chunks of a session in order.
pub fn session_files(session: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder(session)).expect("the recording is there");
    let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 12);
    files
}

/// The session's film: its chunks one after another.
pub fn film(session: &str) -> Vec<u8> {
    let files = session_files(session);
    files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect()
}
