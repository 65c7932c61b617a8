//! What every command starts from: the global options, the configuration and the way to the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Lookup, unit};
use crate::control::wire::{Reply, Request};
use crate::control::{Code, Reach, Refusal};

use super::out::{Out, trouble};
use super::stop::Stop;

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: ./worker.toml, then /etc/reelay/worker.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer in JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only the answer and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How long to wait for another command that holds the store
    #[arg(long, global = true, value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub wait: Duration,
    /// What to log to standard error, such as info or reelay=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// A span of time with its unit, as on every option that takes one.
pub fn span(text: &str) -> Result<Duration, String> {
    unit::duration(text).map_err(|error| format!("{text:?} {error}"))
}

pub struct Desk {
    pub global: Global,
    pub out: Out,
    pub clock: Arc<dyn Clock>,
}

impl Desk {
    pub fn new(global: Global) -> Self {
        Self {
            out: Out {
                json: global.json,
                quiet: global.quiet,
            },
            global,
            clock: Arc::new(SystemClock),
        }
    }

    /// # Errors
    /// Every finding in the configuration at once.
    pub fn config(&self) -> Result<Arc<Config>, Stop> {
        let lookup = Lookup {
            given: self.global.config.clone(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        };
        Ok(Arc::new(config::load(&lookup)?))
    }

    /// # Errors
    /// As [`Desk::config`].
    pub fn reach(&self) -> Result<Reach, Stop> {
        Ok(self.reach_with(self.config()?))
    }

    pub fn reach_with(&self, config: Arc<Config>) -> Reach {
        let quiet = self.out.quiet;
        Reach {
            config,
            clock: Arc::clone(&self.clock),
            wait: self.global.wait,
            notice: Arc::new(move |text| {
                if !quiet {
                    trouble(text);
                }
            }),
        }
    }

    /// Asks one thing of whoever holds the store.
    ///
    /// # Errors
    /// The configuration's findings, or the answer's refusal.
    pub fn ask(&self, request: &Request) -> Result<Reply, Stop> {
        Ok(self.reach()?.ask(request)?)
    }
}

/// A reply to another question than the one asked.
pub fn odd(_reply: &Reply) -> Stop {
    Refusal::new(Code::Internal, "the holder answered another question").into()
}
