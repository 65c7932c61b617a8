//! `worker enqueue`: exits 0 only when every file is durable. Everything that can be known to be wrong is
//! found before the first file is offered.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::config::Config;
use crate::control::server::media_type;
use crate::control::wire::EnqueuedView;
use crate::control::{Access, Code, Reach, Refusal};
use crate::model::{SessionId, TenantId, Timestamp};
use crate::store::{NewChunk, SequenceChoice};

use super::desk::{Desk, span};
use super::payload::{self, Origin, Payload};
use super::progress::Progress;
use super::stop::Stop;
use super::{exit, render};

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
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// When the first file's recording began, with its UTC offset [default: from the file's time]
    #[arg(long, value_name = "RFC3339")]
    started_at: Option<String>,
    /// How much recording each file holds
    #[arg(long, value_name = "SPAN", value_parser = span)]
    duration: Option<Duration>,
    /// [default: from the file's name]
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

/// The arguments after every check that needs no store.
struct Plan {
    args: Args,
    origins: Vec<Origin>,
    started_at: Option<Timestamp>,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let config = desk.config()?;
    if !config.tenants.contains_key(&args.tenant) {
        let known = config.tenant_names();
        let message = format!("unknown tenant \"{}\"; configured: {known}", args.tenant);
        return Err(Stop::new(Code::UnknownTenant, message));
    }
    let plan = plan(args)?;
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

fn plan(args: Args) -> Result<Plan, Stop> {
    let origins: Vec<Origin> = args.files.iter().cloned().map(Origin::parse).collect();
    if origins
        .iter()
        .filter(|origin| **origin == Origin::Stdin)
        .count()
        > 1
    {
        return Err(Stop::usage("- can stand for one file only"));
    }
    let started_at = match &args.started_at {
        Some(text) => Some(started_at(text).map_err(Stop::usage)?),
        None => None,
    };
    if started_at.is_some() && args.duration.is_none() && origins.len() > 1 {
        let message = "several files with --started-at need --duration: each begins where the one before ends";
        return Err(Stop::usage(message));
    }
    if let Some(given) = &args.media_type {
        media_type(given).map_err(Stop::usage)?;
    }
    if let Some(first) = args.sequence
        && first.checked_add(origins.len() as u64).is_none()
    {
        return Err(Stop::usage("--sequence is too large"));
    }
    Ok(Plan {
        origins,
        started_at,
        args,
    })
}

/// A time without an offset names no instant: the fix shows the offset that holds here.
fn started_at(text: &str) -> Result<Timestamp, String> {
    use crate::model::TimestampError::{Malformed, NoOffset};
    Timestamp::parse(text).map_err(|error| match error {
        NoOffset { text } => no_offset(&text, &jiff::tz::TimeZone::system()),
        Malformed { .. } => format!("started-at {error}"),
    })
}

fn no_offset(text: &str, zone: &jiff::tz::TimeZone) -> String {
    let fixed = text
        .parse::<jiff::civil::DateTime>()
        .ok()
        .and_then(|time| time.to_zoned(zone.clone()).ok())
        .map_or(0, |time| time.offset().seconds());
    let minutes = fixed.abs() / 60;
    let sign = if fixed < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!("started-at {text:?} has no UTC offset; write {text}{sign}{hours:02}:{minutes:02}")
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
        let mut answer = offer(plan, place, origin, &mut stdin, &access);
        // The holder went away before this file was accepted: its successor is asked.
        if closing(&answer) && *origin != Origin::Stdin {
            access = reach.reach()?;
            answer = offer(plan, place, origin, &mut stdin, &access);
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

fn offer(
    plan: &Plan,
    place: usize,
    origin: &Origin,
    stdin: &mut Option<Payload>,
    access: &Access,
) -> Result<EnqueuedView, Refusal> {
    let payload = match origin {
        Origin::File(path) => payload::open(path)?,
        Origin::Stdin => stdin.take().expect("one origin is standard input"),
    };
    access.enqueue(chunk(plan, place, origin, &payload), payload.reader)
}

fn chunk(plan: &Plan, place: usize, origin: &Origin, payload: &Payload) -> NewChunk {
    let args = &plan.args;
    let duration = args.duration.unwrap_or_default();
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let started_at = match plan.started_at {
        Some(first) => {
            let before = u32::try_from(place).unwrap_or(u32::MAX);
            first.saturating_add(duration.saturating_mul(before))
        }
        // A recorder closes a file when its recording ends.
        None => Timestamp(payload.ended_at.0.saturating_sub_unsigned(duration_ms)),
    };
    NewChunk {
        tenant: args.tenant.clone(),
        session: args.session.clone(),
        sequence: match args.sequence {
            Some(first) => SequenceChoice::Exactly(first + place as u64),
            None => SequenceChoice::Next {
                // Only the first file tells whether the whole command is a repeat.
                refuse_repeat: place == 0 && !args.append,
            },
        },
        started_at,
        duration_ms,
        media_type: match (&args.media_type, origin) {
            (Some(given), _) => given.clone(),
            (None, Origin::File(path)) => media_type_of(path).to_owned(),
            (None, Origin::Stdin) => UNKNOWN_MEDIA.to_owned(),
        },
        last: args.last && place + 1 == plan.origins.len(),
        length: Some(payload.bytes),
    }
}

const UNKNOWN_MEDIA: &str = "application/octet-stream";

fn media_type_of(path: &std::path::Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.map(str::to_ascii_lowercase).as_deref() {
        Some("mp4" | "m4s" | "m4v") => "video/mp4",
        Some("webm") => "video/webm",
        Some("mkv") => "video/x-matroska",
        Some("ts") => "video/mp2t",
        Some("mov") => "video/quicktime",
        Some("avi") => "video/x-msvideo",
        Some("json") => "application/json",
        _ => UNKNOWN_MEDIA,
    }
}

fn told(origin: &Origin, answer: &Result<EnqueuedView, Refusal>, desk: &Desk) {
    let file = origin.shown();
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
                desk.out.object(&json!({"file": file, "error": refusal}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_offset_is_refused_with_the_fix() {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(
            no_offset("2026-03-01T10:00:00", &zone),
            "started-at \"2026-03-01T10:00:00\" has no UTC offset; write 2026-03-01T10:00:00+01:00"
        );
        let west = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(-12_600).unwrap());
        assert!(no_offset("2026-03-01T10:00:00", &west).ends_with("-03:30"));
        assert!(started_at("yesterday").unwrap_err().contains("RFC 3339"));
    }

    fn args(words: &[&str]) -> Args {
        use clap::Parser;
        let fixed = ["worker", "enqueue", "--tenant", "acme", "--session", "s1"];
        let cli = crate::cli::Cli::try_parse_from(fixed.iter().chain(words)).unwrap();
        match cli.command {
            Some(crate::cli::Command::Enqueue(args)) => args,
            _ => unreachable!("enqueue was asked for"),
        }
    }

    fn payload() -> Payload {
        Payload {
            reader: Box::new(std::io::empty()),
            bytes: 3,
            ended_at: Timestamp(100_000),
        }
    }

    #[test]
    fn files_are_numbered_and_timed_one_after_another() {
        let words = [
            "--sequence",
            "7",
            "--started-at",
            "1970-01-01T00:01:00Z",
            "--duration",
            "30s",
            "--last",
            "a.mp4",
            "b.webm",
        ];
        let plan = plan(args(&words)).unwrap();
        let second = chunk(&plan, 1, &plan.origins[1], &payload());
        assert_eq!(second.sequence, SequenceChoice::Exactly(8));
        assert_eq!(second.started_at, Timestamp(90_000));
        assert_eq!(second.media_type, "video/webm");
        assert!(second.last && !chunk(&plan, 0, &plan.origins[0], &payload()).last);
    }

    #[test]
    fn without_a_start_the_recording_ended_when_the_file_did() {
        let plan = plan(args(&["--duration", "30s", "a", "b"])).unwrap();
        let first = chunk(&plan, 0, &plan.origins[0], &payload());
        assert_eq!(first.started_at, Timestamp(70_000));
        assert_eq!(
            first.sequence,
            SequenceChoice::Next {
                refuse_repeat: true
            }
        );
        let second = chunk(&plan, 1, &plan.origins[1], &payload());
        assert_eq!(
            second.sequence,
            SequenceChoice::Next {
                refuse_repeat: false
            }
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_done() {
        for words in [
            &["-", "-"][..],
            &["--started-at", "2026-03-01T10:00:00Z", "a", "b"],
            &["--media-type", "video", "a"],
            &["--sequence", "18446744073709551615", "a"],
        ] {
            assert_eq!(
                plan(args(words)).err().unwrap().exit,
                exit::USAGE,
                "{words:?}"
            );
        }
    }
}
