//! Token slots from the configuration: one for each distinct token request, shared by every tenant, subject and fallback that
//! would make the same one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{
    Assertion, Client, ClientCredentials, Grant, JwtBearer, RefreshPolicy, RefreshToken,
    RotatedFile, Rules, Slot, StaticToken, TokenEndpoint, TokenExchange, TokenSource, Wish,
    Witness, token_client,
};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{self, Http, Mint, Refresh, Tenant};
use crate::control::refusal::chain;
use crate::control::{Code, Refusal};
use crate::disk::RealDisk;
use crate::model::TenantId;

use super::witness::PlatformWitness;

/// Fewer slots start at once: a token endpoint takes that many requests in a second.
const AT_ONCE: usize = 16;
/// And each further one adds this to the span over which all start.
const SPREAD_EACH: Duration = Duration::from_millis(20);

/// A tenant's slots.
#[derive(Clone)]
pub struct Slots {
    pub main: Arc<dyn TokenSource>,
    pub fallback: Option<Arc<dyn TokenSource>>,
}

/// What the slots of a process have in common.
pub struct Workshop {
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    /// Where rotated refresh tokens are kept.
    pub tokens: PathBuf,
    /// Whose tokens were seen to be whose, for tenants that do not state it.
    pub pinned: HashMap<TenantId, String>,
}

/// The slots of every tenant; equal requests share one.
///
/// # Errors
/// A token url that the client does not take, or no TLS.
pub fn slots<'a>(
    tenants: impl Iterator<Item = &'a Tenant>,
    workshop: &'a Workshop,
) -> Result<HashMap<TenantId, Slots>, Refusal> {
    let tenants: Vec<&Tenant> = tenants.collect();
    let mut shelf = Shelf {
        workshop,
        start_spread: spread(tenants.len()),
        made: Vec::new(),
        refreshing: Vec::new(),
    };
    let mut slots = HashMap::new();
    for tenant in tenants {
        let pinned = workshop.pinned.get(&tenant.id);
        let organization = tenant.organization.as_ref().or(pinned);
        let of = |mint| Request {
            mint,
            http: &tenant.http,
            refresh: tenant.delivery.refresh,
            retry_on_401: tenant.delivery.retry_on_401,
            organization: organization.map(String::as_str),
            owner: tenant
                .owner_path
                .as_deref()
                .map(|path| (tenant.api_url.as_str(), path)),
        };
        let witness = PlatformWitness::of(tenant, &workshop.clock)?;
        let main = shelf.slot(of(&tenant.auth.mint), Some(&witness))?;
        let fallback = match &tenant.auth.fallback {
            Some(fallback) => Some(shelf.slot(of(&fallback.mint), Some(&witness))?),
            None => None,
        };
        slots.insert(tenant.id.clone(), Slots { main, fallback });
    }
    Ok(slots)
}

fn spread(slots: usize) -> Duration {
    let late = slots.saturating_sub(AT_ONCE);
    SPREAD_EACH * u32::try_from(late).unwrap_or(u32::MAX)
}

/// What makes two slots the same one.
#[derive(PartialEq, Clone, Copy)]
struct Request<'a> {
    mint: &'a Mint,
    http: &'a Http,
    refresh: Refresh,
    retry_on_401: bool,
    organization: Option<&'a str>,
    /// Where the platform tells whose a token is, which is asked of those that do not show it.
    owner: Option<(&'a str, &'a str)>,
}

struct Shelf<'a, 'w> {
    workshop: &'w Workshop,
    start_spread: Duration,
    made: Vec<(Request<'a>, Arc<dyn TokenSource>)>,
    /// Of one refresh token there is one user, whatever else its slots differ in.
    refreshing: Vec<(RotatedFile, RefreshToken)>,
}

impl<'a> Shelf<'a, '_> {
    /// `witness`: who may know whose its tokens are.
    fn slot(
        &mut self,
        request: Request<'a>,
        witness: Option<&PlatformWitness>,
    ) -> Result<Arc<dyn TokenSource>, Refusal> {
        if let Some((_, made)) = self.made.iter().find(|(known, _)| *known == request) {
            return Ok(Arc::clone(made));
        }
        let grant = self.grant(request)?;
        let rules = Rules {
            refresh: match request.refresh {
                Refresh::Ahead => RefreshPolicy::Ahead,
                Refresh::On401 => RefreshPolicy::On401,
            },
            retry_on_401: request.retry_on_401,
            start_spread: self.start_spread,
            organization: request.organization.map(str::to_owned),
            asks_whose: request.owner.is_some(),
            ..Rules::default()
        };
        let (clock, chance) = (&self.workshop.clock, &self.workshop.chance);
        let slot: Arc<dyn TokenSource> = Arc::new(Slot::witnessed(
            grant,
            witness.map(|witness| Arc::new(witness.clone()) as Arc<dyn Witness>),
            rules,
            Arc::clone(clock),
            Arc::clone(chance),
        ));
        self.made.push((request, Arc::clone(&slot)));
        Ok(slot)
    }

    fn grant(&mut self, request: Request<'a>) -> Result<Arc<dyn Grant>, Refusal> {
        let (mint, http) = (request.mint, request.http);
        Ok(match &mint.grant {
            config::Grant::ClientCredentials { client, scopes } => Arc::new(ClientCredentials {
                endpoint: self.endpoint(mint, http)?,
                client: client_of(client),
                scopes: scopes.clone(),
            }),
            config::Grant::TokenExchange {
                client,
                subject,
                audience,
                resource,
                scopes,
                requested_token_type,
                subject_token_type,
            } => {
                let wish = Wish {
                    audience: audience.clone(),
                    resource: resource.clone(),
                    scopes: scopes.clone(),
                    requested_token_type: requested_token_type.clone(),
                    subject_token_type: subject_token_type.clone(),
                };
                // Whose token it is exchanged for is the tenant's business; the subject is everybody's.
                let of_subject = Request {
                    mint: subject,
                    http,
                    refresh: Refresh::Ahead,
                    retry_on_401: true,
                    organization: None,
                    owner: None,
                };
                let source = self.slot(of_subject, None)?;
                let files = subject.files();
                Arc::new(TokenExchange::new(
                    self.endpoint(mint, http)?,
                    client_of(client),
                    wish,
                    source,
                    files.into_iter().map(|(_, file)| file.source()).collect(),
                ))
            }
            config::Grant::JwtBearer {
                client,
                issuer,
                user,
                audience,
                key,
                key_id,
                assertion_life,
                scopes,
            } => Arc::new(JwtBearer {
                endpoint: self.endpoint(mint, http)?,
                client: client_of(client),
                key: key.source(),
                assertion: Assertion {
                    issuer: issuer.clone(),
                    user: user.clone(),
                    audience: audience.clone(),
                    key_id: key_id.clone(),
                    life: *assertion_life,
                },
                scopes: scopes.clone(),
            }),
            config::Grant::RefreshToken {
                client,
                token,
                scopes,
            } => Arc::new(self.refresh_token((mint, http), client, token, scopes)?),
            config::Grant::Static { token } => Arc::new(StaticToken {
                file: token.source(),
            }),
        })
    }

    fn refresh_token(
        &mut self,
        (mint, http): (&Mint, &Http),
        client: &config::Client,
        token: &config::SecretFile,
        scopes: &[String],
    ) -> Result<RefreshToken, Refusal> {
        let client = client_of(client);
        let (beside, disk) = (&token.places.beside_config, Arc::new(RealDisk));
        let file = beside.join(&token.name);
        let identity = [&mint.token_url, &client.id, &*file.to_string_lossy()];
        let kept = RotatedFile::new(disk, self.workshop.tokens.clone(), &identity);
        let path = kept.path();
        if let Some((_, made)) = self
            .refreshing
            .iter()
            .find(|(known, _)| known.path() == path)
        {
            return Ok(made.clone());
        }
        let endpoint = self.endpoint(mint, http)?;
        let scopes = scopes.to_vec();
        let grant = RefreshToken::new(endpoint, client, token.source(), kept.clone(), scopes);
        self.refreshing.push((kept, grant.clone()));
        Ok(grant)
    }

    fn endpoint(&self, mint: &Mint, http: &Http) -> Result<TokenEndpoint, Refusal> {
        let wrong = |error: &dyn std::error::Error| Refusal::new(Code::Configuration, chain(error));
        let url = &mint.token_url;
        let reach = http.reach();
        let reach = reach.map_err(|what| Refusal::new(Code::Configuration, what))?;
        let client = token_client(&reach, url).map_err(|e| wrong(&e))?;
        let clock = Arc::clone(&self.workshop.clock);
        TokenEndpoint::try_new(url, client, clock).map_err(|e| wrong(&e))
    }
}

fn client_of(client: &config::Client) -> Client {
    Client {
        id: client.id.clone().unwrap_or_default(),
        secret: client.secret.as_ref().map(config::SecretFile::source),
    }
}

/// Beside the store's own folders, and so under its lock.
pub fn tokens_in(store: &Path) -> PathBuf {
    store.join("tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::load_text;

    fn slots_of(text: &str) -> HashMap<TenantId, Slots> {
        let config = load_text(text, Path::new("worker.toml"), None).unwrap();
        let workshop = Workshop {
            clock: Arc::new(SystemClock),
            chance: Arc::new(Chance::seeded(1)),
            tokens: "tokens".into(),
            pinned: HashMap::new(),
        };
        slots(config.tenants.values(), &workshop).unwrap()
    }

    fn of<'a>(slots: &'a HashMap<TenantId, Slots>, name: &str) -> &'a Slots {
        &slots[&name.parse::<TenantId>().unwrap()]
    }

    fn tenant(name: &str, client: &str) -> String {
        format!(
            "[tenants.{name}]\nregion = \"us1\"\n[tenants.{name}.auth]\nclient_id = \"{client}\"\n\
             client_secret_file = \"{client}.secret\"\n"
        )
    }

    #[test]
    fn tenants_with_the_same_token_request_share_a_slot() {
        let text = tenant("acme", "one") + &tenant("globex", "two") + &tenant("initech", "one");
        let slots = slots_of(&text);
        let main = |name| &of(&slots, name).main;
        assert!(Arc::ptr_eq(main("acme"), main("initech")));
        assert!(!Arc::ptr_eq(main("acme"), main("globex")));
        assert!(of(&slots, "acme").fallback.is_none());
    }

    #[test]
    fn tenants_that_differ_in_what_they_want_of_a_token_share_none() {
        let stated = tenant("globex", "one").replace("region", "organization = \"o1\"\nregion");
        let slots = slots_of(&(tenant("acme", "one") + &stated));
        assert!(!Arc::ptr_eq(
            &of(&slots, "acme").main,
            &of(&slots, "globex").main
        ));
    }

    #[test]
    fn one_service_token_is_the_subject_of_every_tenant_and_may_be_a_tenants_own() {
        let exchange = |name: &str| {
            format!(
                "[tenants.{name}]\nregion = \"us1\"\n[tenants.{name}.auth]\ngrant = \"token_exchange\"\n\
                 audience = \"{name}\"\n[tenants.{name}.auth.subject]\nclient_id = \"one\"\n\
                 client_secret_file = \"one.secret\"\n[tenants.{name}.auth.fallback]\ngrant = \"static\"\n\
                 token_file = \"shared.token\"\n"
            )
        };
        let text = exchange("acme") + &exchange("globex") + &tenant("partner", "one");
        let config = load_text(&text, Path::new("worker.toml"), None).unwrap();
        let workshop = Workshop {
            clock: Arc::new(SystemClock),
            chance: Arc::new(Chance::seeded(1)),
            tokens: "tokens".into(),
            pinned: HashMap::new(),
        };
        let mut shelf = Shelf {
            workshop: &workshop,
            start_spread: Duration::ZERO,
            made: Vec::new(),
            refreshing: Vec::new(),
        };
        for tenant in config.tenants.values() {
            let request = Request {
                mint: &tenant.auth.mint,
                http: &tenant.http,
                refresh: Refresh::Ahead,
                retry_on_401: true,
                organization: None,
                owner: None,
            };
            shelf.slot(request, None).unwrap();
        }
        assert_eq!(shelf.made.len(), 3, "two exchanges and one service token");
        let slots = slots_of(&text);
        let fallback = |name| of(&slots, name).fallback.clone().unwrap();
        assert!(Arc::ptr_eq(&fallback("acme"), &fallback("globex")));
    }

    #[test]
    fn many_slots_do_not_start_in_one_moment() {
        assert_eq!(spread(3), Duration::ZERO);
        assert!(spread(1_000) > Duration::from_secs(10));
    }
}
