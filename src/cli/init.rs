//! `worker init`: a commented configuration and an empty secret file. Never replaces anything.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::control::Code;
use crate::model::TenantId;
use crate::platform::region;

use super::desk::Desk;
use super::exit;
use super::stop::Stop;

/// Write a commented worker.toml and an empty secret file
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker init --tenant acme --region us1")]
pub struct Args {
    /// The first tenant
    #[arg(long, value_name = "NAME", default_value = "acme")]
    tenant: TenantId,
    /// Where its platform is
    #[arg(long, value_name = "NAME", default_value = "us1")]
    region: String,
}

const TEMPLATE: &str = include_str!("init.toml");

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    if let Err(error) = region::preset(&args.region) {
        return Err(Stop::usage(error.to_string()));
    }
    let config = desk
        .global
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from("worker.toml"));
    let secret = config.with_file_name(format!("{}.secret", args.tenant));
    // Both are looked at before either is written.
    for path in [&config, &secret] {
        if path.exists() {
            return Err(Stop::usage(format!(
                "{} exists; nothing was written",
                path.display()
            )));
        }
    }
    let text = TEMPLATE
        .replace("{tenant}", args.tenant.as_str())
        .replace("{region}", &args.region);
    write(&secret, "", 0o600)?;
    write(&config, &text, 0o644)?;
    let files = json!({"config": config, "secret": secret});
    desk.out.answer(&files, || {
        format!(
            "wrote {} and {} (empty, mode 0600)\n\
             put the client id into the first, the client secret into the second",
            config.display(),
            secret.display()
        )
    });
    desk.out.next("worker check --online");
    Ok(exit::DONE)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Stop> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| {
        let code = match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound => Code::BadInput,
            _ => Code::Storage,
        };
        Stop::new(code, format!("{}: {error}", path.display()))
    })
}
