//! What `worker demo` shows: a real screen recording on its way through the queue, over the public command line. Every
//! command is run as a child process; faults are made at the emulated platform, and what arrived is judged by the
//! recordings that are compiled in, never by what the worker says.

mod cast;
mod children;
mod error;
mod platform;
pub mod recording;
mod scene;
mod script;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::clock::Clock;

pub use error::DemoError;
pub use verdict::{Faults, Kill, Report, Row, Take};

/// Names the process that a child of the demo must not outlive.
pub(super) const END_WITH: &str = "REELAY_END_WITH";

/// In a child of the demo: makes the system end this process with its parent, also where that is killed and can end
/// nobody. Elsewhere nothing. `false`: the parent is gone already.
pub fn end_with_parent() -> bool {
    let Some(parent) = std::env::var_os(END_WITH) else {
        return true;
    };
    // Without it only a kill of the demo leaves a child behind.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // Asked afterwards: a parent that died before would never be noticed.
    let now = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    now.is_some_and(|now| parent == now.as_str())
}

/// How the demo is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything goes; must be new or empty. `None`: a temporary directory that is kept.
    pub keep: Option<PathBuf>,
    /// Who meets which fault, and in which order sessions hand over.
    pub seed: u64,
    /// One recorded chunk never reaches the worker: the demo has to notice.
    pub drop_one: bool,
}

/// Something to show, as soon as it happens.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// The heading of a step.
    Step(&'a str),
    /// A command of this program, run now.
    Command(&'a str),
    /// What it printed.
    Output(&'a str),
    /// A request to the emulated platform, which makes or ends a fault.
    Platform(&'a str),
    Remark(&'a str),
}

/// Hears every line.
pub type Tell = Arc<dyn Fn(Line<'_>) + Send + Sync>;

/// Plays the demo to its end. Dropped before that, it ends the processes that it started.
///
/// # Errors
/// A step did not do what it should have done. A run that reached its end is told by the report, also when it failed.
pub async fn play(
    options: &Options,
    clock: Arc<dyn Clock>,
    tell: Tell,
) -> Result<Report, DemoError> {
    let directory = directory(options.keep.as_deref())?;
    script::play(options, &directory, clock, tell).await
}

/// An absolute path, because the commands run inside it.
fn directory(keep: Option<&Path>) -> Result<PathBuf, DemoError> {
    let Some(path) = keep else {
        let made = tempfile::Builder::new().prefix("reelay-demo-").tempdir();
        let made = made.map_err(DemoError::file(&std::env::temp_dir()))?;
        return Ok(made.keep());
    };
    let path = std::path::absolute(path).map_err(DemoError::file(path))?;
    std::fs::create_dir_all(&path).map_err(DemoError::file(&path))?;
    let mut inside = std::fs::read_dir(&path).map_err(DemoError::file(&path))?;
    if inside.next().is_some() {
        return Err(DemoError::NotEmpty { path });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("mine");
        std::fs::write(&inside, b"mine").unwrap();
        let refused = directory(Some(dir.path())).unwrap_err();
        assert!(matches!(refused, DemoError::NotEmpty { .. }), "{refused}");
        assert_eq!(std::fs::read(&inside).unwrap(), b"mine");
        std::fs::remove_file(&inside).unwrap();
        assert_eq!(directory(Some(dir.path())).unwrap(), dir.path());
        let new = dir.path().join("a/b");
        assert!(directory(Some(&new)).unwrap().is_dir());
    }
}
