//! The grants beyond client credentials, decided purely: token exchange (RFC 8693), JWT bearer (RFC 7523) and refresh token
//! (RFC 6749 section 6, with the rotation and reuse detection of RFC 9700 section 4.14.2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::assertion::Unverified;
use super::reply::Reply;
use super::rights;
use super::token::{self, Form, Grant, TokenRequest};
use super::world::{Standing, World};

pub(super) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TYPES: &str = "urn:ietf:params:oauth:token-type:";
/// Numbers of assertions remembered a tenant; the one that ended first goes first.
const ASSERTIONS_MAX: usize = 10_000;

/// A refresh token that was given out.
#[derive(Debug, Clone)]
struct Refreshing {
    tenant: String,
    family: u64,
    used: bool,
}

/// Everything that grants leave behind: refresh tokens and their families, and the assertions that were used.
#[derive(Debug, Default)]
pub(super) struct Given {
    refreshing: HashMap<String, Refreshing>,
    dead_families: BTreeSet<u64>,
    families: u64,
    /// By tenant: when each assertion ends.
    assertions: BTreeMap<String, BTreeMap<String, i64>>,
}

impl Given {
    /// A refresh token of a new family; those of before die with their families.
    pub(super) fn begin_family(&mut self, tenant: &str, token: &str) -> u64 {
        for known in self
            .refreshing
            .values()
            .filter(|known| known.tenant == tenant)
        {
            self.dead_families.insert(known.family);
        }
        self.families += 1;
        self.keep(tenant, token, self.families);
        self.families
    }

    fn keep(&mut self, tenant: &str, token: &str, family: u64) {
        let refreshing = Refreshing {
            tenant: tenant.to_owned(),
            family,
            used: false,
        };
        self.refreshing.insert(token.to_owned(), refreshing);
    }

    pub(super) fn is_dead(&self, family: Option<u64>) -> bool {
        family.is_some_and(|family| self.dead_families.contains(&family))
    }

    /// Whether an assertion was used before; from now on it was.
    fn replayed(&mut self, tenant: &str, id: &str, expires_at_s: i64) -> bool {
        let seen = self.assertions.entry(tenant.to_owned()).or_default();
        if seen.len() >= ASSERTIONS_MAX {
            let first = seen.iter().min_by_key(|(_, end)| **end);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                seen.remove(&first);
            }
        }
        seen.insert(id.to_owned(), expires_at_s).is_some()
    }
}

fn refuse(error: &str, why: &str) -> Reply {
    Reply::oauth(400, error, why)
}

/// RFC 7523: an assertion buys a token that acts for its subject.
pub(super) fn jwt_bearer(
    world: &mut World,
    name: &str,
    form: &Form,
    request: &TokenRequest,
) -> Result<Grant, Reply> {
    let text = form
        .get("assertion")
        .ok_or_else(|| refuse("invalid_request", "assertion is missing"))?;
    let assertion = Unverified::read(text)
        .ok_or_else(|| refuse("invalid_request", "the assertion is no JWT"))?;
    let tenant = &world.tenants[name];
    let rights = &tenant.settings.rights;
    if assertion.issuer() != Some(tenant.client_id.as_str()) {
        return Err(refuse(
            "invalid_grant",
            "the iss of the assertion is not the client",
        ));
    }
    let host = request.host.as_deref().unwrap_or_default();
    let audiences = [
        format!("http://{host}/oauth/token"),
        format!("http://{host}"),
    ];
    let now_s = request.wall_seconds.saturating_add(rights.clock_offset_s);
    let good = assertion
        .check(&rights.key, rights.key_id.as_deref(), &audiences, now_s)
        .map_err(|why| refuse("invalid_grant", why))?;
    if !rights.users.contains(&good.user) {
        return Err(refuse(
            "invalid_grant",
            "the user of the assertion is unknown to this client",
        ));
    }
    if world.given.replayed(name, &good.id, good.expires_at_s) {
        return Err(refuse(
            "invalid_grant",
            "the assertion was used before (jti)",
        ));
    }
    Ok(Grant {
        user: Some(good.user),
        ..Grant::default()
    })
}

/// RFC 8693: a service's token buys one of a tenant's.
pub(super) fn exchange(
    world: &mut World,
    name: &str,
    form: &Form,
    now: Duration,
) -> Result<Grant, Reply> {
    let wanted = |field: &str| {
        let missing = || refuse("invalid_request", &format!("{field} is missing"));
        form.get(field).ok_or_else(missing)
    };
    let subject = wanted("subject_token")?.to_owned();
    let kind = wanted("subject_token_type")?;
    if ![format!("{TYPES}access_token"), format!("{TYPES}jwt")].contains(&kind.to_owned()) {
        return Err(refuse(
            "invalid_request",
            "subject_token_type is not supported",
        ));
    }
    if form.get("actor_token").is_some() {
        return Err(refuse("invalid_request", "actor_token is not supported"));
    }
    let asked = form.get("requested_token_type");
    let issued = match asked.and_then(|asked| asked.strip_prefix(TYPES)) {
        None if asked.is_none() => format!("{TYPES}access_token"),
        Some("access_token" | "jwt") => asked.unwrap_or_default().to_owned(),
        _ => {
            return Err(refuse(
                "invalid_request",
                "requested_token_type is not supported",
            ));
        }
    };
    let tenant = &world.tenants[name];
    if form
        .get("audience")
        .is_some_and(|audience| audience != tenant.settings.organization)
    {
        return Err(refuse(
            "invalid_target",
            "the audience is no organisation of this client",
        ));
    }
    let (standing, owner) = world.standing(Some(&subject), now);
    let known = owner.is_some_and(|owner| owner == name || owner == super::world::PARTNER);
    let user = match standing {
        Standing::Good { user, .. } if known => user,
        Standing::Expired => {
            return Err(refuse("invalid_request", "the subject_token has expired"));
        }
        _ => return Err(refuse("invalid_request", "the subject_token is invalid")),
    };
    world.touch(&subject, now);
    let issued = world.tenants[name]
        .settings
        .rights
        .issued_token_type
        .clone()
        .unwrap_or(issued);
    Ok(Grant {
        user,
        issued_token_type: Some(issued),
        // What was bought with it ends with it.
        not_after: world.end_of(&subject),
        ..Grant::default()
    })
}

/// RFC 6749 section 6: a refresh token buys a token, and where they rotate its own successor. One that comes twice was
/// stolen, and takes its whole family with it.
pub(super) fn refresh(world: &mut World, name: &str, form: &Form) -> Result<Grant, Reply> {
    let text = form
        .get("refresh_token")
        .ok_or_else(|| refuse("invalid_request", "refresh_token is missing"))?;
    let unknown = || {
        refuse(
            "invalid_grant",
            "the refresh token is invalid, expired or revoked",
        )
    };
    let given = &mut world.given;
    let known = given
        .refreshing
        .get(text)
        .filter(|known| known.tenant == name);
    let (family, used) = known
        .map(|known| (known.family, known.used))
        .ok_or_else(unknown)?;
    if given.dead_families.contains(&family) {
        return Err(unknown());
    }
    if used {
        given.dead_families.insert(family);
        return Err(refuse(
            "invalid_grant",
            "the refresh token was used before; it and all that came of it are revoked",
        ));
    }
    let mut grant = Grant {
        user: Some(rights::user_of(name)),
        family: Some(family),
        ..Grant::default()
    };
    if world.tenants[name].settings.rights.rotate_refresh {
        let next = world.new_refresh_token(name);
        let given = &mut world.given;
        given.keep(name, &next, family);
        if let Some(known) = given.refreshing.get_mut(text) {
            known.used = true;
        }
        grant.refresh_token = Some(next);
    }
    Ok(grant)
}

impl World {
    /// A person signs in: a refresh token of a new family and an access token of it. Those of before die.
    pub(super) fn sign_in(&mut self, name: &str, now: Duration, wall_seconds: i64) -> Reply {
        if !self.tenants.contains_key(name) {
            return Reply::error(404, "not.found", &format!("no tenant {name:?}"));
        }
        let refresh_token = self.new_refresh_token(name);
        let family = self.given.begin_family(name, &refresh_token);
        let grant = Grant {
            user: Some(rights::user_of(name)),
            family: Some(family),
            refresh_token: Some(refresh_token),
            ..Grant::default()
        };
        let scopes = self.tenants[name].settings.scopes.iter().cloned().collect();
        token::issue(self, name, scopes, grant, now, wall_seconds)
    }
}
