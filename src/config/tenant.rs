//! One `[tenants.NAME]` table: where its chunks go, how it proves who it is, and how it wants them sent.

use std::cell::Cell;
use std::time::Duration;

use crate::auth::SecretPlaces;
use crate::model::TenantId;
use crate::platform::{OWNER_PATH, ReceiptPolicy, region};

use super::auth::{self, Auth};
use super::delivery::{self, Delivery};
use super::http::{self, Http};
use super::recordings::{self, Recordings};
use super::section::{Found, Section};

/// A tenant, complete and plausible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    /// Without a trailing slash.
    pub api_url: String,
    /// The organisation that its tokens must belong to, if they show one.
    pub organization: Option<String>,
    /// Where the platform tells whose a token is, if it is to be asked of tokens that do not show it.
    pub owner_path: Option<String>,
    /// Starts with a slash.
    pub path: String,
    pub transport: Transport,
    pub receipt: ReceiptPolicy,
    /// How often to ask what became of stored chunks; `None`: stored is delivered.
    pub confirm: Option<Duration>,
    pub http: Http,
    pub auth: Auth,
    pub delivery: Delivery,
    pub recordings: Recordings,
}

/// In which shape chunks travel; docs/PROTOCOL.md has a section for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    #[default]
    Json,
    Binary,
    Presigned,
    Websocket,
}

impl Transport {
    const WORDS: [(&str, Self); 4] = [
        ("json", Self::Json),
        ("binary", Self::Binary),
        ("presigned", Self::Presigned),
        ("websocket", Self::Websocket),
    ];

    /// Where its requests go; of json, the first of the two paths seen in the field.
    fn default_path(self) -> &'static str {
        match self {
            Self::Json => "/api/v2/analytics/screenrecordings",
            Self::Binary => "/api/v2/analytics/screenrecordings/content",
            Self::Presigned => "/api/v2/uploads/recordings",
            Self::Websocket => "/api/v2/analytics/screenrecordings/stream",
        }
    }
}

/// A recording is known within minutes, and a question costs a request of the quota.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);
const CONFIRM_EVERY_MIN: Duration = Duration::from_secs(1);
const CONFIRM_EVERY_MAX: Duration = Duration::from_secs(86_400);

/// What is around a tenant's table.
pub struct Place {
    pub secrets: SecretPlaces,
    /// That a token url is missing, or wrong, was said of the tenant that is being read.
    pub url_complained: Cell<bool>,
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
    let wrong_url = token_url.is_none() && (section.has("token_url") || section.has("region"));
    place.url_complained.set(wrong_url);
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
    let organization = section.text("organization").map(|found| found.value);
    let owner_path = match section.text("owner_path") {
        Some(found) => plain_path(&section, "owner_path", found),
        // What a region's own API has; another url may lead to anything.
        None => (section.has("region") && !section.has("api_url")).then(|| OWNER_PATH.to_owned()),
    };
    let auth = match section.section("auth") {
        Some(auth) => auth::read(auth, place, token_url.as_deref()),
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
    let confirm = confirm(&section, transport);
    let http = match section.section("http") {
        Some(own) => http::read(own, &place.http, place),
        None => place.http.clone(),
    };
    let delivery = section
        .section("delivery")
        .map_or_else(Delivery::default, delivery::read);
    let recordings = section
        .section("recordings")
        .map_or_else(Recordings::default, recordings::read);
    section.finish();
    Some(Tenant {
        id: id?,
        api_url: api_url?,
        organization,
        owner_path,
        path: path?,
        transport,
        receipt,
        confirm,
        http,
        auth: auth?,
        delivery,
        recordings,
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
            // Not every grant asks anybody for its token.
            let needed = key == "api_url";
            if needed && preset.is_none() && region.is_none() && !section.has(key) {
                section.complain(format!("{} needs a region, or {key}", section.title()));
            }
            preset
        }
    };
    let (api, token) = preset.map_or((None, None), |p| (Some(p.api_url), Some(p.token_url)));
    (one("api_url", api), one("token_url", token))
}

/// Credentials travel there: TLS, or this machine. The url itself is not repeated: it may hold a password.
pub(super) fn check_url(text: &str) -> Result<String, &'static str> {
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

fn confirm(section: &Section<'_, '_>, transport: Transport) -> Option<Duration> {
    let ingested = section.choice("confirm", &[("stored", false), ("ingested", true)]);
    let every = section.duration("confirm_every", CONFIRM_EVERY_MIN..=CONFIRM_EVERY_MAX);
    if transport != Transport::Presigned && (section.has("confirm") || section.has("confirm_every"))
    {
        let title = section.title();
        section.complain(format!(
            "confirm in {title} goes with transport = \"presigned\" only"
        ));
    }
    (ingested == Some(true)).then(|| every.unwrap_or(CONFIRM_EVERY))
}

fn path(section: &Section<'_, '_>, transport: Transport) -> Option<String> {
    match section.text("path") {
        Some(found) => plain_path(section, "path", found),
        None => (!section.has("path")).then(|| transport.default_path().to_owned()),
    }
}

/// `None` if it is no path, which is complained of.
pub fn plain_path(section: &Section<'_, '_>, key: &str, found: Found<String>) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '\\');
    if !found.value.starts_with('/') || !found.value.chars().all(plain) {
        let text = format!(
            "{key} in {} must start with / and hold no query",
            section.title()
        );
        section.log.complain_line(found.line, text);
        return None;
    }
    Some(found.value)
}
