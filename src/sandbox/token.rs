//! The token endpoint, decided purely: RFC 6749 section 4.4 with the platform's habits.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::form;
use super::reply::Reply;
use super::settings::{ScopePolicy, TokenEndpoint};
use super::world::{Issued, World};

/// A token request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenRequest {
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What the endpoint does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Answer(Reply),
    /// The connection ends without one.
    Silence,
}

/// The tenant that a request names, whether or not its secret is right.
pub(super) fn claimed_tenant(world: &World, authorization: Option<&str>) -> Option<String> {
    let (client_id, _) = form::basic(authorization?)?;
    world.tenant_of_client(&client_id)
}

/// Answers a request at `now`.
pub(super) fn answer(world: &mut World, request: &TokenRequest, now: Duration) -> Outcome {
    let claimed = claimed_tenant(world, request.authorization.as_deref());
    if let Some(name) = &claimed
        && world.tenants[name].settings.token_endpoint == TokenEndpoint::Down
    {
        return Outcome::Silence;
    }
    Outcome::Answer(
        grant(world, request, claimed.as_deref(), now).unwrap_or_else(|refusal| refusal),
    )
}

fn grant(
    world: &mut World,
    request: &TokenRequest,
    claimed: Option<&str>,
    now: Duration,
) -> Result<Reply, Reply> {
    let name = authenticate(world, request, claimed)?;
    let settings = &world.tenants[&name].settings;
    if settings.token_endpoint == TokenEndpoint::Throttled {
        return Err(Reply::oauth(
            400,
            "invalid_request",
            "rate limit exceeded; try again in 1 seconds",
        )
        .with("Retry-After", "1"));
    }
    let form = read_form(request)?;
    let field = |wanted: &str| {
        form.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    };
    match field("grant_type") {
        Some("client_credentials") => {}
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
    }
    let scopes = narrow(&settings.scopes, settings.scope_policy, field("scope"))?;
    if settings.disabled {
        return Err(Reply::oauth(
            400,
            "unauthorized_client",
            "client is disabled",
        ));
    }
    Ok(issue(world, &name, scopes, now))
}

/// The tenant whose id and secret the request carries.
fn authenticate(
    world: &World,
    request: &TokenRequest,
    claimed: Option<&str>,
) -> Result<String, Reply> {
    let refuse = |why: &str| {
        Reply::oauth(401, "invalid_client", why).with("WWW-Authenticate", "Basic realm=\"sandbox\"")
    };
    let header = request
        .authorization
        .as_deref()
        .ok_or_else(|| refuse("client authentication is missing"))?;
    let (_, secret) =
        form::basic(header).ok_or_else(|| refuse("client authentication is not HTTP Basic"))?;
    let name = claimed.ok_or_else(|| refuse("client not found"))?;
    if world.tenants[name].settings.secret != secret {
        return Err(refuse("client authentication failed"));
    }
    Ok(name.to_owned())
}

fn read_form(request: &TokenRequest) -> Result<Vec<(String, String)>, Reply> {
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
    let names: BTreeSet<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() != form.len() {
        return Err(refuse("a parameter is there more than once"));
    }
    Ok(form)
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

fn issue(world: &mut World, name: &str, scopes: Vec<String>, now: Duration) -> Reply {
    let token = format!("canary-token-{name}-{}", world.draw());
    let tenant = world.tenants.get_mut(name).expect("the client was found");
    tenant.counters.tokens_issued += 1;
    let life = tenant.settings.token_life;
    let mut body = Map::new();
    body.insert("access_token".to_owned(), json!(token));
    body.insert("token_type".to_owned(), json!("bearer"));
    let claimed = tenant
        .settings
        .expires_in
        .clone()
        .unwrap_or_else(|| json!(life.as_secs()));
    if !claimed.is_null() {
        body.insert("expires_in".to_owned(), claimed);
    }
    body.insert("scope".to_owned(), json!(scopes.join(" ")));
    world.remember(
        token,
        Issued {
            tenant: name.to_owned(),
            scopes,
            expires_at: now.saturating_add(life),
            revoked: false,
            counted: false,
        },
    );
    Reply::json(200, Value::Object(body)).with("Cache-Control", "no-store")
}
