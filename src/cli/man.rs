//! `worker man`.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::control::Code;

use super::stop::Stop;
use super::{Cli, exit};

/// Print the manual page, or write one for every subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker man")]
pub struct Args {
    /// Write worker.1, worker-enqueue.1, … into this directory
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<u8, Stop> {
    let failed = |error: std::io::Error| Stop::new(Code::Storage, format!("manual pages: {error}"));
    match args.to {
        Some(directory) => clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(failed)?;
            let _ = std::io::stdout().write_all(&page);
        }
    }
    Ok(exit::DONE)
}
