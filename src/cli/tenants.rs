//! `worker tenants list|show|pause|resume`.

use serde_json::json;

use crate::control::wire::{Reply, Request};
use crate::control::{Code, Refusal};
use crate::model::TenantId;

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// List, show, pause and resume tenants
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
    /// One tenant: requests a minute, own share, what is left of its budget, pauses, concurrency, groups
    #[command(after_help = "Example:\n  worker tenants show acme")]
    Show {
        /// Which one
        tenant: TenantId,
    },
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
    let mut shown = None;
    let request = match args.verb {
        Verb::List => Request::Stats {},
        Verb::Show { tenant } => {
            shown = Some(tenant);
            Request::Stats {}
        }
        Verb::Pause { tenant } => Request::Pause { tenant },
        Verb::Resume { tenant } => Request::Resume { tenant },
    };
    match desk.ask(&request)? {
        Reply::Stats(snapshot) if let Some(tenant) = &shown => {
            let Some(view) = snapshot.tenants.get(tenant.as_str()) else {
                let known = desk.config()?.tenant_names();
                let message = format!("unknown tenant \"{tenant}\"; configured: {known}");
                return Err(Refusal::new(Code::UnknownTenant, message).into());
            };
            let now = desk.clock.wall();
            desk.out
                .answer(&json!({"tenant": tenant, "view": view}), || {
                    render::tenant(tenant.as_str(), view, now)
                });
            desk.out.next(&format!("worker why {tenant}"));
        }
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
        Reply::Resumed {
            tenant,
            removed,
            served,
        } => {
            desk.out.answer(
                &json!({"tenant": tenant, "paused": false, "removed": removed, "served": served}),
                || resumed(&tenant, removed, served),
            );
            desk.out.next(&if served {
                format!("worker why {tenant}")
            } else {
                "worker run".to_owned()
            });
        }
        reply => return Err(odd(&reply)),
    }
    Ok(exit::DONE)
}

/// Without anybody who delivers, nothing goes on yet.
fn resumed(tenant: &TenantId, removed: usize, served: bool) -> String {
    match (removed, served) {
        (0, _) => format!("tenant {tenant}: nothing held it"),
        (_, true) => format!("tenant {tenant} goes on"),
        (_, false) => format!("tenant {tenant} goes on as soon as a worker runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_promises_nothing_while_nobody_delivers() {
        let said = |removed, served| resumed(&"acme".parse().unwrap(), removed, served);
        assert_eq!(said(1, true), "tenant acme goes on");
        assert_eq!(
            said(1, false),
            "tenant acme goes on as soon as a worker runs"
        );
        assert_eq!(said(0, false), "tenant acme: nothing held it");
    }
}
