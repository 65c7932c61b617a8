//! `worker recordings fetch|list|show|export`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::control::recordings::{FetchView, IDS_MAX, RecordingsReply, RecordingsRequest};
use crate::control::wire::{Reply, Request};
use crate::control::{Access, Code, words};
use crate::model::{RecordingId, RecordingState, SessionId, TenantId, Timestamp};
use crate::store::records::{Page, Recording, RecordingFilter};

use super::desk::{Desk, odd, span};
use super::render::recordings::{self as render, Row};
use super::stop::Stop;
use super::{exit, out};

/// Recordings as the platform keeps them: fetch what it knows, compare it, export it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker recordings list")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Ask the platform for the metadata of recordings; durable when it returns
    #[command(after_help = "Example:\n  worker recordings fetch --tenant acme --since 7d")]
    Fetch {
        /// Whose recordings
        #[arg(long)]
        tenant: TenantId,
        /// Those of this host's sessions in that time, and those that the platform lists
        #[arg(long, value_name = "SPAN", value_parser = span)]
        since: Option<Duration>,
        /// One id a line; - is standard input
        #[arg(long, value_name = "FILE")]
        ids: Option<PathBuf>,
        /// The platform's names of recordings
        #[arg(value_name = "ID")]
        named: Vec<RecordingId>,
    },
    /// What is known of recordings, by tenant and time
    #[command(after_help = "Example:\n  worker recordings list --state mismatch")]
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Everything known of one recording
    #[command(after_help = "Example:\n  worker recordings show r-1")]
    Show {
        /// The platform's name of the recording
        #[arg(value_name = "ID")]
        id: RecordingId,
        /// Only under this tenant
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// All of it, one recording a line
    #[command(after_help = "Example:\n  worker recordings export --format csv --since 30d")]
    Export {
        #[command(flatten)]
        which: Which,
        /// An object a line, or a table with a header line
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Into this file, which must not exist; default: standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only this session's
    #[arg(long)]
    session: Option<SessionId>,
    /// Not older than this
    #[arg(long, value_name = "SPAN", value_parser = span)]
    since: Option<Duration>,
    /// known, wanted, fetched, verified, mismatch or dead
    #[arg(long, value_parser = state)]
    state: Option<RecordingState>,
}

fn state(word: &str) -> Result<RecordingState, String> {
    RecordingState::parse(word).ok_or_else(|| {
        let known = RecordingState::ALL.map(RecordingState::word).join(", ");
        format!("{word:?} is none of {known}")
    })
}

impl Which {
    fn filter(self, now: Timestamp) -> RecordingFilter {
        RecordingFilter {
            tenant: self.tenant,
            session: self.session,
            since: self.since.map(|span| ago(now, span)),
            state: self.state,
        }
    }
}

fn ago(now: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(span))
}

/// Recordings asked for at once.
const PAGE: usize = 500;

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let now = desk.clock.wall();
    match args.verb {
        Verb::Fetch {
            tenant,
            since,
            ids,
            named,
        } => fetch(
            desk,
            tenant,
            since.map(|span| ago(now, span)),
            ids.as_deref(),
            named,
        ),
        Verb::List { which, limit } => list(desk, which.filter(now), limit, now),
        Verb::Show { id, tenant } => show(desk, id, tenant, now),
        Verb::Export { which, format, to } => {
            export(desk, which.filter(now), format, to.as_deref())
        }
    }
}

fn fetch(
    desk: &Desk,
    tenant: TenantId,
    since: Option<Timestamp>,
    ids: Option<&Path>,
    named: Vec<RecordingId>,
) -> Result<u8, Stop> {
    if since.is_none() && ids.is_none() && named.is_empty() {
        return Err(Stop::usage("say which: --since SPAN, --ids FILE, or ids"));
    }
    let access = desk.reach()?.reach()?;
    let mut view = FetchView {
        tenant: tenant.clone(),
        added: 0,
        already: 0,
        listing: false,
        running: false,
    };
    if let Some(since) = since {
        let tenant = tenant.clone();
        let request = RecordingsRequest::FetchSince { tenant, since };
        add(&mut view, asked(&access, request)?)?;
    }
    let mut batch = Batch {
        access: &access,
        tenant,
        view: &mut view,
        ids: Vec::new(),
    };
    for id in named {
        batch.push(id)?;
    }
    if let Some(file) = ids {
        read_ids(file, &mut batch)?;
    }
    batch.send()?;
    access.close()?;
    desk.out.answer(&view, || render::wanted(&view));
    desk.out.next(match view.running {
        true => "worker recordings list --state wanted",
        // Nobody does it now.
        false => "worker drain",
    });
    Ok(exit::DONE)
}

/// Ids on their way to the holder, so many at a time.
struct Batch<'a> {
    access: &'a Access,
    tenant: TenantId,
    view: &'a mut FetchView,
    ids: Vec<RecordingId>,
}

impl Batch<'_> {
    fn push(&mut self, id: RecordingId) -> Result<(), Stop> {
        self.ids.push(id);
        if self.ids.len() < IDS_MAX {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), Stop> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let request = RecordingsRequest::Fetch {
            tenant: self.tenant.clone(),
            ids: std::mem::take(&mut self.ids),
        };
        add(self.view, asked(self.access, request)?)
    }
}

fn add(view: &mut FetchView, reply: RecordingsReply) -> Result<(), Stop> {
    let RecordingsReply::Wanted(more) = reply else {
        return Err(other_answer());
    };
    view.added += more.added;
    view.already += more.already;
    view.listing |= more.listing;
    view.running = more.running;
    Ok(())
}

fn read_ids(file: &Path, batch: &mut Batch<'_>) -> Result<(), Stop> {
    let shown = file.display();
    let failed = |error: io::Error| Stop::usage(format!("{shown}: {error}"));
    let reader: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(file).map_err(failed)?)),
    };
    for (number, line) in reader.lines().enumerate() {
        let line = line.map_err(failed)?;
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let id = text
            .parse()
            .map_err(|error| Stop::usage(format!("{shown}:{}: {error}", number + 1)))?;
        batch.push(id)?;
    }
    Ok(())
}

fn asked(access: &Access, request: RecordingsRequest) -> Result<RecordingsReply, Stop> {
    match access.ask(&Request::Recordings(request))? {
        Reply::Recordings(reply) => Ok(reply),
        reply => Err(odd(&reply)),
    }
}

fn other_answer() -> Stop {
    Stop::new(Code::Internal, "the holder answered another question")
}

fn list(desk: &Desk, filter: RecordingFilter, limit: usize, now: Timestamp) -> Result<u8, Stop> {
    let mut found = Vec::new();
    let mut more = false;
    each_page(desk, filter, limit.max(1), |page| {
        more = page.next.is_some();
        found.extend(page.recordings);
        Ok(found.len() < limit)
    })?;
    more |= found.len() > limit;
    found.truncate(limit);
    let rows: Vec<Row> = found.iter().map(Row::from).collect();
    desk.out
        .answer(&json!({"recordings": rows, "more": more}), || {
            render::table_of(&found, now)
        });
    if more {
        desk.out.remark(&format!(
            "only the first {}; --limit shows more",
            words::count(limit as u64)
        ));
    }
    desk.out.next("worker recordings show ID");
    Ok(exit::DONE)
}

/// Asks for pages until there are none, or nobody wants more.
fn each_page(
    desk: &Desk,
    filter: RecordingFilter,
    limit: usize,
    mut take: impl FnMut(Page) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let access = desk.reach()?.reach()?;
    let mut after = None;
    loop {
        let request = RecordingsRequest::List {
            filter: filter.clone(),
            after,
            limit: limit.min(PAGE),
        };
        let RecordingsReply::Page(page) = asked(&access, request)? else {
            return Err(other_answer());
        };
        after = page.next.clone();
        if !take(page)? || after.is_none() {
            break;
        }
    }
    Ok(access.close()?)
}

fn show(
    desk: &Desk,
    id: RecordingId,
    tenant: Option<TenantId>,
    now: Timestamp,
) -> Result<u8, Stop> {
    let request = Request::Recordings(RecordingsRequest::Show { tenant, id });
    let found: Vec<Recording> = match desk.ask(&request)? {
        Reply::Recordings(RecordingsReply::Shown(found)) => found,
        reply => return Err(odd(&reply)),
    };
    desk.out.answer(&json!({"recordings": found}), || {
        found.iter().map(|one| render::one(one, now)).collect()
    });
    desk.out.next("worker recordings list");
    Ok(exit::DONE)
}

fn export(
    desk: &Desk,
    filter: RecordingFilter,
    format: Format,
    to: Option<&Path>,
) -> Result<u8, Stop> {
    let failed = |error: io::Error| Stop::new(Code::Storage, format!("export: {error}"));
    let mut file: Option<File> = match to {
        Some(path) => {
            let file = File::options().write(true).create_new(true).open(path);
            let shown = path.display();
            Some(file.map_err(|error| Stop::usage(format!("{shown}: {error}")))?)
        }
        None => None,
    };
    let mut count = 0_u64;
    let mut text = match format {
        Format::Csv => render::csv_head(),
        Format::Jsonl => String::new(),
    };
    each_page(desk, filter, PAGE, |page| {
        for recording in &page.recordings {
            let row = Row::from(recording);
            text.push_str(&match format {
                Format::Csv => row.csv(),
                Format::Jsonl => row.jsonl(),
            });
        }
        count += page.recordings.len() as u64;
        let text = std::mem::take(&mut text);
        match &mut file {
            Some(file) => file.write_all(text.as_bytes()).map_err(failed)?,
            // A reader that went away has seen enough.
            None if !out::raw(&text) => return Ok(false),
            None => {}
        }
        Ok(true)
    })?;
    if let (Some(file), Some(path)) = (file, to) {
        file.sync_all().map_err(failed)?;
        let shown = path.display();
        desk.out
            .answer(&json!({"file": path, "recordings": count}), || {
                format!("{} written to {shown}", words::counted(count, "recording"))
            });
    }
    Ok(exit::DONE)
}
