//! `worker sessions list|show|end|promote`.

use crate::control::sessions::Ask;
use crate::control::wire::{Reply, Request};
use crate::model::{SessionId, SessionKey, TenantId};

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// List, show, end and promote sessions
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker sessions list --owed")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The remembered sessions with their chunks
    #[command(after_help = "Example:\n  worker sessions list --tenant acme --limit 20")]
    List {
        /// Only this tenant's
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        /// Only those with chunks to deliver
        #[arg(long)]
        owed: bool,
        /// At most so many, in the order of their names
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// One session: its sequences, its gaps, and what it waits for
    #[command(after_help = "Example:\n  worker sessions show acme s1")]
    Show {
        /// Whose session
        tenant: TenantId,
        /// Its name
        session: SessionId,
    },
    /// Say that nothing more is to come; what comes late is delivered all the same
    #[command(after_help = "Example:\n  worker sessions end acme s1")]
    End {
        /// Whose session
        tenant: TenantId,
        /// Its name
        session: SessionId,
    },
    /// Send this session before its tenant's others, until it owes nothing
    #[command(after_help = "Example:\n  worker sessions promote acme s1")]
    Promote {
        /// Whose session
        tenant: TenantId,
        /// Its name
        session: SessionId,
    },
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let ask = match args.verb {
        Verb::List {
            tenant,
            owed,
            limit,
        } => Ask::List {
            tenant,
            owed,
            limit,
        },
        Verb::Show { tenant, session } => Ask::Show(SessionKey { tenant, session }),
        Verb::End { tenant, session } => Ask::End(SessionKey { tenant, session }),
        Verb::Promote { tenant, session } => Ask::Promote(SessionKey { tenant, session }),
    };
    let now = desk.clock.wall();
    match desk.ask(&Request::Sessions { ask })? {
        Reply::Sessions(list) => {
            desk.out.answer(&list, || render::sessions(&list, now));
            desk.out.next("worker sessions show TENANT SESSION");
        }
        Reply::Session(detail) => {
            desk.out.answer(&detail, || render::session(&detail, now));
        }
        Reply::SessionEnded(ended) => {
            desk.out
                .answer(&ended, || render::session_ended(&ended, now));
            let (tenant, session) = (&ended.tenant, &ended.session);
            desk.out
                .next(&format!("worker sessions show {tenant} {session}"));
        }
        Reply::SessionPromoted(promoted) => {
            desk.out
                .answer(&promoted, || render::session_promoted(&promoted));
            let (tenant, session) = (&promoted.tenant, &promoted.session);
            desk.out.next(&format!("worker why {tenant} {session}"));
        }
        reply => return Err(odd(&reply)),
    }
    Ok(exit::DONE)
}
