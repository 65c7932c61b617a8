//! `worker sandbox`.

use super::desk::Desk;
use super::stop::Stop;

/// A platform to develop against, on this machine only
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker sandbox --write-config sandbox/worker.toml")]
pub struct Args {}

pub fn run(_args: Args, _desk: &Desk) -> Result<u8, Stop> {
    Err(Stop::usage("this build has no sandbox"))
}
