//! `worker run`.

use crate::control::wire::Request;
use crate::control::{Code, Refusal};
use crate::service::hold::{self, Held};

use super::desk::Desk;
use super::exit;
use super::stop::Stop;

/// Deliver until stopped: the service
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker run")]
pub struct Args {}

pub fn run(_args: Args, desk: &Desk) -> Result<u8, Stop> {
    let config = desk.config()?;
    check_secrets(&config)?;
    let reach = desk.reach_with(config);
    let holder = reach.open_alone(|client, ping| {
        if ping.command == "run" {
            return Err(held_by_run(ping.pid));
        }
        // It says yes and ends, or it ends anyway.
        let _ = client.ask(&Request::HandOver {});
        Ok(())
    })?;
    match hold::run(holder)? {
        Held::Done(()) | Held::Signalled => Ok(exit::DONE),
        Held::Faulted(cause) => Err(Stop::new(Code::Internal, format!("engine: {cause}"))),
    }
}

fn held_by_run(pid: u32) -> Refusal {
    let message =
        format!("the store is held by worker run (pid {pid}); ask it with: worker --stats");
    Refusal::new(Code::Held, message)
}

/// Whoever is about to send needs the secrets, and says what is wrong with all of them at once.
pub(super) fn check_secrets(config: &crate::config::Config) -> Result<(), Stop> {
    let findings = config.secret_findings();
    if findings.is_empty() {
        return Ok(());
    }
    Err(Stop::new(Code::Configuration, findings.join("\n")))
}
