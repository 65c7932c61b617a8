//! `worker enqueue`: exits 0 only when every file is durable. Everything that can be known to be wrong is
//! found before the first file is offered.

mod plan;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::config::Config;
use crate::control::wire::EnqueuedView;
use crate::control::{Access, Code, Reach, Refusal};
use crate::model::{SessionId, TenantId};

use super::desk::{Desk, span};
use super::out::bounded;
use super::payload::{self, Origin, Payload};
use super::progress::Progress;
use super::stop::Stop;
use super::{exit, render};
use plan::Plan;

/// Make recorded files durable; exit 0 means that they are
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  worker enqueue --tenant acme --session s1 --sequence 0 part-0.mp4 part-1.mp4"
)]
pub struct Args {
    /// Whose recording it is
    #[arg(long)]
    tenant: TenantId,
    /// Which continuous recording; unique on this host
    #[arg(long)]
    session: SessionId,
    /// The first file's number; the next ones count up. Makes the command safe to repeat
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    sequence: Option<u64>,
    /// When the first file's recording began, with its UTC offset [default: from the file's time]
    #[arg(long, value_name = "RFC3339")]
    started_at: Option<String>,
    /// How much recording each file holds
    #[arg(long, value_name = "SPAN", value_parser = span)]
    duration: Option<Duration>,
    /// What the files hold, such as video/mp4 [default: from the file's name]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// The session ends with the last file
    #[arg(long)]
    last: bool,
    /// Without --sequence: add the files even if the session has these bytes already
    #[arg(long, conflicts_with = "sequence")]
    append: bool,
    /// What to enqueue; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let config = desk.config()?;
    if !config.tenants.contains_key(&args.tenant) {
        let known = config.tenant_names();
        let message = format!("unknown tenant \"{}\"; configured: {known}", args.tenant);
        return Err(Stop::new(Code::UnknownTenant, message));
    }
    let plan = Plan::of(args)?;
    let total = look(&plan)?;
    let mut stdin = None;
    if plan.origins.contains(&Origin::Stdin) {
        stdin = Some(read_stdin(&config, desk)?);
    }
    let reach = desk.reach_with(config);
    let progress = Progress::of_bytes(desk.out, total);
    let ended = offer_all(&plan, &reach, stdin, desk, &progress);
    drop(progress);
    let offered = ended?;
    if offered.exit == exit::DONE {
        desk.out.next(offered.next);
    }
    Ok(offered.exit)
}

/// Looks at every file before the first is offered; the sum of their lengths.
fn look(plan: &Plan) -> Result<u64, Stop> {
    let mut total = 0;
    for origin in &plan.origins {
        if let Origin::File(path) = origin {
            total += payload::open(path)?.bytes;
        }
    }
    Ok(total)
}

fn read_stdin(config: &Config, desk: &Desk) -> Result<Payload, Stop> {
    let limit = config.store.max_chunk_bytes;
    let now = desk.clock.wall();
    let mut stdin = std::io::stdin().lock();
    Ok(payload::spool(&mut stdin, limit, &config.store.path, now)?)
}

struct Offered {
    exit: u8,
    next: &'static str,
}

/// Offers the files in order. Without `--sequence` a refusal ends it, because later files would take the
/// refused one's place; with it, only trouble that the next file would meet too.
fn offer_all(
    plan: &Plan,
    reach: &Reach,
    mut stdin: Option<Payload>,
    desk: &Desk,
    progress: &Progress,
) -> Result<Offered, Stop> {
    let mut access = reach.reach()?;
    let mut codes = Vec::new();
    for (place, origin) in plan.origins.iter().enumerate() {
        let mut offer = Offer {
            place,
            origin,
            again: false,
        };
        let mut answer = offer.to(plan, &mut stdin, &access);
        // The holder went away: its successor is asked.
        if closing(&answer) && *origin != Origin::Stdin {
            offer.again = true;
            access = reach.reach()?;
            answer = offer.to(plan, &mut stdin, &access);
        }
        progress.above(|| told(origin, &answer, desk));
        match answer {
            Ok(view) => progress.advance(view.bytes),
            Err(refusal) => {
                let code = exit::of_refusal(refusal.code);
                codes.push(code);
                let passes = matches!(code, exit::USAGE | exit::LEFT);
                if plan.args.sequence.is_none() || !passes {
                    break;
                }
            }
        }
    }
    let next = match &access {
        Access::Open(_) => "worker drain",
        Access::Asked(..) => "worker --stats",
    };
    access.close()?;
    Ok(Offered {
        exit: exit::strongest(codes),
        next,
    })
}

fn closing(answer: &Result<EnqueuedView, Refusal>) -> bool {
    answer
        .as_ref()
        .is_err_and(|refusal| refusal.code == Code::Closing)
}

/// One file on its way to the store.
struct Offer<'a> {
    place: usize,
    origin: &'a Origin,
    /// Offered before to a holder that went away, and perhaps accepted there.
    again: bool,
}

impl Offer<'_> {
    fn to(
        &self,
        plan: &Plan,
        stdin: &mut Option<Payload>,
        access: &Access,
    ) -> Result<EnqueuedView, Refusal> {
        let payload = match self.origin {
            Origin::File(path) => payload::open(path)?,
            Origin::Stdin => stdin.take().expect("one origin is standard input"),
        };
        access.enqueue(plan.chunk(self.place, self.again, &payload), payload.reader)
    }
}

fn told(origin: &Origin, answer: &Result<EnqueuedView, Refusal>, desk: &Desk) {
    let shown = origin.shown();
    let file = bounded(&shown);
    match answer {
        Ok(view) if desk.out.json => {
            let mut object = json!({ "file": file });
            let view = serde_json::to_value(view).expect("plain data is JSON");
            if let (Some(object), serde_json::Value::Object(view)) = (object.as_object_mut(), view)
            {
                object.extend(view);
            }
            desk.out.object(&object);
        }
        Ok(view) => desk.out.say(&render::enqueued(&file, view)),
        Err(refusal) => {
            let message = render::refused(&file, &refusal.message);
            super::out::trouble(&message);
            if desk.out.json {
                let message = bounded(&refusal.message);
                let error = json!({"code": refusal.code, "message": message});
                desk.out.object(&json!({"file": file, "error": error}));
            }
        }
    }
}
