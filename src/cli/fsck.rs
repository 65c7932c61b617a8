//! `worker fsck`.

use crate::control::wire::{Reply, Request};

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// Read everything in the store and check that nothing is missing or damaged
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker fsck")]
pub struct Args {
    /// Replace a missing or wrong index by one made from the journal
    #[arg(long)]
    rebuild_index: bool,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let request = Request::Fsck {
        rebuild: args.rebuild_index,
    };
    match desk.ask(&request)? {
        Reply::Fsck(report) => {
            desk.out.answer(&report, || render::fsck(&report));
            if report.damaged.is_empty() && report.balance.balanced {
                desk.out.next("worker --stats");
                return Ok(exit::DONE);
            }
            desk.out.next("worker dead list");
            Ok(exit::LEFT)
        }
        reply => Err(odd(&reply)),
    }
}
