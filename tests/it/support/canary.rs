//! Whatever is secret, tests and sandbox have minted with a canary in it, so that it can be looked for wherever it must
//! not be: in what a process says, in its trace, in its store.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The canary, and what of it stands in base64 at each of the three places where it can begin.
const MARKS: [&str; 4] = ["canary", "Y2FuYXJ5", "NhbmFye", "jYW5hcn"];

/// Files that are there to hold a secret: an operator's, and the rotated tokens of a store. Into the configuration, which no
/// command here writes, some are pasted on purpose.
const SECRET_FILES: [&str; 7] = [
    "worker.toml",
    "*.secret",
    "*.pem",
    "*.key",
    "*.token",
    "*.refresh",
    "*.password",
];
const SECRET_FOLDERS: [&str; 1] = ["tokens"];

pub fn is_in(text: &str) -> bool {
    MARKS.iter().any(|mark| text.contains(mark))
}

/// Files in `folder` that hold a secret and are not there for it.
pub fn leaks(folder: &Path) -> Vec<PathBuf> {
    let mut grep = Command::new("grep");
    grep.args([
        "--recursive",
        "--files-with-matches",
        "--text",
        "--fixed-strings",
        "--null",
    ]);
    for mark in MARKS {
        grep.args(["--regexp", mark]);
    }
    for name in SECRET_FILES {
        grep.arg(format!("--exclude={name}"));
    }
    for name in SECRET_FOLDERS {
        grep.arg(format!("--exclude-dir={name}"));
    }
    let told = grep.arg(folder).output().expect("grep is there");
    // 2 is trouble, such as a socket or a file that has gone meanwhile; what it found counts all the same.
    let names = String::from_utf8_lossy(&told.stdout).into_owned();
    names.split_terminator('\0').map(PathBuf::from).collect()
}

/// At the end of a test: nothing in `folders` holds a secret. A test that fails already has said enough.
pub fn assert_none(folders: &[&Path]) {
    if std::thread::panicking() {
        return;
    }
    let found: Vec<_> = folders.iter().flat_map(|folder| leaks(folder)).collect();
    assert!(found.is_empty(), "a secret is kept in {found:?}");
}

/// Where `REELAY_TRACES_KEPT` names a file, for a look at all of them together when the tests have ended.
pub fn keep(traces: &Path) {
    let Some(kept) = std::env::var_os("REELAY_TRACES_KEPT") else {
        return;
    };
    let kept = std::fs::File::options()
        .create(true)
        .append(true)
        .open(kept);
    let mut kept = kept.expect("REELAY_TRACES_KEPT can be written");
    for entry in std::fs::read_dir(traces).unwrap().map(Result::unwrap) {
        let trace = std::fs::read(entry.path()).unwrap();
        kept.write_all(&trace).unwrap();
    }
}
