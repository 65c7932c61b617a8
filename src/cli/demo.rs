//! `worker demo`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::control::refusal::chain;
use crate::control::{Code, Refusal};
use crate::demo::{self, DemoError, Line, Options, Report, Tell};
use crate::service::hold::runtime;
use crate::service::signals::Signals;

use super::desk::Desk;
use super::out::{Out, trouble};
use super::stop::Stop;
use super::{exit, render};

/// A tutorial that runs itself: real recordings, expiring tokens, a kill
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker demo --keep reelay-demo")]
pub struct Args {
    /// Where everything goes: a new or empty directory [default: a temporary one, which is kept]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Who meets which fault
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Loses a chunk on purpose: the demo must fail
    #[arg(long, hide = true)]
    drop_one: bool,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let options = Options {
        keep: args.keep,
        seed: args.seed,
        drop_one: args.drop_one,
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(played(&options, desk));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = ended?;
    desk.out.answer(&report, || render::demo(&report));
    if report.failures.is_empty() {
        desk.out.next("worker init --tenant acme --region us1");
        return Ok(exit::DONE);
    }
    for failure in &report.failures {
        trouble(&format!("demo failed: {failure}"));
    }
    Ok(exit::INTERNAL)
}

async fn played(options: &Options, desk: &Desk) -> Result<Report, Stop> {
    let mut signals = Signals::listen()
        .map_err(|error| Refusal::new(Code::Internal, format!("signals: {error}")))?;
    tokio::select! {
        biased;
        // Leaving drops the play, which ends the processes that it started.
        () = signals.next() => Err(Stop::new(Code::Closing, "demo interrupted; run it again")),
        report = demo::play(options, Arc::clone(&desk.clock), teller(desk.out)) => {
            report.map_err(|error| refusal(&error))
        }
    }
}

fn refusal(error: &DemoError) -> Stop {
    match error {
        DemoError::NotEmpty { .. } => Stop::usage(error.to_string()),
        _ => Stop::new(Code::Internal, format!("demo failed: {}", chain(error))),
    }
}

/// Plain lines; with a terminal headings stand out.
fn teller(out: Out) -> Tell {
    let terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (bold, dim, plain) = if terminal {
        ("\x1b[1m", "\x1b[2m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    Arc::new(move |line| {
        out.say(&match line {
            Line::Step(text) => format!("\n{bold}== {text}{plain}"),
            Line::Command(text) => format!("{bold}$ {text}{plain}"),
            Line::Output(text) => format!("    {text}"),
            Line::Platform(text) => format!("{dim}# platform: {text}{plain}"),
            Line::Remark(text) => format!("{dim}# {text}{plain}"),
        });
    })
}
