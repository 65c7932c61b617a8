//! `worker why`.

use crate::control::wire::{Reply, Request};
use crate::model::{SessionId, TenantId};

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// What a tenant, session or chunk waits for, and what to do
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker why acme")]
pub struct Args {
    /// Whose chunks wait
    tenant: TenantId,
    /// One of its sessions
    session: Option<SessionId>,
    /// One chunk of that session
    sequence: Option<u64>,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let request = Request::Why {
        tenant: args.tenant,
        session: args.session,
        sequence: args.sequence,
    };
    match desk.ask(&request)? {
        Reply::Why(reply) => {
            let now = desk.clock.wall();
            desk.out.answer(&reply, || render::why(&reply, now));
            Ok(exit::DONE)
        }
        reply => Err(odd(&reply)),
    }
}
