//! `worker fsck`.

use crate::control::Code;
use crate::control::wire::{Reply, Request};
use crate::store::{IndexCheck, Store};

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
    let config = desk.config()?;
    if args.rebuild_index {
        Store::distrust_index(&config.store.path)
            .map_err(|error| Stop::new(Code::Storage, format!("index mark: {error}")))?;
    }
    match desk.reach_with(config).ask(&Request::Fsck {})? {
        Reply::Fsck(report) => {
            if args.rebuild_index && report.index == IndexCheck::Ok {
                desk.out
                    .remark("the worker that holds the store makes a new index at its next start");
            }
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
