//! The whole emulated platform as plain data behind one lock. Its decisions take the time as an argument, counted from the
//! emulator's start, and perform no network I/O.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::grants::Given;
use super::keys;
use super::presign::Urls;
use super::reply::Reply;
use super::session::Spool;
use super::tenant::{Counters, Place, Tenant};
use super::upload::Upload;

/// A token that was handed out.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) tenant: String,
    pub(super) scopes: Vec<String>,
    /// Whom it acts for; `None`: the client itself.
    pub(super) user: Option<String>,
    /// Of the refresh token that it came of.
    pub(super) family: Option<u64>,
    pub(super) expires_at: Duration,
    pub(super) last_used: Duration,
    pub(super) revoked: bool,
    /// Its end was put into the ledger.
    pub(super) counted: bool,
}

/// What a bearer token turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Absent,
    Unknown,
    Expired,
    Revoked,
    Good {
        scopes: Vec<String>,
        user: Option<String>,
    },
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) tenants: BTreeMap<String, Tenant>,
    tokens: HashMap<String, Issued>,
    pub(super) given: Given,
    pub(super) spool: Spool,
    pub(super) urls: Urls,
    /// What cannot be laid to a tenant: unknown clients and tokens.
    pub(super) strangers: Counters,
    seed: u64,
    drawn: u64,
}

/// Tokens remembered before those whose end was counted are forgotten; a forgotten one is refused as unknown.
const TOKENS_MAX: usize = 100_000;

/// The tenants' names, in order: three that read like customers, then `t4`, `t5`, …
pub(super) fn tenant_name(index: usize) -> String {
    match index {
        0 => "acme".to_owned(),
        1 => "globex".to_owned(),
        2 => "initech".to_owned(),
        later => format!("t{}", later + 1),
    }
}

/// The tenant that a service's tokens belong to, where some are exchanged.
pub(super) const PARTNER: &str = "partner";

impl World {
    pub(super) fn new(tenants: usize, seed: u64, token_life: Duration, spool: Spool) -> Self {
        let mut world = Self {
            tenants: BTreeMap::new(),
            tokens: HashMap::new(),
            given: Given::default(),
            spool,
            urls: Urls::default(),
            strangers: Counters::default(),
            seed,
            drawn: 0,
        };
        for name in (0..tenants).map(tenant_name) {
            let secret = format!("canary-secret-{name}-{}", world.draw());
            world
                .tenants
                .insert(name.clone(), Tenant::new(&name, secret, token_life));
        }
        world
    }

    /// A service whose tokens every tenant's client may exchange; they open nothing by themselves.
    pub(super) fn add_partner(&mut self, token_life: Duration) {
        let secret = format!("canary-secret-{PARTNER}-{}", self.draw());
        let mut partner = Tenant::new(PARTNER, secret, token_life);
        partner.settings.scopes = ["partner:exchange".to_owned()].into();
        self.tenants.insert(PARTNER.to_owned(), partner);
    }

    /// The next of a reproducible series of 32 hex digits.
    pub(super) fn draw(&mut self) -> String {
        self.drawn += 1;
        let text = format!("{}/{}", self.seed, self.drawn);
        keys::hex(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
    }

    /// Remembers a token that is handed out. Ended ones make room when there are very many.
    pub(super) fn remember(&mut self, token: String, issued: Issued) {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, known| !known.counted);
        }
        self.tokens.insert(token, issued);
    }

    /// A token that is used does not idle.
    pub(super) fn touch(&mut self, token: &str, now: Duration) {
        if let Some(issued) = self.tokens.get_mut(token) {
            issued.last_used = now;
        }
    }

    /// A fault of the script.
    pub(super) fn revoke(&mut self, token: Option<&str>) {
        if let Some(issued) = token.and_then(|token| self.tokens.get_mut(token)) {
            issued.revoked = true;
        }
    }

    /// A fault of the script: the token's life ends while a request with it arrives.
    pub(super) fn expire_mid_body(&mut self, token: Option<&str>) {
        if let Some(issued) = token.and_then(|token| self.tokens.get_mut(token)) {
            issued.expires_at = Duration::ZERO;
            let tenant = issued.tenant.clone();
            self.counters(Some(&tenant)).expired_mid_body += 1;
        }
    }

    pub(super) fn end_of(&self, token: &str) -> Option<Duration> {
        self.tokens.get(token).map(|issued| issued.expires_at)
    }

    pub(super) fn new_refresh_token(&mut self, name: &str) -> String {
        format!("canary-secret-refresh-{name}-{}", self.draw())
    }

    /// A correlation id in the shape of a UUID.
    pub(super) fn correlation(&mut self) -> String {
        let hex = self.draw();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// The tenant of a client id.
    pub(super) fn tenant_of_client(&self, client_id: &str) -> Option<String> {
        self.tenants
            .iter()
            .find(|(_, tenant)| tenant.client_id == client_id)
            .map(|(name, _)| name.clone())
    }

    /// Where a bearer token stands, and whose it is as far as that is known.
    pub(super) fn standing(
        &self,
        token: Option<&str>,
        now: Duration,
    ) -> (Standing, Option<String>) {
        let Some(token) = token else {
            return (Standing::Absent, None);
        };
        let Some(issued) = self.tokens.get(token) else {
            return (Standing::Unknown, None);
        };
        let tenant = self.tenants.get(&issued.tenant);
        let disabled = tenant.is_none_or(|tenant| tenant.settings.disabled);
        let idle = tenant
            .and_then(|tenant| tenant.settings.rights.idle_timeout)
            .is_some_and(|idle| now >= issued.last_used.saturating_add(idle));
        let standing = if issued.revoked || disabled || idle || self.given.is_dead(issued.family) {
            Standing::Revoked
        } else if now >= issued.expires_at {
            Standing::Expired
        } else {
            Standing::Good {
                scopes: issued.scopes.clone(),
                user: issued.user.clone(),
            }
        };
        (standing, Some(issued.tenant.clone()))
    }

    pub(super) fn counters(&mut self, tenant: Option<&str>) -> &mut Counters {
        match tenant.and_then(|name| self.tenants.get_mut(name)) {
            Some(tenant) => &mut tenant.counters,
            None => &mut self.strangers,
        }
    }

    /// Counts the tokens whose life ended before this sign of life of their tenant. A revoked one did not expire.
    fn count_expired(&mut self, tenant: &str, now: Duration) {
        let mut ended = 0;
        for issued in self.tokens.values_mut() {
            let over = !issued.counted && now >= issued.expires_at && issued.tenant == tenant;
            if over {
                issued.counted = true;
                ended += u64::from(!issued.revoked);
            }
        }
        self.counters(Some(tenant)).expired_tokens += ended;
    }

    /// Notes a request's arrival, before anything is done about it.
    pub(super) fn arrived(&mut self, tenant: Option<&str>, place: Place, now: Duration) {
        self.counters(tenant).token_requests += u64::from(place == Place::Token);
        let Some(name) = tenant else { return };
        self.count_expired(name, now);
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.arrived(place, now);
        }
    }

    /// Counts what an answer says.
    pub(super) fn answered(
        &mut self,
        tenant: Option<&str>,
        place: Place,
        reply: &Reply,
        now: Duration,
    ) {
        let throttled = reply.status == 429 || reply.says_rate_limited();
        let counters = self.counters(tenant);
        counters.throttled += u64::from(throttled);
        match place {
            Place::Token => counters.token_refusals += u64::from(reply.status >= 400),
            Place::Deliver | Place::Socket | Place::Fetch => {
                counters.fetches += u64::from(place == Place::Fetch);
                let purview = place == Place::Fetch && reply.status == 422;
                counters.purview_refusals += u64::from(purview);
                counters.unauthorized += u64::from(reply.status == 401);
                counters.forbidden += u64::from(reply.status == 403);
            }
            Place::Store | Place::Report => {}
        }
        let wait = reply
            .header("Retry-After")
            .and_then(|text| text.parse().ok());
        if let (Some(seconds), Some(tenant)) =
            (wait, tenant.and_then(|name| self.tenants.get_mut(name)))
        {
            tenant.told_to_wait(place, now, seconds);
        }
    }

    /// Whether every part of a request is stored.
    pub(super) fn holds(&self, name: &str, upload: &Upload) -> bool {
        let place = (upload.host.clone(), upload.session.clone());
        let session = self.tenants[name].sessions.get(&place);
        session.is_some_and(|session| {
            let mut parts = upload.parts.iter();
            parts.all(|part| session.holds(part.sequence))
        })
    }

    /// Merges `change` into a tenant: all of it or, where it is refused, nothing.
    pub(super) fn change(
        &mut self,
        name: &str,
        change: &Value,
        now: Duration,
    ) -> Result<Value, Reply> {
        let tenant = self
            .tenants
            .get_mut(name)
            .ok_or_else(|| Reply::error(404, "not.found", &format!("no tenant {name:?}")))?;
        let (settings, revokes) = tenant.settings.changed(change, now)?;
        tenant.settings = settings;
        if revokes {
            for issued in self
                .tokens
                .values_mut()
                .filter(|issued| issued.tenant == name)
            {
                issued.revoked = true;
            }
        }
        Ok(self.tenants[name].settings.view())
    }

    /// A session's payloads in sequence order; `None` if there is no such session, or one of several hosts and none named.
    pub(super) fn assemble(
        &self,
        tenant: &str,
        session: &str,
        host: Option<&str>,
    ) -> Option<io::Result<Vec<u8>>> {
        let mut found = self
            .tenants
            .get(tenant)?
            .sessions
            .iter()
            .filter(|((of, id), _)| id == session && host.is_none_or(|host| of == host));
        let (_, session) = found.next()?;
        found
            .next()
            .is_none()
            .then(|| session.assemble(&self.spool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_token_ends_without_expiring() {
        let second = Duration::from_secs(1);
        let spool = Spool::new(0).unwrap();
        let mut world = World::new(1, 0, second, spool);
        for name in ["first", "second"] {
            let issued = Issued {
                tenant: "acme".to_owned(),
                scopes: Vec::new(),
                user: None,
                family: None,
                last_used: Duration::ZERO,
                expires_at: 5 * second,
                revoked: name == "second",
                counted: false,
            };
            world.remember(name.to_owned(), issued);
        }
        for (at, expired) in [(4, 0), (5, 1), (6, 1)] {
            world.arrived(Some("acme"), Place::Deliver, at * second);
            assert_eq!(world.tenants["acme"].counters.expired_tokens, expired);
        }
    }
}
