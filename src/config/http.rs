//! The `[http]` table, and a tenant's own: how requests leave this host.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::secret::SecretFile;
use super::section::Section;
use super::tenant::Place;
use crate::auth::read_secret;
use crate::http::{HttpError, Reach, check_proxy_url};

/// Larger is no certificate file.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Through whom a tenant's requests go, whom they trust and what they show. A key that a tenant does not state is
/// the common table's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http {
    proxy: Proxy,
    ca_file: Option<PathBuf>,
    client_certificate_file: Option<PathBuf>,
    client_key_file: Option<SecretFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Proxy {
    #[default]
    Environment,
    Direct,
    Through {
        url: String,
        password_file: Option<SecretFile>,
    },
}

pub fn read(section: Section<'_, '_>, common: &Http, place: &Place) -> Http {
    let mut http = common.clone();
    let secret = |key| {
        section.text(key).map(|found| SecretFile {
            name: found.value.into(),
            places: place.secrets.clone(),
            origin: format!("{}:{}", section.log.file(), found.line),
        })
    };
    let file = |key| {
        section
            .text(key)
            .map(|found| place.secrets.beside_config.join(found.value))
    };
    let password_file = secret("proxy_password_file");
    match section.text("proxy_url") {
        Some(found) if found.value == "direct" => http.proxy = Proxy::Direct,
        Some(found) => {
            let wrong = match check_proxy_url(&found.value) {
                Err(what) => Some(what),
                Ok(url) if url.username().is_empty() && password_file.is_some() => {
                    Some("names no user for proxy_password_file")
                }
                Ok(_) => None,
            };
            if let Some(what) = wrong {
                let text = format!("proxy_url in {} {what}", section.title());
                section.log.complain_line(found.line, text);
            }
            http.proxy = Proxy::Through {
                url: found.value,
                password_file,
            };
        }
        None if password_file.is_some() => {
            section.complain(format!(
                "proxy_password_file in {} needs a proxy_url beside it",
                section.title()
            ));
        }
        None => {}
    }
    http.ca_file = file("ca_file").or(http.ca_file);
    let (certificate, key) = (file("client_certificate_file"), secret("client_key_file"));
    if certificate.is_some() != key.is_some() {
        section.complain(format!(
            "client_certificate_file and client_key_file in {} go together",
            section.title()
        ));
    }
    if certificate.is_some() {
        (http.client_certificate_file, http.client_key_file) = (certificate, key);
    }
    section.finish();
    http
}

impl Http {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them, as the operator should read it.
    pub fn reach(&self) -> Result<Reach, String> {
        let reach = match &self.proxy {
            Proxy::Environment => Reach::default(),
            Proxy::Direct => Reach::default().direct(),
            Proxy::Through { url, password_file } => {
                let password = password_file.as_ref().map(secret).transpose()?;
                let password = password.as_ref().map(|secret| secret.expose_secret());
                Reach::default()
                    .through(url, password)
                    .map_err(|error| told(&error))?
            }
        };
        let ca = self.ca_file.as_deref().map(pem).transpose()?;
        let chain = self.client_certificate_file.as_deref().map(pem);
        let chain = chain.transpose()?;
        let key = self.client_key_file.as_ref().map(secret).transpose()?;
        let key = key.as_ref().map(|secret| secret.expose_secret());
        reach
            .trusting(ca.as_deref(), chain.as_deref().zip(key))
            .map_err(|error| told(&error))
    }
}

fn told(error: &HttpError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn secret(file: &SecretFile) -> Result<secrecy::SecretString, String> {
    let origin = &file.origin;
    read_secret(&file.name, &file.places).map_err(|error| match error {
        crate::auth::SecretError::Missing { .. } => format!(
            "{origin}: names no file, neither beside the configuration nor in $CREDENTIALS_DIRECTORY"
        ),
        error => format!("{origin}: {}", error),
    })
}

fn pem(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if about.len() > PEM_BYTES_MAX {
        return Err(format!("{shown} is larger than 4 MiB"));
    }
    std::fs::read(path).map_err(|error| format!("{shown}: {error}"))
}
