//! The command line: one file a subcommand. A command turns its arguments into a request, asks whoever holds
//! the store, and prints the reply; its exit code is one of `exit`.

mod check;
mod completions;
mod dead;
#[cfg(feature = "sandbox")]
mod demo;
mod desk;
mod drain;
mod enqueue;
pub mod exit;
mod fsck;
mod init;
mod man;
mod meter;
mod out;
mod payload;
mod progress;
mod recordings;
mod render;
mod run;
#[cfg(feature = "sandbox")]
mod sandbox;
mod sessions;
mod stats;
mod stop;
mod store;
mod tenants;
#[cfg(test)]
mod tests;
mod why;

use std::borrow::Cow;
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use desk::{Desk, Global};
use out::{bounded, trouble};
use stop::Stop;

/// A durable upload queue for screen recordings.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    disable_help_subcommand = true,
    after_help = "Example:\n  worker --stats"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// The backlog of this host, now (same as `worker stats`)
    #[arg(long)]
    stats: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Enqueue(enqueue::Args),
    Run(run::Args),
    Drain(drain::Args),
    Stats(stats::Args),
    Why(why::Args),
    Tenants(tenants::Args),
    Sessions(sessions::Args),
    Dead(dead::Args),
    Recordings(recordings::Args),
    Check(check::Args),
    Fsck(fsck::Args),
    Store(store::Args),
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Args),
    #[cfg(feature = "sandbox")]
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command that the arguments name, to its end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::disk::allow_many_files();
    #[cfg(feature = "sandbox")]
    if !crate::demo::end_with_parent() {
        trouble("the demo that started this is gone");
        return ExitCode::from(exit::INTERNAL);
    }
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| dispatch(arguments)));
    ExitCode::from(ended.unwrap_or(exit::INTERNAL))
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if !error.use_stderr() {
                // Printing help fails only if nobody reads it.
                let _ = error.print();
                return exit::DONE;
            }
            let text = error.to_string();
            match bounded(&text) {
                Cow::Borrowed(_) => drop(error.print()),
                Cow::Owned(text) => trouble(&text),
            }
            return exit::USAGE;
        }
    };
    let desk = Desk::new(cli.global);
    let is_service = matches!(cli.command, Some(Command::Run(_)));
    if let Err(message) = crate::service::log::start(desk.global.log.as_deref(), is_service) {
        return report(&Stop::usage(message), &desk);
    }
    let ended = match (cli.stats, cli.command) {
        (true, None) | (false, Some(Command::Stats(_))) => stats::run(&desk),
        (true, Some(_)) => Err(Stop::usage("--stats stands alone")),
        (false, None) => {
            let _ = Cli::command().print_help();
            return exit::USAGE;
        }
        (false, Some(command)) => of_command(command, &desk),
    };
    ended.unwrap_or_else(|stop| report(&stop, &desk))
}

fn of_command(command: Command, desk: &Desk) -> Result<u8, Stop> {
    match command {
        Command::Init(args) => init::run(args, desk),
        Command::Enqueue(args) => enqueue::run(args, desk),
        Command::Run(args) => run::run(args, desk),
        Command::Drain(args) => drain::run(args, desk),
        Command::Stats(_) => stats::run(desk),
        Command::Why(args) => why::run(args, desk),
        Command::Tenants(args) => tenants::run(args, desk),
        Command::Sessions(args) => sessions::run(args, desk),
        Command::Dead(args) => dead::run(args, desk),
        Command::Recordings(args) => recordings::run(args, desk),
        Command::Check(args) => check::run(args, desk),
        Command::Fsck(args) => fsck::run(args, desk),
        Command::Store(args) => store::run(args, desk),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => sandbox::run(args, desk),
        #[cfg(feature = "sandbox")]
        Command::Demo(args) => demo::run(args, desk),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// Every refusal goes to standard error in words, and to standard output as an object with `--json`.
fn report(stop: &Stop, desk: &Desk) -> u8 {
    trouble(&stop.refusal.message);
    if desk.out.json {
        desk.out.object(&serde_json::json!({"error": stop.refusal}));
    }
    stop.exit
}
