//! `worker stats`, and `worker --stats`.

use crate::control::wire::{Reply, Request};

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// The backlog of this host, now
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker stats --json")]
pub struct Args {}

pub fn run(desk: &Desk) -> Result<u8, Stop> {
    match desk.ask(&Request::Stats {})? {
        Reply::Stats(snapshot) => {
            let now = desk.clock.wall();
            desk.out.answer(&snapshot, || render::stats(&snapshot, now));
            Ok(exit::DONE)
        }
        reply => Err(odd(&reply)),
    }
}
