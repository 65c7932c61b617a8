//! What an enqueue is about to do, decided before anything is done; pure.

use crate::control::server::media_type;
use crate::model::Timestamp;
use crate::store::{NewChunk, SequenceChoice};

use super::Args;
use crate::cli::payload::{Origin, Payload};
use crate::cli::stop::Stop;

/// The arguments after every check that needs no store.
pub struct Plan {
    pub args: Args,
    pub origins: Vec<Origin>,
    pub started_at: Option<Timestamp>,
}

impl Plan {
    /// # Errors
    /// What cannot be meant, with the fix.
    pub fn of(args: Args) -> Result<Self, Stop> {
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
        Ok(Self {
            origins,
            started_at,
            args,
        })
    }

    /// The chunk of one file. `again`: offered before to a holder that went away, and perhaps accepted there.
    pub fn chunk(&self, place: usize, again: bool, payload: &Payload) -> NewChunk {
        let args = &self.args;
        let origin = &self.origins[place];
        let duration = args.duration.unwrap_or_default();
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let started_at = match self.started_at {
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
                    // The first file tells whether the whole command is a repeat.
                    refuse_repeat: again || (place == 0 && !args.append),
                },
            },
            started_at,
            duration_ms,
            media_type: match (&args.media_type, origin) {
                (Some(given), _) => given.clone(),
                (None, Origin::File(path)) => media_type_of(path).to_owned(),
                (None, Origin::Stdin) => UNKNOWN_MEDIA.to_owned(),
            },
            last: args.last && place + 1 == self.origins.len(),
            length: Some(payload.bytes),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit;

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

    fn numbered(plan: &Plan, place: usize) -> NewChunk {
        plan.chunk(place, false, &payload())
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
        let plan = Plan::of(args(&words)).unwrap();
        let second = numbered(&plan, 1);
        assert_eq!(second.sequence, SequenceChoice::Exactly(8));
        assert_eq!(second.started_at, Timestamp(90_000));
        assert_eq!(second.media_type, "video/webm");
        assert!(second.last && !numbered(&plan, 0).last);
    }

    #[test]
    fn without_a_start_the_recording_ended_when_the_file_did() {
        let plan = Plan::of(args(&["--duration", "30s", "a", "b"])).unwrap();
        let first = numbered(&plan, 0);
        assert_eq!(first.started_at, Timestamp(70_000));
        assert_eq!(
            first.sequence,
            SequenceChoice::Next {
                refuse_repeat: true
            }
        );
        let second = numbered(&plan, 1);
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
                Plan::of(args(words)).err().unwrap().exit,
                exit::USAGE,
                "{words:?}"
            );
        }
    }
}
