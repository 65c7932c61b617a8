//! The upload endpoints, decided purely: who is asking, may they, how often, is the request what it says, and what is new in it.

use std::time::Duration;

use serde_json::{Value, json};

use super::content;
use super::presign::{self, Wish};
use super::reply::{Reply, standard};
use super::rights::{UPLOAD_PERMISSION, user_wanted};
use super::session::Session;
use super::settings::{ANALYTICS_SCOPE, Refusal, SCREENSHARE_SCOPE};
use super::upload::{self, Upload};
use super::world::{Standing, World};

/// The families of upload paths, each with its right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Analytics,
    Screenshare,
    Uploads,
}

impl Path {
    fn scope(self) -> &'static str {
        match self {
            Self::Analytics | Self::Uploads => ANALYTICS_SCOPE,
            Self::Screenshare => SCREENSHARE_SCOPE,
        }
    }
}

/// The head of a delivery, as far as it matters.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) path: Path,
    /// The bearer token.
    pub(super) token: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content_length: Option<u64>,
    /// The idempotency key without its quotes.
    pub(super) key: Option<String>,
    /// Since the emulator's start.
    pub(super) arrived_at: Duration,
    /// Seconds after the Unix epoch.
    pub(super) wall_seconds: u64,
    /// As the sender calls this emulator.
    pub(super) base_url: String,
}

/// A request's body, as far as it was read without regard to its sense.
#[derive(Debug)]
pub(super) enum Shape {
    /// What its bytes parsed to.
    Json(Option<Value>),
    /// The payload itself; what it is stands in the fields.
    Content(content::Fields, Vec<u8>),
    /// As `Json`, for an upload URL.
    Wish(Option<Value>),
}

/// What a request wants, well-formed.
#[derive(Debug)]
pub(super) enum Wanted {
    Store(Upload),
    Url(Box<Wish>),
}

impl Shape {
    /// The session that a request names, and its first and last sequence, as far as they are readable: what fault rules
    /// match on.
    pub(super) fn aim(&self) -> (Option<String>, Option<(u64, u64)>) {
        match self {
            Self::Json(body) => {
                let aim = body.as_ref().map_or((None, None), upload::aim);
                (aim.0.map(str::to_owned), aim.1)
            }
            Self::Content(fields, _) => fields.aim(),
            Self::Wish(body) => {
                let recording = body.as_ref().and_then(|body| body.get("recording"));
                let aim = recording.map_or((None, None), upload::aim);
                (aim.0.map(str::to_owned), aim.1)
            }
        }
    }
}

/// Reads a delivery without regard to who sent it. Needs no lock, and may take long.
pub(super) fn read(head: &Head, body: &Shape) -> Result<Wanted, Reply> {
    let json = |body: &'_ Option<Value>| {
        is_json(head)?;
        body.clone().ok_or_else(|| standard(400))
    };
    Ok(match body {
        Shape::Json(body) => Wanted::Store(Upload::read(&json(body)?, key(head)?)?),
        Shape::Content(fields, payload) => {
            has_length(head)?;
            Wanted::Store(content::read(fields, payload, head, key(head)?)?)
        }
        Shape::Wish(body) => Wanted::Url(Box::new(Wish::read(&json(body)?, key(head)?)?)),
    })
}

/// Answers a delivery. What it lacks in rights is told before what is wrong with it.
pub(super) fn answer(
    world: &mut World,
    head: &Head,
    wanted: Result<Wanted, Reply>,
    now: Duration,
) -> Reply {
    allowed(world, head, now, |world, name| match wanted? {
        Wanted::Store(upload) => {
            check(world, name, &upload)?;
            accept(world, name, &upload)
        }
        Wanted::Url(wish) => presign::issue(world, name, head, &wish, now),
    })
}

/// Does `work` for whoever has the right and the quota for it.
pub(super) fn allowed(
    world: &mut World,
    head: &Head,
    now: Duration,
    work: impl FnOnce(&mut World, &str) -> Result<Reply, Reply>,
) -> Reply {
    let (standing, tenant) = world.standing(head.token.as_deref(), head.arrived_at);
    let (Standing::Good { scopes, user }, Some(name)) = (&standing, tenant.as_deref()) else {
        return unauthorized(&standing);
    };
    if let Some(token) = &head.token {
        world.touch(token, now);
    }
    let mut reply = within_rights(world, name, head.path, scopes)
        .and_then(|()| permitted(world, name, user.is_some()))
        .and_then(|()| within_quota(world, name, head.token.as_deref(), now))
        .and_then(|()| work(world, name))
        .unwrap_or_else(|refusal| refusal);
    if let Some(quota) = &world.tenants[name].settings.quota {
        reply
            .headers
            .extend(quota.headers(head.token.as_deref(), now, head.wall_seconds));
    }
    reply
}

/// Whose token it is, as the platform tells it.
pub(super) fn token_owner(world: &World, token: Option<&str>, now: Duration) -> Reply {
    let (standing, tenant) = world.standing(token, now);
    let (Standing::Good { .. }, Some(name)) = (&standing, tenant) else {
        return unauthorized(&standing);
    };
    let tenant = &world.tenants[&name];
    let organization = &tenant.settings.organization;
    Reply::json(
        200,
        json!({
            "organization": {"id": organization, "name": name},
            "homeOrganization": {"id": organization, "name": name},
            "OAuthClient": {"id": tenant.client_id},
        }),
    )
}

pub(super) fn unauthorized(standing: &Standing) -> Reply {
    let challenge = "Bearer realm=\"sandbox\"";
    if *standing == Standing::Absent {
        return Reply::error(
            401,
            "authentication.required",
            "No authentication bearer token specified in authorization header.",
        )
        .with("WWW-Authenticate", challenge);
    }
    let reply = if *standing == Standing::Expired {
        Reply::error(
            401,
            "credentials.expired",
            "The supplied credentials are expired.",
        )
    } else {
        standard(401)
    };
    reply.with(
        "WWW-Authenticate",
        &format!("{challenge}, error=\"invalid_token\""),
    )
}

/// A right counts if the token was issued with it and the client still has it.
pub(super) fn within_rights(
    world: &World,
    name: &str,
    path: Path,
    scopes: &[String],
) -> Result<(), Reply> {
    let needed = path.scope();
    let settings = &world.tenants[name].settings;
    if settings.scopes.contains(needed) && scopes.iter().any(|scope| scope == needed) {
        return Ok(());
    }
    Err(match settings.refusal {
        Refusal::InsufficientScope => Reply::error(
            403,
            "not.authorized",
            &format!("You are not authorized to perform the requested action: it needs the scope {needed}."),
        )
        .with(
            "WWW-Authenticate",
            &format!("Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"{needed}\""),
        ),
        Refusal::MissingPermissions => Reply::error(
            403,
            "missing.permissions",
            &format!("Unable to perform the requested action. You are missing the following permission(s): {needed}"),
        ),
    })
}

/// Rights that come from the client's roles and not from its token's scopes.
pub(super) fn permitted(world: &World, name: &str, is_user: bool) -> Result<(), Reply> {
    let rights = &world.tenants[name].settings.rights;
    if rights.needs_user && !is_user {
        return Err(user_wanted());
    }
    if !rights.permissions.contains(UPLOAD_PERMISSION) {
        return Err(Reply::error(
            403,
            "missing.permissions",
            &format!(
                "Unable to perform the requested action. You are missing the following permission(s): {UPLOAD_PERMISSION}"
            ),
        ));
    }
    Ok(())
}

pub(super) fn within_quota(
    world: &mut World,
    name: &str,
    token: Option<&str>,
    now: Duration,
) -> Result<(), Reply> {
    let tenant = world
        .tenants
        .get_mut(name)
        .expect("the token names a tenant");
    let Some(quota) = &mut tenant.settings.quota else {
        return Ok(());
    };
    if quota.take(token, now) {
        return Ok(());
    }
    let seconds = quota.reset_seconds(token, now);
    Err(Reply::error(
        429,
        "too.many.requests",
        &format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds"),
    )
    .with("Retry-After", &seconds.to_string()))
}

fn is_json(head: &Head) -> Result<(), Reply> {
    let media_type = head
        .content_type
        .as_deref()
        .and_then(|text| text.split(';').next());
    if !media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Reply::error(
            415,
            "unsupported.media.type",
            "The media type is not application/json.",
        ));
    }
    has_length(head)
}

fn has_length(head: &Head) -> Result<(), Reply> {
    if head.content_length.is_none() {
        return Err(Reply::error(
            411,
            "length.required",
            "Content-Length is missing.",
        ));
    }
    Ok(())
}

/// The request's key.
fn key(head: &Head) -> Result<&str, Reply> {
    head.key.as_deref().ok_or_else(|| {
        Reply::field(
            400,
            "bad.request",
            "Idempotency-Key",
            "Idempotency-Key is missing, or not a string in double quotes",
        )
    })
}

/// Refuses wrong keys, and other bytes under a stored sequence.
pub(super) fn check(world: &mut World, name: &str, upload: &Upload) -> Result<(), Reply> {
    let tenant = world
        .tenants
        .get_mut(name)
        .expect("the token names a tenant");
    if tenant.settings.check_keys {
        upload.check_keys(name)?;
    }
    let place = (upload.host.clone(), upload.session.clone());
    let session: &mut Session = tenant.sessions.entry(place).or_default();
    if let Err(conflict) = session.compare(upload) {
        tenant.counters.conflicts += 1;
        return Err(Reply::field(
            409,
            "conflict.digest",
            "parts.digest",
            &format!(
                "sequence {} is stored as {}",
                conflict.sequence, conflict.stored
            ),
        ));
    }
    Ok(())
}

/// Stores what is new of a checked request and writes the receipt.
pub(super) fn accept(world: &mut World, name: &str, upload: &Upload) -> Result<Reply, Reply> {
    let tenant = world
        .tenants
        .get_mut(name)
        .expect("the token names a tenant");
    let place = (upload.host.clone(), upload.session.clone());
    let session: &mut Session = tenant.sessions.entry(place).or_default();
    let parts: Vec<Value> = upload
        .parts
        .iter()
        .map(|part| {
            let status = if session.holds(part.sequence) {
                "duplicate"
            } else {
                "stored"
            };
            json!({"sequence": part.sequence, "digest": part.digest, "status": status})
        })
        .collect();
    let change = session.store(upload, &mut world.spool).map_err(|error| {
        Reply::error(
            507,
            "insufficient.storage",
            &format!("storing the payload: {error}"),
        )
    })?;
    tenant.counters.stored(change);
    let recording = tenant.archive.open(
        name,
        &upload.host,
        &upload.session,
        super::app::wall_millis(),
    );
    let status = if change.stored > 0 { 201 } else { 208 };
    Ok(Reply::json(
        status,
        json!({"session": upload.session, "recordingId": recording, "parts": parts}),
    ))
}
