//! Writes a `worker.toml` that fits the running emulator, with its secret files beside it. Never touches a file that it did not write.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::app::wall_seconds;
use super::assertion::PublicKey;
use super::recordings::READ_SCOPE;
use super::reply::Content;
use super::rights;
use super::settings::ANALYTICS_SCOPE;
use super::world::{PARTNER, World};

/// The first line of every configuration that the emulator wrote.
const MARK: &str = "# written by worker sandbox, which overwrites it at its next start";
/// How every secret that the emulator mints begins.
const SECRET_MARK: &str = "canary-";

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

/// Which grants a written configuration uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grants {
    #[default]
    ClientCredentials,
    /// One after another: token exchange, JWT bearer, refresh token, static, client credentials.
    Mixed,
    One(Grant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    TokenExchange,
    JwtBearer,
    RefreshToken,
    Static,
    ClientCredentials,
}

impl Grant {
    /// In the order of a mixed configuration, by the words of the configuration.
    const ALL: [(&str, Self); 5] = [
        ("token_exchange", Self::TokenExchange),
        ("jwt_bearer", Self::JwtBearer),
        ("refresh_token", Self::RefreshToken),
        ("static", Self::Static),
        ("client_credentials", Self::ClientCredentials),
    ];
}

impl Grants {
    /// What `--grants` takes: `mixed`, or a grant as the configuration names it.
    pub fn named(word: &str) -> Option<Self> {
        if word == "mixed" {
            return Some(Self::Mixed);
        }
        let found = Grant::ALL.iter().find(|(name, _)| *name == word);
        found.map(|(_, grant)| Self::One(*grant))
    }

    /// Whether a service has tokens to exchange.
    pub(super) fn exchange(self) -> bool {
        matches!(self, Self::Mixed | Self::One(Grant::TokenExchange))
    }

    fn of(self, index: usize) -> Grant {
        match self {
            Self::ClientCredentials => Grant::ClientCredentials,
            Self::Mixed => Grant::ALL[index % Grant::ALL.len()].1,
            Self::One(grant) => grant,
        }
    }
}

/// Writes `path` and the secrets, each replaced as a whole and readable by its owner only.
pub(super) fn write(
    path: &Path,
    base_url: &str,
    world: &mut World,
    grants: Grants,
) -> Result<(), ConfigFileError> {
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
    let written = Written::of(world, base_url, grants);
    check_ours(&absolute, MARK)?;
    for name in written.secrets.keys() {
        check_ours(&directory.join(name), SECRET_MARK)?;
    }
    for (name, secret) in &written.secrets {
        replace(&directory.join(name), secret)?;
    }
    let head = format!(
        "{MARK}\n\n[store]\npath = {}\nmax_bytes = \"4GiB\"\nmin_free_bytes = \"64MiB\"\n",
        quoted(store)
    );
    replace(&absolute, &(head + &written.text))
}

/// The tenants' tables, and the secret files that they name.
#[derive(Default)]
struct Written {
    text: String,
    secrets: BTreeMap<String, String>,
}

impl Written {
    fn of(world: &mut World, base_url: &str, grants: Grants) -> Self {
        let mut written = Self::default();
        let names: Vec<String> = world.tenants.keys().cloned().collect();
        for (index, name) in names.iter().filter(|name| *name != PARTNER).enumerate() {
            written.tenant(world, base_url, (index, name), grants.of(index));
        }
        written
    }

    fn secret(&mut self, name: &str, text: &str) -> String {
        let file = format!("{name}.secret");
        self.secrets.insert(file.clone(), format!("{text}\n"));
        quoted(&file)
    }

    fn tenant(
        &mut self,
        world: &mut World,
        base_url: &str,
        (index, name): (usize, &str),
        grant: Grant,
    ) {
        let word = Grant::ALL.iter().find(|(_, known)| *known == grant);
        let mut text = format!(
            r#"
[tenants.{name}]
api_url = {api}
token_url = {token}
owner_path = "/api/v2/tokens/me"
transport = "json"

[tenants.{name}.auth]
grant = "{word}"
"#,
            api = quoted(base_url),
            token = quoted(&format!("{base_url}/oauth/token")),
            word = word.map_or("", |(word, _)| word),
        );
        let tenant = &world.tenants[name];
        let (client, secret) = (tenant.client_id.clone(), tenant.settings.secret.clone());
        let organization = tenant.settings.organization.clone();
        let mut add = |lines: String| text.push_str(&lines);
        if grant != Grant::Static {
            add(format!("client_id = {}\n", quoted(&client)));
        }
        if matches!(
            grant,
            Grant::ClientCredentials | Grant::TokenExchange | Grant::RefreshToken
        ) {
            let file = self.secret(name, &secret);
            add(format!("client_secret_file = {file}\n"));
        }
        let signed_in = |world: &mut World, member: &str| -> String {
            let reply = world.sign_in(name, Duration::ZERO, wall());
            let Content::Json(body) = reply.content else {
                return String::new();
            };
            body[member].as_str().unwrap_or_default().to_owned()
        };
        match grant {
            Grant::ClientCredentials => {}
            Grant::TokenExchange => add(format!("audience = {}\n", quoted(&organization))),
            Grant::JwtBearer => {
                let mut pem = PublicKey::fixture_pem().to_owned();
                // Every other tenant signs the other way.
                if index % 2 == 1 {
                    let (public, private) = PublicKey::new_ec();
                    let settings = world.tenants.get_mut(name).map(|t| &mut t.settings);
                    settings.expect("it was listed").rights.key = public;
                    pem = private;
                }
                let key = format!("{name}.pem");
                self.secrets
                    .insert(key.clone(), format!("{SECRET_MARK}{name}\n{pem}"));
                add(format!(
                    "user = {}\nkey_file = {}\n",
                    quoted(&rights::user_of(name)),
                    quoted(&key)
                ));
            }
            Grant::RefreshToken => {
                let token = signed_in(world, "refresh_token");
                let file = format!("{name}.refresh");
                self.secrets.insert(file.clone(), format!("{token}\n"));
                add(format!("refresh_token_file = {}\n", quoted(&file)));
            }
            Grant::Static => {
                let token = signed_in(world, "access_token");
                let file = format!("{name}.token");
                self.secrets.insert(file.clone(), format!("{token}\n"));
                add(format!("token_file = {}\n", quoted(&file)));
            }
        }
        if grant != Grant::Static {
            add(format!(
                "scopes = [\"{ANALYTICS_SCOPE}\", \"{READ_SCOPE}\"]\n"
            ));
        }
        if grant == Grant::TokenExchange {
            let partner = &world.tenants[PARTNER];
            let (id, secret) = (partner.client_id.clone(), partner.settings.secret.clone());
            let file = self.secret(PARTNER, &secret);
            add(format!(
                "\n[tenants.{name}.auth.subject]\ngrant = \"client_credentials\"\nclient_id = {}\nclient_secret_file = {file}\n",
                quoted(&id)
            ));
        }
        self.text.push_str(&text);
    }
}

fn wall() -> i64 {
    i64::try_from(wall_seconds()).unwrap_or(i64::MAX)
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

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
