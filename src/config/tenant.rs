//! One `[tenants.NAME]` table: where its chunks go, how it proves who it is, and how it wants them sent.

use crate::auth::SecretPlaces;
use crate::model::TenantId;
use crate::platform::{ReceiptPolicy, region};

use super::auth::{self, Auth};
use super::delivery::{self, Delivery};
use super::http::{self, Http};
use super::section::Section;

/// A tenant, complete and plausible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    /// Without a trailing slash.
    pub api_url: String,
    pub token_url: String,
    /// Starts with a slash.
    pub path: String,
    pub transport: Transport,
    pub receipt: ReceiptPolicy,
    pub http: Http,
    pub auth: Auth,
    pub delivery: Delivery,
}

/// In which shape chunks travel; docs/PROTOCOL.md has a section for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    #[default]
    Json,
    Binary,
    Presigned,
}

impl Transport {
    const WORDS: [(&str, Self); 3] = [
        ("json", Self::Json),
        ("binary", Self::Binary),
        ("presigned", Self::Presigned),
    ];

    /// Where its requests go; of json, the first of the two paths seen in the field.
    fn default_path(self) -> &'static str {
        match self {
            Self::Json => "/api/v2/analytics/screenrecordings",
            Self::Binary => "/api/v2/analytics/screenrecordings/content",
            Self::Presigned => "/api/v2/uploads/recordings",
        }
    }
}

/// What is around a tenant's table.
pub struct Place {
    pub secrets: SecretPlaces,
    /// The common table.
    pub http: Http,
}

/// Reads a tenant; `None` if a complaint was made that leaves it incomplete.
pub fn read(name: &str, section: Section<'_, '_>, place: &Place) -> Option<Tenant> {
    let id = match name.parse::<TenantId>() {
        Ok(id) => Some(id),
        Err(error) => {
            section.complain(error.to_string());
            None
        }
    };
    let (api_url, token_url) = urls(&section);
    let transport = section
        .choice("transport", &Transport::WORDS)
        .unwrap_or_default();
    let path = path(&section, transport);
    let receipt = section
        .choice(
            "receipt",
            &[
                ("body", ReceiptPolicy::Body),
                ("status", ReceiptPolicy::Status),
            ],
        )
        .unwrap_or_default();
    let auth = match section.section("auth") {
        Some(auth) => auth::read(auth, place),
        None => {
            if !section.has("auth") {
                section.complain(format!(
                    "{} needs a table [tenants.{name}.auth]",
                    section.title()
                ));
            }
            None
        }
    };
    let http = match section.section("http") {
        Some(own) => http::read(own, &place.http, place),
        None => place.http.clone(),
    };
    let delivery = section
        .section("delivery")
        .map_or_else(Delivery::default, delivery::read);
    section.finish();
    Some(Tenant {
        id: id?,
        api_url: api_url?,
        token_url: token_url?,
        path: path?,
        transport,
        receipt,
        http,
        auth: auth?,
        delivery,
    })
}

fn urls(section: &Section<'_, '_>) -> (Option<String>, Option<String>) {
    let region = section.text("region");
    let preset = region.as_ref().and_then(|found| {
        let preset = region::preset(&found.value);
        if let Err(error) = &preset {
            let text = format!("region in {}: {error}", section.title());
            section.log.complain_line(found.line, text);
        }
        preset.ok()
    });
    let one = |key, preset: Option<String>| match section.text(key) {
        Some(found) => match check_url(&found.value) {
            Ok(url) => Some(url),
            Err(what) => {
                let text = format!("{key} in {} {what}", section.title());
                section.log.complain_line(found.line, text);
                None
            }
        },
        None => {
            if preset.is_none() && region.is_none() && !section.has(key) {
                section.complain(format!("{} needs a region, or {key}", section.title()));
            }
            preset
        }
    };
    let (api, token) = preset.map_or((None, None), |p| (Some(p.api_url), Some(p.token_url)));
    (one("api_url", api), one("token_url", token))
}

/// Credentials travel there: TLS, or this machine. The url itself is not repeated: it may hold a password.
fn check_url(text: &str) -> Result<String, &'static str> {
    let url =
        reqwest::Url::parse(text).map_err(|_| "is not a url such as https://api.example.com")?;
    let host = url.host_str().unwrap_or_default();
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("must start with https:// (http:// only for this machine)"),
        _ => return Err("must start with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold a query or fragment");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn path(section: &Section<'_, '_>, transport: Transport) -> Option<String> {
    let Some(found) = section.text("path") else {
        return (!section.has("path")).then(|| transport.default_path().to_owned());
    };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '\\');
    if !found.value.starts_with('/') || !found.value.chars().all(plain) {
        let text = format!(
            "path in {} must start with / and hold no query",
            section.title()
        );
        section.log.complain_line(found.line, text);
        return None;
    }
    Some(found.value)
}
