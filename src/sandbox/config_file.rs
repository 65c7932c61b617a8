//! Writes a `worker.toml` that fits the running emulator, with its secret files beside it. Never touches a file that it did not write.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::settings::ANALYTICS_SCOPE;
use super::world::World;

/// The first line of every configuration that the emulator wrote.
const MARK: &str = "# written by worker sandbox, which overwrites it at its next start";
/// How every secret that the emulator mints begins.
const SECRET_MARK: &str = "canary-secret-";

/// Why a configuration was not written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("{} exists and was not written by the sandbox; name another file", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is not UTF-8, which a configuration needs", path.display())]
    NotText { path: PathBuf },
    #[error("writing {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Writes `path` and the secrets, each replaced as a whole and readable by its owner only.
pub(super) fn write(path: &Path, base_url: &str, world: &World) -> Result<(), ConfigFileError> {
    let failed = |source| ConfigFileError::Write {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    let store = directory.join("store");
    let store = store.to_str().ok_or_else(|| ConfigFileError::NotText {
        path: store.clone(),
    })?;
    let secrets: Vec<(PathBuf, &str)> = world
        .tenants
        .iter()
        .map(|(name, tenant)| {
            (
                directory.join(format!("{name}.secret")),
                tenant.settings.secret.as_str(),
            )
        })
        .collect();
    check_ours(&absolute, MARK)?;
    for (file, _) in &secrets {
        check_ours(file, SECRET_MARK)?;
    }
    for (file, secret) in &secrets {
        replace(file, &format!("{secret}\n"))?;
    }
    replace(&absolute, &text(store, base_url, world))
}

fn check_ours(path: &Path, mark: &str) -> Result<(), ConfigFileError> {
    match fs::read(path) {
        Ok(bytes) if bytes.starts_with(mark.as_bytes()) => Ok(()),
        Ok(_) => Err(ConfigFileError::Foreign {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ConfigFileError::Write {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Atomic, and mode 0600 from the first byte on: that is what a temporary file has.
fn replace(path: &Path, text: &str) -> Result<(), ConfigFileError> {
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| ConfigFileError::Write {
        path: path.to_owned(),
        source,
    })
}

fn text(store: &str, base_url: &str, world: &World) -> String {
    let mut text = format!(
        "{MARK}\n\n[store]\npath = {}\nmax_bytes = \"4GiB\"\nmin_free_bytes = \"64MiB\"\n",
        quoted(store)
    );
    for (name, tenant) in &world.tenants {
        write!(
            text,
            r#"
[tenants.{name}]
api_url = {api}
token_url = {token}
transport = "json"

[tenants.{name}.auth]
grant = "client_credentials"
client_id = {client}
client_secret_file = "{name}.secret"
scopes = ["{ANALYTICS_SCOPE}"]
"#,
            api = quoted(base_url),
            token = quoted(&format!("{base_url}/oauth/token")),
            client = quoted(&tenant.client_id),
        )
        .expect("writing to a string does not fail");
    }
    text
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
