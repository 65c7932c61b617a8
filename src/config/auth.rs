//! One `[tenants.NAME.auth]` table, with its `subject` and `fallback`: how a tenant proves who it is. Each grant knows its own
//! keys; those of another are refused like any unknown key.

mod keys;

use std::time::Duration;

use super::secret::SecretFile;
use super::section::Section;
use super::tenant::{Place, check_url};
use crate::model::Route;
use keys::{TOKEN_TYPE, client, file, optional, required, scopes, token_type};

/// How a tenant gets its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub mint: Mint,
    /// Another kind of token, for routes where the first will not do.
    pub fallback: Option<Fallback>,
}

/// A token request: equal ones are made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mint {
    /// Empty for a token that is not asked for.
    pub token_url: String,
    pub grant: Grant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    pub mint: Mint,
    pub routes: Vec<Route>,
}

/// Who asks. Both may be absent where a grant needs no client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: Option<String>,
    pub secret: Option<SecretFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    ClientCredentials {
        client: Client,
        scopes: Vec<String>,
    },
    TokenExchange {
        client: Client,
        subject: Box<Mint>,
        audience: Option<String>,
        resource: Option<String>,
        scopes: Vec<String>,
        requested_token_type: Option<String>,
        subject_token_type: String,
    },
    JwtBearer {
        client: Client,
        issuer: String,
        user: String,
        audience: String,
        key: SecretFile,
        key_id: Option<String>,
        assertion_life: Duration,
        scopes: Vec<String>,
    },
    RefreshToken {
        client: Client,
        token: SecretFile,
        scopes: Vec<String>,
    },
    Static {
        token: SecretFile,
    },
}

/// Long enough for a slow endpoint and clocks half a minute apart, short enough that a stolen assertion is worth little.
const DEFAULT_ASSERTION_LIFE: Duration = Duration::from_secs(120);

impl Grant {
    /// What its tokens are asked to carry.
    pub fn scopes(&self) -> &[String] {
        match self {
            Self::ClientCredentials { scopes, .. }
            | Self::TokenExchange { scopes, .. }
            | Self::JwtBearer { scopes, .. }
            | Self::RefreshToken { scopes, .. } => scopes,
            Self::Static { .. } => &[],
        }
    }

    fn client(&self) -> Option<&Client> {
        match self {
            Self::ClientCredentials { client, .. }
            | Self::TokenExchange { client, .. }
            | Self::JwtBearer { client, .. }
            | Self::RefreshToken { client, .. } => Some(client),
            Self::Static { .. } => None,
        }
    }
}

impl Mint {
    /// Every file that it reads, with the key that names it.
    pub fn files(&self) -> Vec<(&'static str, &SecretFile)> {
        let mut files: Vec<(&'static str, &SecretFile)> = Vec::new();
        let secret = self
            .grant
            .client()
            .and_then(|client| client.secret.as_ref());
        files.extend(secret.map(|file| ("client_secret_file", file)));
        match &self.grant {
            Grant::ClientCredentials { .. } => {}
            Grant::TokenExchange { subject, .. } => files.extend(subject.files()),
            Grant::JwtBearer { key, .. } => files.push(("key_file", key)),
            Grant::RefreshToken { token, .. } => files.push(("refresh_token_file", token)),
            Grant::Static { token } => files.push(("token_file", token)),
        }
        files
    }
}

impl Auth {
    pub fn files(&self) -> Vec<(&'static str, &SecretFile)> {
        let mut files = self.mint.files();
        files.extend(
            self.fallback
                .iter()
                .flat_map(|fallback| fallback.mint.files()),
        );
        files
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClientCredentials,
    TokenExchange,
    JwtBearer,
    RefreshToken,
    Static,
}

const KINDS: [(&str, Kind); 5] = [
    ("client_credentials", Kind::ClientCredentials),
    ("token_exchange", Kind::TokenExchange),
    ("jwt_bearer", Kind::JwtBearer),
    ("refresh_token", Kind::RefreshToken),
    ("static", Kind::Static),
];

/// `None` if a complaint was made that leaves it incomplete. `token_url` is the tenant's.
pub fn read(section: Section<'_, '_>, place: &Place, token_url: Option<&str>) -> Option<Auth> {
    let fallback = section.section("fallback").map(|section| {
        let routes = routes(&section);
        let mint = mint(section, place, token_url, true);
        mint.map(|mint| Fallback { mint, routes })
    });
    let mint = mint(section, place, token_url, false);
    Some(Auth {
        mint: mint?,
        fallback: match fallback {
            Some(fallback) => Some(fallback?),
            None => None,
        },
    })
}

/// Uploads keep to one kind of token: a route that changes it would change who recorded what.
fn routes(section: &Section<'_, '_>) -> Vec<Route> {
    let Some(found) = section.texts("routes") else {
        return vec![Route::Fetch];
    };
    if found.value.is_empty() || found.value.iter().any(|route| route != "fetch") {
        let text = format!("routes in {} must be [\"fetch\"]", section.title());
        section.log.complain_line(found.line, text);
    }
    vec![Route::Fetch]
}

fn mint(
    section: Section<'_, '_>,
    place: &Place,
    token_url: Option<&str>,
    is_inner: bool,
) -> Option<Mint> {
    let known = section.choice("grant", &KINDS);
    let kind = match known {
        Some(kind) => kind,
        None if section.has("grant") => {
            // What else stands there belongs to a grant that nobody knows.
            section.forgive();
            return None;
        }
        None => Kind::ClientCredentials,
    };
    let asks = kind != Kind::Static;
    let own = if is_inner && asks {
        own_url(&section)
    } else {
        None
    };
    let token_url = own.or_else(|| token_url.map(str::to_owned));
    if asks && token_url.is_none() && !place.url_complained.get() {
        place.url_complained.set(true);
        section.complain(format!(
            "{} needs a token_url, or a region",
            section.title()
        ));
    }
    let url = token_url.clone().unwrap_or_default();
    let grant = match kind {
        Kind::ClientCredentials => client_credentials(&section, place),
        Kind::TokenExchange => token_exchange(&section, place, token_url.as_deref()),
        Kind::JwtBearer => jwt_bearer(&section, place, &url),
        Kind::RefreshToken => refresh_token(&section, place),
        Kind::Static => {
            file(&section, place, "token_file", true).map(|token| Grant::Static { token })
        }
    };
    section.finish();
    Some(Mint {
        token_url: if asks { token_url? } else { String::new() },
        grant: grant?,
    })
}

fn own_url(section: &Section<'_, '_>) -> Option<String> {
    let found = section.text("token_url")?;
    match check_url(&found.value) {
        Ok(url) => Some(url),
        Err(what) => {
            let text = format!("token_url in {} {what}", section.title());
            section.log.complain_line(found.line, text);
            None
        }
    }
}

fn client_credentials(section: &Section<'_, '_>, place: &Place) -> Option<Grant> {
    let id = required(section, "client_id");
    let secret = file(section, place, "client_secret_file", true);
    let scopes = scopes(section);
    Some(Grant::ClientCredentials {
        client: Client {
            id: Some(id?),
            secret: Some(secret?),
        },
        scopes,
    })
}

fn token_exchange(
    section: &Section<'_, '_>,
    place: &Place,
    token_url: Option<&str>,
) -> Option<Grant> {
    let client = client(section, place);
    let (audience, resource) = (optional(section, "audience"), optional(section, "resource"));
    let scopes = scopes(section);
    let requested = token_type(section, "requested_token_type");
    let given = token_type(section, "subject_token_type");
    let subject = match section.section("subject") {
        Some(subject) => subject_of(subject, place, token_url),
        None => {
            if !section.has("subject") {
                let title = section.title();
                let inner = title.trim_end_matches(']');
                section.complain(format!("{title} needs a table {inner}.subject]"));
            }
            None
        }
    };
    Some(Grant::TokenExchange {
        client,
        subject: Box::new(subject?),
        audience,
        resource,
        scopes,
        requested_token_type: requested,
        subject_token_type: given.unwrap_or_else(|| format!("{TOKEN_TYPE}access_token")),
    })
}

/// One link: a chain of exchanges is one that nobody can mend.
fn subject_of(section: Section<'_, '_>, place: &Place, token_url: Option<&str>) -> Option<Mint> {
    let line = section.place();
    let title = section.title();
    let log = section.log;
    let mint = mint(section, place, token_url, true)?;
    if matches!(mint.grant, Grant::TokenExchange { .. }) {
        let line = line.rsplit(':').next().and_then(|line| line.parse().ok());
        let text = format!("grant in {title} must not be token_exchange again");
        log.complain_line(line.unwrap_or(0), text);
        return None;
    }
    Some(mint)
}

fn jwt_bearer(section: &Section<'_, '_>, place: &Place, token_url: &str) -> Option<Grant> {
    let id = required(section, "client_id");
    let secret = file(section, place, "client_secret_file", false);
    let key = file(section, place, "key_file", true);
    let user = required(section, "user");
    let issuer = optional(section, "issuer").or_else(|| id.clone());
    let audience = optional(section, "audience").unwrap_or_else(|| token_url.to_owned());
    let key_id = optional(section, "key_id");
    let life = Duration::from_secs(30)..=Duration::from_secs(3600);
    let assertion_life = section.duration("assertion_life", life);
    let scopes = scopes(section);
    Some(Grant::JwtBearer {
        client: Client { id, secret },
        issuer: issuer?,
        user: user?,
        audience,
        key: key?,
        key_id,
        assertion_life: assertion_life.unwrap_or(DEFAULT_ASSERTION_LIFE),
        scopes,
    })
}

fn refresh_token(section: &Section<'_, '_>, place: &Place) -> Option<Grant> {
    let id = required(section, "client_id");
    let secret = file(section, place, "client_secret_file", false);
    let token = file(section, place, "refresh_token_file", true);
    let scopes = scopes(section);
    Some(Grant::RefreshToken {
        client: Client {
            id: Some(id?),
            secret,
        },
        token: token?,
        scopes,
    })
}
