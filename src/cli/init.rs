//! `worker init`: a commented configuration and its secret files, empty. Never replaces anything.

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

/// Write a commented worker.toml and its secret files, empty
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker init --tenant acme --region us1")]
pub struct Args {
    /// The first tenant
    #[arg(long, value_name = "NAME", default_value = "acme")]
    tenant: TenantId,
    /// Where its platform is
    #[arg(long, value_name = "NAME", default_value = "us1")]
    region: String,
    /// How its tokens are had
    #[arg(long, value_name = "PRESET", value_enum, default_value_t)]
    preset: Preset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Preset {
    /// A client of the organisation with its secret
    #[default]
    Client,
    /// An application of many organisations: a service token, exchanged for each one's, and a user's for old recordings
    Partner,
}

impl Preset {
    fn template(self) -> &'static str {
        match self {
            Self::Client => include_str!("init.toml"),
            Self::Partner => include_str!("init-partner.toml"),
        }
    }

    /// The files that it names, and what goes into them beside the configuration.
    fn secrets(self, tenant: &TenantId) -> (Vec<String>, &'static str) {
        match self {
            Self::Client => (
                vec![format!("{tenant}.secret")],
                "the client secret into the second",
            ),
            Self::Partner => (
                vec!["partner.secret".to_owned(), "partner.pem".to_owned()],
                "the client secret and the private key into the others",
            ),
        }
    }
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    if let Err(error) = region::preset(&args.region) {
        return Err(Stop::usage(error.to_string()));
    }
    let config = desk
        .global
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from("worker.toml"));
    let (names, into) = args.preset.secrets(&args.tenant);
    let secrets: Vec<PathBuf> = names
        .into_iter()
        .map(|name| config.with_file_name(name))
        .collect();
    // All are looked at before any is written.
    for path in std::iter::once(&config).chain(&secrets) {
        if path.exists() {
            return Err(Stop::usage(format!(
                "{} exists; nothing was written",
                path.display()
            )));
        }
    }
    let text = args
        .preset
        .template()
        .replace("{tenant}", args.tenant.as_str())
        .replace("{region}", &args.region);
    for secret in &secrets {
        write(secret, "", 0o600)?;
    }
    write(&config, &text, 0o644)?;
    let files = json!({"config": config, "secret": secrets[0], "secrets": secrets});
    desk.out.answer(&files, || {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        format!(
            "wrote {} and {} (empty, mode 0600)\n\
             put the client id into the first, {into}",
            config.display(),
            secrets.join(", ")
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
