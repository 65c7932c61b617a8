//! `worker tenants list|pause|resume`.

use serde_json::json;

use crate::control::wire::{Reply, Request};
use crate::model::TenantId;

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// List, pause and resume tenants
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker tenants list")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Every tenant with its gate
    #[command(after_help = "Example:\n  worker tenants list")]
    List,
    /// Send nothing for a tenant until it is resumed; its chunks are kept
    #[command(after_help = "Example:\n  worker tenants pause acme")]
    Pause {
        /// Which one
        tenant: TenantId,
    },
    /// Go on sending, and try at once what was blocked
    #[command(after_help = "Example:\n  worker tenants resume acme")]
    Resume {
        /// Which one
        tenant: TenantId,
    },
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let request = match args.verb {
        Verb::List => Request::Stats {},
        Verb::Pause { tenant } => Request::Pause { tenant },
        Verb::Resume { tenant } => Request::Resume { tenant },
    };
    match desk.ask(&request)? {
        Reply::Stats(snapshot) => {
            let now = desk.clock.wall();
            let tenants = &snapshot.tenants;
            desk.out.answer(&json!({ "tenants": tenants }), || {
                render::tenants(&snapshot, now)
            });
            desk.out.next("worker why TENANT");
        }
        Reply::Paused { tenant, was } => {
            let already = if was { " already" } else { "" };
            desk.out.answer(
                &json!({"tenant": tenant, "paused": true, "was": was}),
                || format!("tenant {tenant} is{already} paused; its chunks are kept"),
            );
            desk.out.next(&format!("worker tenants resume {tenant}"));
        }
        Reply::Resumed { tenant, removed } => {
            desk.out.answer(
                &json!({"tenant": tenant, "paused": false, "removed": removed}),
                || match removed {
                    0 => format!("tenant {tenant}: nothing held it"),
                    _ => format!("tenant {tenant} goes on"),
                },
            );
            desk.out.next(&format!("worker why {tenant}"));
        }
        reply => return Err(odd(&reply)),
    }
    Ok(exit::DONE)
}
