//! The keys that grants share, each read and checked in one way.

use super::Client;
use crate::config::secret::SecretFile;
use crate::config::section::{Found, Section};
use crate::config::tenant::Place;

/// What every token type's name begins with (RFC 8693 section 3).
pub(super) const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// A client that may be left out; a secret without its id says nothing.
pub(super) fn client(section: &Section<'_, '_>, place: &Place) -> Client {
    let id = optional(section, "client_id");
    let secret = file(section, place, "client_secret_file", false);
    if secret.is_some() && id.is_none() && !section.has("client_id") {
        section.complain(format!("{} needs client_id", section.title()));
    }
    Client { id, secret }
}

/// A short word or a whole URN.
pub(super) fn token_type(section: &Section<'_, '_>, key: &'static str) -> Option<String> {
    const WORDS: [&str; 6] = [
        "access_token",
        "refresh_token",
        "id_token",
        "saml1",
        "saml2",
        "jwt",
    ];
    let found = section.text(key)?;
    let word = found.value.strip_prefix(TOKEN_TYPE).unwrap_or(&found.value);
    if WORDS.contains(&word) {
        return Some(format!("{TOKEN_TYPE}{word}"));
    }
    let text = format!(
        "{key} in {} must be one of {}",
        section.title(),
        WORDS.join(", ")
    );
    section.log.complain_line(found.line, text);
    None
}

pub(super) fn scopes(section: &Section<'_, '_>) -> Vec<String> {
    section.texts("scopes").map_or_else(Vec::new, |found| {
        if found.value.iter().any(|scope| !is_scope(scope)) {
            let text = format!(
                "scopes in {} must be words without spaces or quotes",
                section.title()
            );
            section.log.complain_line(found.line, text);
        }
        found.value
    })
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    let token = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    !scope.is_empty() && scope.chars().all(token)
}

pub(super) fn file(
    section: &Section<'_, '_>,
    place: &Place,
    key: &'static str,
    is_required: bool,
) -> Option<SecretFile> {
    let found = if is_required {
        required_found(section, key)
    } else {
        optional_found(section, key)
    };
    found.map(|found| SecretFile {
        name: found.value.into(),
        places: place.secrets.clone(),
        origin: format!("{}:{}", section.log.file(), found.line),
    })
}

pub(super) fn required(section: &Section<'_, '_>, key: &'static str) -> Option<String> {
    required_found(section, key).map(|found| found.value)
}

fn required_found(section: &Section<'_, '_>, key: &'static str) -> Option<Found<String>> {
    if !section.has(key) {
        section.complain(format!("{} needs {key}", section.title()));
    }
    optional_found(section, key)
}

pub(super) fn optional(section: &Section<'_, '_>, key: &'static str) -> Option<String> {
    optional_found(section, key).map(|found| found.value)
}

fn optional_found(section: &Section<'_, '_>, key: &'static str) -> Option<Found<String>> {
    let found = section.text(key)?;
    if found.value.is_empty() {
        let text = format!("{key} in {} is empty", section.title());
        section.log.complain_line(found.line, text);
    }
    Some(found)
}
