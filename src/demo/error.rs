//! Why the demo could not be played to its end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::http::HttpError;

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{} is not empty; name a new directory", path.display())]
    NotEmpty { path: PathBuf },
    #[error("preparing {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("finding this program's own file")]
    Program(#[source] io::Error),
    #[error("starting {command}")]
    Start {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command} ended with {status}: {said}")]
    Ended {
        command: String,
        status: String,
        said: String,
    },
    #[error("signalling {command}")]
    Signal {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command} printed what is no answer: {said}")]
    Odd { command: String, said: String },
    #[error("{what} did not happen within {} s", within.as_secs())]
    Late { what: String, within: Duration },
    #[error(transparent)]
    Client(#[from] HttpError),
    #[error("asking the platform: {request}")]
    Platform {
        request: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the platform refused {request}: {status} {said}")]
    Refused {
        request: String,
        status: u16,
        said: String,
    },
}

impl DemoError {
    /// For `map_err`.
    pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            path: path.clone(),
            source,
        }
    }
}
