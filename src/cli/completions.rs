//! `worker completions`.

use clap::CommandFactory;

use super::stop::Stop;
use super::{Cli, exit};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker completions bash")]
pub struct Args {
    /// Which one
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Result<u8, Stop> {
    // Made in memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "worker", &mut script);
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Ok(exit::DONE)
}
