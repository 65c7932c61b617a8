//! `worker dead list|show|redrive|purge|export`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::control::wire::{DeadView, Moved, Reply, Request, Which};
use crate::control::{Access, Code, words};
use crate::model::{SessionId, TenantId};

use super::desk::{Desk, odd};
use super::stop::Stop;
use super::{exit, render};

/// Dead letters: chunks that were set aside, with the history of their failures
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker dead list")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Dead letters, by tenant and session
    #[command(after_help = "Example:\n  worker dead list --limit 20")]
    List {
        #[command(flatten)]
        which: Meant,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Dead letters with the history of their failures
    #[command(after_help = "Example:\n  worker dead show acme s1 7")]
    Show {
        #[command(flatten)]
        which: Meant,
    },
    /// Put dead letters back into the queue
    #[command(after_help = "Example:\n  worker dead redrive acme s1 7")]
    Redrive {
        #[command(flatten)]
        which: Meant,
        /// Every dead letter of every tenant
        #[arg(long)]
        all: bool,
    },
    /// Remove dead letters for good
    #[command(after_help = "Example:\n  worker dead purge acme s1 7 --yes")]
    Purge {
        #[command(flatten)]
        which: Meant,
        /// Every dead letter of every tenant
        #[arg(long)]
        all: bool,
        /// The payloads are gone afterwards: say that this is meant
        #[arg(long)]
        yes: bool,
    },
    /// Write payloads, and what is known about them, into a directory
    #[command(after_help = "Example:\n  worker dead export acme s1 7 --to dead-letters")]
    Export {
        #[command(flatten)]
        which: Meant,
        /// The directory, made if need be; no file in it is replaced
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Meant {
    /// Only this tenant's
    tenant: Option<TenantId>,
    /// Only this session's
    session: Option<SessionId>,
    /// Only this one
    sequence: Option<u64>,
}

impl From<Meant> for Which {
    fn from(meant: Meant) -> Self {
        Self {
            tenant: meant.tenant,
            session: meant.session,
            sequence: meant.sequence,
        }
    }
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let (request, verb) = match args.verb {
        Verb::List { which, limit } => return list(which.into(), limit, desk),
        Verb::Show { which } => return show(which.into(), desk),
        Verb::Export { which, to } => return export(which.into(), &to, desk),
        Verb::Redrive { which, all } => {
            let which = named(which, all)?;
            (Request::Redrive { which }, "put back into the queue")
        }
        Verb::Purge { which, all, yes } => {
            let which = named(which, all)?;
            if !yes {
                return Err(Stop::usage(
                    "purged payloads are gone for good; to do it, add --yes",
                ));
            }
            (Request::Purge { which }, "removed for good")
        }
    };
    match desk.ask(&request)? {
        Reply::Redriven(moved) => {
            told(moved, verb, desk);
            desk.out.next("worker drain");
        }
        Reply::Purged(moved) => {
            told(moved, verb, desk);
            desk.out.next("worker --stats");
        }
        reply => return Err(odd(&reply)),
    }
    Ok(exit::DONE)
}

/// Changing everything takes a word for it.
fn named(which: Meant, all: bool) -> Result<Which, Stop> {
    if which.tenant.is_none() && !all {
        return Err(Stop::usage(
            "name a TENANT [SESSION [SEQUENCE]], or say --all",
        ));
    }
    Ok(which.into())
}

fn told(moved: Moved, verb: &str, desk: &Desk) {
    desk.out.answer(&moved, || {
        format!(
            "{} ({}) {verb}",
            words::chunks(moved.chunks),
            words::bytes(moved.bytes)
        )
    });
}

fn list(which: Which, limit: usize, desk: &Desk) -> Result<u8, Stop> {
    let Reply::Dead(letters) = desk.ask(&Request::DeadList { which, limit })? else {
        return Err(Stop::new(
            Code::Internal,
            "the holder answered another question",
        ));
    };
    let now = desk.clock.wall();
    desk.out.answer(&json!({ "dead": letters }), || {
        render::dead_letters(&letters, now)
    });
    match letters.first() {
        Some(first) => desk.out.next(&format!(
            "worker dead show {} {} {}",
            first.tenant, first.session, first.sequence
        )),
        None => desk.out.next("worker --stats"),
    }
    Ok(exit::DONE)
}

fn show(which: Which, desk: &Desk) -> Result<u8, Stop> {
    let Reply::Dead(letters) = desk.ask(&Request::DeadShow { which })? else {
        return Err(Stop::new(
            Code::Internal,
            "the holder answered another question",
        ));
    };
    let now = desk.clock.wall();
    desk.out.answer(&json!({ "dead": letters }), || {
        letters
            .iter()
            .map(|letter| render::letter(letter, now))
            .collect()
    });
    if let Some(first) = letters.first() {
        desk.out.next(&format!(
            "worker dead redrive {} {} {}",
            first.tenant, first.session, first.sequence
        ));
    }
    Ok(exit::DONE)
}

fn export(which: Which, to: &Path, desk: &Desk) -> Result<u8, Stop> {
    let access = desk.reach()?.reach()?;
    let letters = match access.ask(&Request::DeadShow { which })? {
        Reply::Dead(letters) => letters,
        reply => return Err(odd(&reply)),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)
        .map_err(|error| written(to, &error))?;
    let mut damaged = 0;
    for letter in &letters {
        let base = to.join(format!(
            "{}-{}-{}",
            letter.tenant, letter.session, letter.sequence
        ));
        match export_one(&access, letter, &base) {
            Ok(bytes) => desk.out.answer(
                &json!({"file": base.with_added_extension("payload"), "bytes": bytes}),
                || format!("{} → {}.payload", letter.key(), base.display()),
            ),
            Err(stop) => {
                damaged += 1;
                desk.out
                    .remark(&format!("{}: {}", letter.key(), stop.refusal.message));
            }
        }
    }
    access.close()?;
    desk.out.next("worker dead redrive TENANT SESSION SEQUENCE");
    Ok(if damaged > 0 { exit::LEFT } else { exit::DONE })
}

/// Payload and description side by side; neither replaces a file that is there.
fn export_one(access: &Access, letter: &DeadView, base: &Path) -> Result<u64, Stop> {
    let about = base.with_added_extension("json");
    let payload = base.with_added_extension("payload");
    let mut description = fresh(&about)?;
    let mut file = fresh(&payload).inspect_err(|_| drop(std::fs::remove_file(&about)))?;
    let text = serde_json::to_vec_pretty(letter).expect("plain data is JSON");
    let copied = (description.write_all(&text))
        .map_err(|error| written(&about, &error))
        .and_then(|()| Ok(access.dead_payload(&letter.key(), &mut file)?));
    if copied.is_err() {
        // A torn payload must not pass for a whole one, nor its description stand in the way of a repeat.
        let _ = std::fs::remove_file(&payload);
        let _ = std::fs::remove_file(&about);
    }
    let copied = copied?;
    file.sync_all().map_err(|error| written(&payload, &error))?;
    Ok(copied)
}

/// Recordings are for their owner.
fn fresh(path: &Path) -> Result<std::fs::File, Stop> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| written(path, &error))
}

fn written(path: &Path, error: &std::io::Error) -> Stop {
    Stop::new(
        Code::Storage,
        format!("export to {}: {error}", path.display()),
    )
}
