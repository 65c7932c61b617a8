//! The token endpoint, decided purely: RFC 6749 with the platform's habits; grants beyond section 4.4 are in `grants`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde_json::{Map, Value, json};

use super::assertion::Unverified;
use super::form;
use super::grants::{self, EXCHANGE, JWT_BEARER};
use super::reply::Reply;
use super::rights::Claims;
use super::settings::{ScopePolicy, Settings, TokenEndpoint};
use super::world::{Issued, World};

/// A token request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenRequest {
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) host: Option<String>,
    pub(super) body: Vec<u8>,
    /// Seconds after the Unix epoch.
    pub(super) wall_seconds: i64,
}

/// The parameters of a request, each there once.
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What a grant entitles to, beside the scopes.
#[derive(Debug, Default)]
pub(super) struct Grant {
    /// Whom the token acts for; `None`: the client itself.
    pub(super) user: Option<String>,
    pub(super) family: Option<u64>,
    pub(super) refresh_token: Option<String>,
    pub(super) issued_token_type: Option<String>,
    pub(super) not_after: Option<Duration>,
}

/// What the endpoint does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Answer(Reply),
    /// The connection ends without one.
    Silence,
}

/// The tenant that a request names, whether or not it proves it.
pub(super) fn claimed_tenant(
    world: &World,
    authorization: Option<&str>,
    body: &[u8],
) -> Option<String> {
    if let Some(header) = authorization {
        let (client_id, _) = form::basic(header)?;
        return world.tenant_of_client(&client_id);
    }
    let form = form::pairs(std::str::from_utf8(body).ok()?)?;
    let field = |wanted: &str| {
        form.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, text)| text)
    };
    if let Some(client_id) = field("client_id") {
        return world.tenant_of_client(client_id);
    }
    world.tenant_of_client(Unverified::read(field("assertion")?)?.issuer()?)
}

/// Answers a request at `now`.
pub(super) fn answer(world: &mut World, request: &TokenRequest, now: Duration) -> Outcome {
    let claimed = claimed_tenant(world, request.authorization.as_deref(), &request.body);
    if let Some(name) = &claimed
        && world.tenants[name].settings.token_endpoint == TokenEndpoint::Down
    {
        return Outcome::Silence;
    }
    let mut reply =
        grant(world, request, claimed.as_deref(), now).unwrap_or_else(|refusal| refusal);
    if let Some(name) = &claimed {
        let offset = world.tenants[name].settings.rights.clock_offset_s;
        if offset != 0 {
            reply = reply.with(
                "Date",
                &http_date(request.wall_seconds.saturating_add(offset)),
            );
        }
    }
    Outcome::Answer(reply)
}

fn http_date(seconds: i64) -> String {
    let then = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn grant(
    world: &mut World,
    request: &TokenRequest,
    claimed: Option<&str>,
    now: Duration,
) -> Result<Reply, Reply> {
    let form = read_form(request)?;
    let name = authenticate(world, request, &form, claimed)?;
    let settings = &world.tenants[&name].settings;
    if settings.token_endpoint == TokenEndpoint::Throttled {
        return Err(Reply::oauth(
            400,
            "invalid_request",
            "rate limit exceeded; try again in 1 seconds",
        )
        .with("Retry-After", "1"));
    }
    let kind = match form.get("grant_type") {
        Some("client_credentials") => "client_credentials",
        Some("refresh_token") => "refresh_token",
        Some(EXCHANGE) => "token_exchange",
        Some(JWT_BEARER) => "jwt_bearer",
        Some(_) => {
            return Err(Reply::oauth(
                400,
                "unsupported_grant_type",
                "grant type not supported",
            ));
        }
        None => {
            return Err(Reply::oauth(
                400,
                "invalid_request",
                "grant_type is missing",
            ));
        }
    };
    let scopes = narrow(&settings.scopes, settings.scope_policy, form.get("scope"))?;
    if settings.disabled {
        return Err(Reply::oauth(
            400,
            "unauthorized_client",
            "client is disabled",
        ));
    }
    if !settings.rights.grants.contains(kind) {
        return Err(Reply::oauth(
            400,
            "unauthorized_client",
            "the client may not use this grant",
        ));
    }
    let granted = match kind {
        "refresh_token" => grants::refresh(world, &name, &form)?,
        "token_exchange" => grants::exchange(world, &name, &form, now)?,
        "jwt_bearer" => grants::jwt_bearer(world, &name, &form, request)?,
        _ => Grant::default(),
    };
    Ok(issue(
        world,
        &name,
        scopes,
        granted,
        now,
        request.wall_seconds,
    ))
}

/// The tenant whose client the request comes from. An assertion proves its client by itself; a public client proves nothing.
fn authenticate(
    world: &World,
    request: &TokenRequest,
    form: &Form,
    claimed: Option<&str>,
) -> Result<String, Reply> {
    let refuse = |why: &str| {
        Reply::oauth(401, "invalid_client", why).with("WWW-Authenticate", "Basic realm=\"sandbox\"")
    };
    let Some(header) = request.authorization.as_deref() else {
        let missing = || refuse("client authentication is missing");
        let name = claimed.ok_or_else(missing)?;
        let proven = form.get("grant_type") == Some(JWT_BEARER)
            || world.tenants[name].settings.rights.public_client;
        return proven.then(|| name.to_owned()).ok_or_else(missing);
    };
    let (_, secret) =
        form::basic(header).ok_or_else(|| refuse("client authentication is not HTTP Basic"))?;
    let name = claimed.ok_or_else(|| refuse("client not found"))?;
    if world.tenants[name].settings.secret != secret {
        return Err(refuse("client authentication failed"));
    }
    Ok(name.to_owned())
}

fn read_form(request: &TokenRequest) -> Result<Form, Reply> {
    let refuse = |why: &str| Reply::oauth(400, "invalid_request", why);
    let media_type = request
        .content_type
        .as_deref()
        .and_then(|text| text.split(';').next())
        .map(str::trim);
    if media_type != Some("application/x-www-form-urlencoded") {
        return Err(refuse("the body is not application/x-www-form-urlencoded"));
    }
    let form = std::str::from_utf8(&request.body)
        .ok()
        .and_then(form::pairs)
        .ok_or_else(|| refuse("the body is not a form"))?;
    let count = form.len();
    let form: BTreeMap<String, String> = form.into_iter().collect();
    if form.len() != count {
        return Err(refuse("a parameter is there more than once"));
    }
    Ok(Form(form))
}

/// What is granted of what was asked for. A server may ignore a request in part (RFC 6749 section 3.3).
fn narrow(
    allowed: &BTreeSet<String>,
    policy: ScopePolicy,
    asked: Option<&str>,
) -> Result<Vec<String>, Reply> {
    let asked: Vec<&str> = asked
        .unwrap_or("")
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .collect();
    let (granted, lacking): (Vec<&str>, Vec<&str>) =
        asked.iter().partition(|scope| allowed.contains(**scope));
    if policy == ScopePolicy::Strict && !lacking.is_empty() {
        return Err(Reply::oauth(
            400,
            "invalid_scope",
            &format!("scope not allowed for this client: {}", lacking.join(" ")),
        ));
    }
    if granted.is_empty() {
        return Ok(allowed.iter().cloned().collect());
    }
    Ok(granted.into_iter().map(str::to_owned).collect())
}

/// A token for a grant, with its answer.
pub(super) fn issue(
    world: &mut World,
    name: &str,
    scopes: Vec<String>,
    grant: Grant,
    now: Duration,
    wall_seconds: i64,
) -> Reply {
    let token = format!("canary-token-{name}-{}", world.draw());
    let tenant = world.tenants.get_mut(name).expect("the client was found");
    tenant.counters.tokens_issued += 1;
    let settings = &tenant.settings;
    let life = settings.token_life;
    let mut body = Map::new();
    let shown = claims(settings, now);
    let token = match settings.rights.claims {
        Claims::Nowhere => token,
        Claims::Answer => {
            body.extend(shown);
            token
        }
        Claims::Jwt => jwt(shown, &grant, life, wall_seconds, &token),
    };
    body.insert("access_token".to_owned(), json!(token));
    body.insert("token_type".to_owned(), json!("bearer"));
    let claimed = settings
        .expires_in
        .clone()
        .unwrap_or_else(|| json!(life.as_secs()));
    if !claimed.is_null() {
        body.insert("expires_in".to_owned(), claimed);
    }
    body.insert("scope".to_owned(), json!(scopes.join(" ")));
    for (member, value) in [
        ("refresh_token", &grant.refresh_token),
        ("issued_token_type", &grant.issued_token_type),
    ] {
        if let Some(value) = value {
            body.insert(member.to_owned(), json!(value));
        }
    }
    let end = now.saturating_add(life);
    world.remember(
        token,
        Issued {
            tenant: name.to_owned(),
            scopes,
            user: grant.user,
            family: grant.family,
            expires_at: grant.not_after.map_or(end, |last| last.min(end)),
            last_used: now,
            revoked: false,
            counted: false,
        },
    );
    Reply::json(200, Value::Object(body)).with("Cache-Control", "no-store")
}

/// Whose a token is, as it shows it.
fn claims(settings: &Settings, now: Duration) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("organization".to_owned(), json!(settings.organization));
    let purviews = settings.rights.purviews_at(now);
    if let Some(first) = purviews.first() {
        shown.insert("purview_id".to_owned(), json!(first));
        shown.insert("purviews".to_owned(), json!(purviews));
    }
    shown
}

/// A token that can be read by whoever holds it. Its last part is no signature: it is what the emulator knows it by.
fn jwt(
    mut claims: Map<String, Value>,
    grant: &Grant,
    life: Duration,
    wall_seconds: i64,
    name: &str,
) -> String {
    let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
    claims.insert("exp".to_owned(), json!(wall_seconds.saturating_add(life)));
    claims.insert("sub".to_owned(), json!(grant.user));
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"alg": "RS256", "typ": "at+jwt"}));
    format!("{header}.{}.{name}", part(&Value::Object(claims)))
}
