//! `worker fsck`.

use crate::control::Code;
use crate::control::wire::{Reply, Request};
use crate::store::{FsckReport, IndexCheck, Store};

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
            let (next, ended) = after(&report);
            desk.out.next(next);
            Ok(ended)
        }
        reply => Err(odd(&reply)),
    }
}

/// The next command, and how this one ended. Damage leaves dead letters only where it is known whose it is.
fn after(report: &FsckReport) -> (&'static str, u8) {
    let fine = report.damaged.is_empty() && report.balance.balanced;
    match (fine, report.balance.dead) {
        (true, _) => ("worker --stats", exit::DONE),
        (false, 0) => ("worker sessions list", exit::LEFT),
        (false, _) => ("worker dead list", exit::LEFT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Balance;
    use crate::store::Damage;

    /// Seen: a store that had lost a segment and buried nothing sent its operator to a list of nothing.
    #[test]
    fn damage_without_a_dead_letter_does_not_send_to_the_dead_letters() {
        let report = |damaged: usize, dead| FsckReport {
            damaged: vec![Damage::at("000001.seg", 0, "lost"); damaged],
            repaired: Vec::new(),
            balance: Balance {
                dead,
                balanced: true,
                ..Balance::default()
            },
            index: IndexCheck::Ok,
            segments: 1,
            chunks_checked: 0,
            bytes_checked: 0,
        };
        assert_eq!(after(&report(0, 2)), ("worker --stats", exit::DONE));
        assert_eq!(after(&report(1, 0)), ("worker sessions list", exit::LEFT));
        assert_eq!(after(&report(1, 2)), ("worker dead list", exit::LEFT));
    }
}
