//! One `[tenants.NAME.auth]` table: how a tenant proves who it is.

use super::secret::SecretFile;
use super::section::Section;
use super::tenant::Place;

/// How a tenant gets its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub grant: Grant,
    pub client_id: String,
    pub client_secret_file: SecretFile,
    pub scopes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    ClientCredentials,
}

/// `None` if a complaint was made that leaves it incomplete.
pub fn read(section: Section<'_, '_>, place: &Place) -> Option<Auth> {
    let grant = section.choice("grant", &[("client_credentials", Grant::ClientCredentials)]);
    let client_id = required(&section, "client_id");
    let secret = section.text("client_secret_file");
    if secret.is_none() && !section.has("client_secret_file") {
        section.complain(format!("{} needs client_secret_file", section.title()));
    }
    let scopes = section.texts("scopes").map_or_else(Vec::new, |found| {
        if found.value.iter().any(|scope| !is_scope(scope)) {
            let text = format!(
                "scopes in {} must be words without spaces or quotes",
                section.title()
            );
            section.log.complain_line(found.line, text);
        }
        found.value
    });
    let file = secret.map(|found| SecretFile {
        name: found.value.into(),
        places: place.secrets.clone(),
        origin: format!("{}:{}", section.log.file(), found.line),
    });
    let grant = grant.or((!section.has("grant")).then_some(Grant::ClientCredentials));
    section.finish();
    Some(Auth {
        grant: grant?,
        client_id: client_id?,
        client_secret_file: file?,
        scopes,
    })
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    let token = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    !scope.is_empty() && scope.chars().all(token)
}

fn required(section: &Section<'_, '_>, key: &'static str) -> Option<String> {
    let found = section.text(key);
    match &found {
        None if !section.has(key) => section.complain(format!("{} needs {key}", section.title())),
        Some(found) if found.value.is_empty() => {
            let text = format!("{key} in {} is empty", section.title());
            section.log.complain_line(found.line, text);
        }
        _ => {}
    }
    found.map(|found| found.value)
}
