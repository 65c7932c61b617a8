//! `worker sandbox`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::control::refusal::chain;
use crate::control::{Code, Refusal};
use crate::sandbox::{self, Grants, Options, SandboxError};
use crate::service::hold::runtime;
use crate::service::signals::Signals;

use super::desk::{Desk, span};
use super::exit;
use super::stop::Stop;

/// A platform to develop against, on this machine only
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker sandbox --write-config sandbox/worker.toml")]
pub struct Args {
    /// A loopback address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// acme, globex, initech, then t4, t5, …
    #[arg(long, value_name = "N", default_value_t = 3)]
    tenants: usize,
    /// A script of faults to begin with
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Write a ready configuration with its secrets
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,
    /// The grants of that configuration: client_credentials, token_exchange, jwt_bearer, refresh_token, static, or
    /// mixed, which gives each tenant another one
    #[arg(long, value_name = "WORD", default_value = "client_credentials", value_parser = grants)]
    grants: Grants,
    /// How long tokens live
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    token_life: Duration,
    /// Another life for one tenant's tokens; may be repeated
    #[arg(long, value_name = "TENANT=SPAN", value_parser = life_of)]
    token_life_of: Vec<(String, Duration)>,
}

fn life_of(text: &str) -> Result<(String, Duration), String> {
    let (tenant, life) = text
        .split_once('=')
        .ok_or("write TENANT=SPAN, such as globex=2s")?;
    Ok((tenant.to_owned(), span(life)?))
}

fn grants(word: &str) -> Result<Grants, String> {
    let known = "client_credentials, token_exchange, jwt_bearer, refresh_token, static, mixed";
    Grants::named(word).ok_or_else(|| format!("known: {known}"))
}

pub fn run(args: Args, _desk: &Desk) -> Result<u8, Stop> {
    let options = Options {
        listen: args.listen,
        tenants: args.tenants,
        faults: args.faults,
        write_config: args.write_config,
        grants: args.grants,
        token_life: args.token_life,
        token_life_of: args.token_life_of.into_iter().collect::<BTreeMap<_, _>>(),
        ..Options::default()
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()
            .map_err(|error| Refusal::new(Code::Internal, format!("signals: {error}")))?;
        sandbox::run(options, async move { signals.next().await })
            .await
            .map_err(|error| refusal(&error))
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended?;
    Ok(exit::DONE)
}

fn refusal(error: &SandboxError) -> Refusal {
    let code = match error {
        SandboxError::NotLoopback { .. }
        | SandboxError::Tenants { .. }
        | SandboxError::UnknownTenant { .. }
        | SandboxError::Faults { .. }
        | SandboxError::ReadFaults { .. }
        | SandboxError::Config(_) => Code::BadInput,
        SandboxError::Listen { .. } => Code::Held,
        SandboxError::Spool(_) | SandboxError::Print(_) => Code::Storage,
    };
    Refusal::new(code, chain(error))
}
