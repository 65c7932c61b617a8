//! One `[tenants.NAME]` table: where its chunks go, how it proves who it is, and how it wants them sent.

use std::time::Duration;

use crate::auth::SecretPlaces;
use crate::model::TenantId;
use crate::platform::{ReceiptPolicy, region};

use super::secret::SecretFile;
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
    pub receipt: ReceiptPolicy,
    pub auth: Auth,
    pub delivery: Delivery,
}

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

/// How a tenant's chunks are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Counted failures before a chunk is dead.
    pub max_retries: u32,
    /// And they must span at least this.
    pub min_retry_span: Duration,
    /// How long a missing sequence is waited for.
    pub gap_wait: Duration,
    pub on_dead: OnDead,
    pub refresh: Refresh,
    /// `false`: the first 401 blocks the tenant until an operator resumes it. Nothing is dropped either way.
    pub retry_on_401: bool,
    /// Longest span of recording in one request.
    pub max_interval: Duration,
    /// Requests in flight for this tenant.
    pub concurrency: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// The session goes on and declares the gap.
    Skip,
    /// The session waits for a person.
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Before the token ends.
    Ahead,
    /// When the platform says 401.
    On401,
}

/// The first of the two paths seen in the field.
pub const DEFAULT_PATH: &str = "/api/v2/analytics/screenrecordings";
/// Ten counted failures over a day: a chunk that others overtook ten times has its own trouble.
pub const DEFAULT_MAX_RETRIES: u32 = 10;
/// Six bits in the state word hold the count.
const MAX_RETRIES_CEILING: u64 = 60;
/// No chunk dies of a fault that a working day can repair.
pub const DEFAULT_MIN_RETRY_SPAN: Duration = Duration::from_secs(24 * 3600);
/// Longer than a restart of the capture side, shorter than a person's patience.
pub const DEFAULT_GAP_WAIT: Duration = Duration::from_secs(120);
/// A quarter of an hour of video is the largest interval that the json endpoints were seen to take.
pub const DEFAULT_MAX_INTERVAL: Duration = Duration::from_secs(900);
/// Half of the default pool, so that two busy tenants share it.
pub const DEFAULT_CONCURRENCY: u32 = 8;

const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);
const DAY_SECONDS: u64 = 86_400;

/// What is around a tenant's table.
pub struct Place {
    pub secrets: SecretPlaces,
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
    let path = path(&section);
    // One transport so far; the key is there so that files written now say what they rely on.
    section.choice("transport", &[("json", ())]);
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
        Some(auth) => self::auth(auth, place),
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
    let delivery = section
        .section("delivery")
        .map_or_else(Delivery::default, self::delivery);
    section.finish();
    Some(Tenant {
        id: id?,
        api_url: api_url?,
        token_url: token_url?,
        path: path?,
        receipt,
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

fn path(section: &Section<'_, '_>) -> Option<String> {
    let Some(found) = section.text("path") else {
        return (!section.has("path")).then(|| DEFAULT_PATH.to_owned());
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

fn auth(section: Section<'_, '_>, place: &Place) -> Option<Auth> {
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

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_retries: DEFAULT_MAX_RETRIES,
            min_retry_span: DEFAULT_MIN_RETRY_SPAN,
            gap_wait: DEFAULT_GAP_WAIT,
            on_dead: OnDead::Skip,
            refresh: Refresh::Ahead,
            retry_on_401: true,
            max_interval: DEFAULT_MAX_INTERVAL,
            concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

fn delivery(section: Section<'_, '_>) -> Delivery {
    let default = Delivery::default();
    // Order within a session is a promise, not a setting; the key states it.
    section.choice("order", &[("session", ())]);
    section.one_spelling("max_retries", "maxRetries");
    section.one_spelling("retry_on_401", "retryOn401");
    section.one_spelling("max_interval", "intervalSeconds");
    let retries = section
        .count("max_retries", 1..=MAX_RETRIES_CEILING)
        .or_else(|| section.count("maxRetries", 1..=MAX_RETRIES_CEILING));
    let seconds = section
        .count("intervalSeconds", 1..=DAY_SECONDS)
        .map(Duration::from_secs);
    let interval = section
        .duration(
            "max_interval",
            Duration::from_secs(1)..=Duration::from_secs(DAY_SECONDS),
        )
        .or(seconds);
    let delivery = Delivery {
        max_retries: retries
            .and_then(|retries| u32::try_from(retries).ok())
            .unwrap_or(default.max_retries),
        min_retry_span: section
            .duration("min_retry_span", Duration::ZERO..=MONTH)
            .unwrap_or(default.min_retry_span),
        gap_wait: section
            .duration("gap_wait", Duration::ZERO..=WEEK)
            .unwrap_or(default.gap_wait),
        on_dead: section
            .choice("on_dead", &[("skip", OnDead::Skip), ("hold", OnDead::Hold)])
            .unwrap_or(default.on_dead),
        refresh: section
            .choice(
                "refresh_policy",
                &[("ahead", Refresh::Ahead), ("on_401", Refresh::On401)],
            )
            .unwrap_or(default.refresh),
        retry_on_401: section
            .flag("retry_on_401")
            .or_else(|| section.flag("retryOn401"))
            .unwrap_or(default.retry_on_401),
        max_interval: interval.unwrap_or(default.max_interval),
        concurrency: section
            .count("concurrency", 1..=1024)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.concurrency),
    };
    // Asked for even when our own spelling stands there, so that it counts as known.
    for theirs in ["maxRetries", "retryOn401"] {
        section.know(theirs);
    }
    section.finish();
    delivery
}
