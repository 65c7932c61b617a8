//! Token slots from the configuration: one for each distinct token request, shared by every tenant that would
//! make the same one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{
    ClientCredentials, RefreshPolicy, Rules, Slot, TokenEndpoint, TokenSource, token_client,
};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{Auth, Grant, Http, Refresh, Tenant};
use crate::control::refusal::chain;
use crate::control::{Code, Refusal};
use crate::model::TenantId;

/// Fewer slots start at once: a token endpoint takes that many requests in a second.
const AT_ONCE: usize = 16;
/// And each further one adds this to the span over which all start.
const SPREAD_EACH: Duration = Duration::from_millis(20);

/// One slot a tenant; equal requests share one.
///
/// # Errors
/// A token url that the client does not take, or no TLS.
pub fn slots<'a>(
    tenants: impl Iterator<Item = &'a Tenant>,
    clock: &Arc<dyn Clock>,
    chance: &Arc<Chance>,
) -> Result<HashMap<TenantId, Arc<dyn TokenSource>>, Refusal> {
    let mut requests: Vec<(Request<'a>, Vec<TenantId>)> = Vec::new();
    for tenant in tenants {
        let request = Request::of(tenant);
        match requests.iter_mut().find(|(known, _)| *known == request) {
            Some((_, sharers)) => sharers.push(tenant.id.clone()),
            None => requests.push((request, vec![tenant.id.clone()])),
        }
    }
    let start_spread = spread(requests.len());
    let mut slots = HashMap::new();
    for (request, sharers) in requests {
        let slot = request.slot(start_spread, clock, chance)?;
        for tenant in sharers {
            slots.insert(tenant, Arc::clone(&slot));
        }
    }
    Ok(slots)
}

fn spread(slots: usize) -> Duration {
    let late = slots.saturating_sub(AT_ONCE);
    SPREAD_EACH * u32::try_from(late).unwrap_or(u32::MAX)
}

/// What makes two token requests the same one.
#[derive(PartialEq)]
struct Request<'a> {
    token_url: &'a str,
    auth: AuthParts<'a>,
    http: &'a Http,
    refresh: Refresh,
    retry_on_401: bool,
}

/// An [`Auth`] without the line that it stands in.
#[derive(PartialEq)]
struct AuthParts<'a> {
    grant: Grant,
    client_id: &'a str,
    secret: (&'a std::path::Path, &'a crate::auth::SecretPlaces),
    scopes: &'a [String],
}

impl<'a> Request<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let Auth {
            grant,
            client_id,
            client_secret_file,
            scopes,
        } = &tenant.auth;
        Self {
            token_url: &tenant.token_url,
            auth: AuthParts {
                grant: *grant,
                client_id,
                secret: (&client_secret_file.name, &client_secret_file.places),
                scopes,
            },
            http: &tenant.http,
            refresh: tenant.delivery.refresh,
            retry_on_401: tenant.delivery.retry_on_401,
        }
    }

    fn slot(
        &self,
        start_spread: Duration,
        clock: &Arc<dyn Clock>,
        chance: &Arc<Chance>,
    ) -> Result<Arc<dyn TokenSource>, Refusal> {
        let wrong = |error: &dyn std::error::Error| Refusal::new(Code::Configuration, chain(error));
        let reach = self.http.reach();
        let reach = reach.map_err(|what| Refusal::new(Code::Configuration, what))?;
        let client = token_client(&reach, self.token_url).map_err(|e| wrong(&e))?;
        let endpoint = TokenEndpoint::try_new(self.token_url, client).map_err(|e| wrong(&e))?;
        let grant = match self.auth.grant {
            Grant::ClientCredentials => ClientCredentials {
                endpoint,
                client_id: self.auth.client_id.to_owned(),
                secret_file: self.auth.secret.0.to_owned(),
                places: self.auth.secret.1.clone(),
                scopes: self.auth.scopes.to_vec(),
            },
        };
        let rules = Rules {
            refresh: match self.refresh {
                Refresh::Ahead => RefreshPolicy::Ahead,
                Refresh::On401 => RefreshPolicy::On401,
            },
            retry_on_401: self.retry_on_401,
            start_spread,
        };
        Ok(Arc::new(Slot::new(
            Arc::new(grant),
            rules,
            Arc::clone(clock),
            Arc::clone(chance),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::load_text;
    use std::path::Path;

    fn tenant(name: &str, client: &str) -> String {
        format!(
            "[tenants.{name}]\nregion = \"us1\"\n[tenants.{name}.auth]\nclient_id = \"{client}\"\n\
             client_secret_file = \"{client}.secret\"\n"
        )
    }

    #[test]
    fn tenants_with_the_same_token_request_share_a_slot() {
        let text = tenant("acme", "one") + &tenant("globex", "two") + &tenant("initech", "one");
        let config = load_text(&text, Path::new("worker.toml"), None).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let chance = Arc::new(Chance::seeded(1));
        let slots = slots(config.tenants.values(), &clock, &chance).unwrap();
        let of = |name: &str| &slots[&name.parse::<TenantId>().unwrap()];
        assert!(Arc::ptr_eq(of("acme"), of("initech")));
        assert!(!Arc::ptr_eq(of("acme"), of("globex")));
    }

    #[test]
    fn many_slots_do_not_start_in_one_moment() {
        assert_eq!(spread(3), Duration::ZERO);
        assert!(spread(1_000) > Duration::from_secs(10));
    }
}
