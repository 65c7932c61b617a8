//! `worker store export|import`: a backlog's way to another host.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::control::{Code, Holder, Refusal, chain, words};
use crate::store::{ExportError, Exported, ImportError, ImportFault, Imported, Refused};

use super::desk::Desk;
use super::exit;
use super::progress::Progress;
use super::stop::Stop;

const STREAM: &str = "-";
const BUFFER: usize = 1 << 20;

/// Move a backlog to another host
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker store export moving.reelay")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write what is owed, dead letters too, into a file that another host imports
    #[command(after_help = "Example:\n  worker store export backlog.reelay")]
    Export {
        /// The file, made anew; - for standard output
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Take in what another host exported; what is here already is known
    #[command(after_help = "Example:\n  worker store import backlog.reelay")]
    Import {
        /// The file; - for standard input
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    match args.verb {
        Verb::Export { to } => export(&to, desk),
        Verb::Import { from } => import(&from, desk),
    }
}

/// Both need the store to themselves: a chunk that is being delivered here must not be on its way elsewhere.
fn alone(desk: &Desk, what: &str) -> Result<Holder, Stop> {
    let opened = desk.reach()?.open_alone(|_, holder| {
        let message = format!(
            "worker {} (pid {}) holds the store; stop it, then {what}",
            holder.command, holder.pid
        );
        Err(Refusal::new(Code::Held, message))
    });
    Ok(opened?)
}

fn export(to: &Path, desk: &Desk) -> Result<u8, Stop> {
    let holder = alone(desk, "export")?;
    let streamed = to == Path::new(STREAM);
    let progress = Progress::of_bytes(desk.out, 0);
    let mut seen = |done, total| progress.set(done, total, String::new());
    let exported = if streamed {
        let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        write(&holder, &mut out, &mut seen)
    } else {
        fresh(to).and_then(|file| {
            let written = write_file(&holder, file, to, &mut seen);
            if written.is_err() {
                // A torn export is refused, and takes room.
                let _ = std::fs::remove_file(to);
            }
            written
        })
    };
    drop(progress);
    let closed = holder.store.close();
    let exported = exported.map_err(|error| written(to, &error))?;
    closed.map_err(Refusal::from)?;
    told_export(&exported, to, streamed, desk);
    Ok(if exported.left_out.is_empty() {
        exit::DONE
    } else {
        exit::LEFT
    })
}

fn write(
    holder: &Holder,
    out: &mut dyn Write,
    seen: &mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let exported = holder.store.export(out, seen)?;
    out.flush().map_err(ExportError::Write)?;
    Ok(exported)
}

/// Whole and durable when it returns `Ok`.
fn write_file(
    holder: &Holder,
    file: File,
    path: &Path,
    seen: &mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let exported = write(holder, &mut out, seen)?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    out.get_ref()
        .sync_all()
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(ExportError::Write)?;
    Ok(exported)
}

/// Recordings are for their owner; a file that is there is nobody's to replace.
fn fresh(path: &Path) -> Result<File, ExportError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.map_err(ExportError::Write)
}

fn written(to: &Path, error: &ExportError) -> Stop {
    Stop::new(
        Code::Storage,
        format!("export to {}: {}", to.display(), chain(error)),
    )
}

fn told_export(exported: &Exported, to: &Path, streamed: bool, desk: &Desk) {
    for damage in &exported.left_out {
        let name = match (&damage.tenant, &damage.session, damage.sequence) {
            (Some(tenant), Some(session), Some(sequence)) => {
                format!("{tenant}/{session}/{sequence} ")
            }
            _ => String::new(),
        };
        desk.out.remark(&format!(
            "left out: {name}{} at {}: {}",
            damage.segment, damage.offset, damage.reason
        ));
    }
    let text = format!(
        "{} ({}), {} of them dead, and {} exported",
        words::chunks(exported.chunks),
        words::bytes(exported.bytes),
        words::count(exported.dead),
        sessions(exported.sessions),
    );
    if streamed {
        // Standard output is the export.
        desk.out.remark(&text);
        return;
    }
    let answer = json!({
        "file": to,
        "chunks": exported.chunks,
        "bytes": exported.bytes,
        "dead": exported.dead,
        "sessions": exported.sessions,
        "left_out": exported.left_out,
    });
    desk.out.answer(&answer, || text);
    let file = to.display();
    desk.out
        .next(&format!("worker store import {file}, on the other host"));
}

fn import(from: &Path, desk: &Desk) -> Result<u8, Stop> {
    // Before the store is asked for: a name that is wrong needs no store.
    let mut source: Box<dyn Read> = if from == Path::new(STREAM) {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(from).map_err(|error| {
            let message = format!("import from {}: {error}", from.display());
            Stop::new(Code::BadInput, message)
        })?;
        Box::new(BufReader::with_capacity(BUFFER, file))
    };
    let holder = alone(desk, "import")?;
    let progress = Progress::of_bytes(desk.out, 0);
    let mut seen = |done, total| progress.set(done, total, String::new());
    let imported = holder.store.import(&mut source, &mut seen);
    drop(progress);
    let closed = holder.store.close();
    let code = match imported {
        Ok(imported) => {
            closed.map_err(Refusal::from)?;
            told_import(&imported, true, desk);
            of_refused(&imported)
        }
        Err(error) => {
            let ImportError { done, fault } = *error;
            told_import(&done, false, desk);
            return Err(ended(from, &fault));
        }
    };
    desk.out.next("worker drain");
    Ok(code)
}

fn told_import(imported: &Imported, complete: bool, desk: &Desk) {
    let named: Vec<_> = imported.named.iter().map(refused).collect();
    for (name, refusal) in &named {
        let text = format!("refused: {name}: {}", refusal.message);
        desk.out.remark(&text);
    }
    let answer = json!({
        "from": imported.from,
        "complete": complete,
        "chunks": imported.chunks,
        "bytes": imported.bytes,
        "dead": imported.dead,
        "known": imported.known,
        "sessions": imported.sessions,
        "refused": imported.refused,
        "errors": imported.named.iter().zip(&named).map(|(refused, (_, error))| json!({
            "tenant": refused.session.tenant,
            "session": refused.session.session,
            "sequence": refused.sequence,
            "error": error,
        })).collect::<Vec<_>>(),
    });
    desk.out.answer(&answer, || {
        format!(
            "{}{} ({}) imported, {} of them dead; {} known; {} refused; {}",
            if complete { "" } else { "until then: " },
            words::chunks(imported.chunks),
            words::bytes(imported.bytes),
            words::count(imported.dead),
            words::count(imported.known),
            words::count(imported.refused),
            sessions(imported.sessions),
        )
    });
}

fn sessions(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} session{plural}", words::count(count))
}

fn refused(refused: &Refused) -> (String, Refusal) {
    let name = match refused.sequence {
        Some(sequence) => format!("{}/{sequence}", refused.session),
        None => refused.session.to_string(),
    };
    let text = chain(&refused.error);
    (name, Refusal::new(Refusal::code_of(&refused.error), text))
}

fn of_refused(imported: &Imported) -> u8 {
    let codes = imported.named.iter();
    exit::strongest(codes.map(|refused| exit::of_refusal(Refusal::code_of(&refused.error))))
}

/// What was taken in is durable; the same import again takes in the rest.
fn ended(from: &Path, fault: &ImportFault) -> Stop {
    let text = format!(
        "import from {}: {}; what was imported stays, and the same import can be repeated",
        from.display(),
        chain(fault)
    );
    let code = match fault {
        ImportFault::Stream(_) if fault.is_damage() => Code::Damaged,
        ImportFault::Stream(_) if fault.is_newer() => Code::Unsupported,
        ImportFault::Stream(_) => Code::Storage,
        ImportFault::Refused(error) => Refusal::code_of(error),
        ImportFault::Store(error) => Refusal::code_of_store(error),
    };
    Stop::new(code, text)
}
