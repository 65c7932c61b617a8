//! What a tenant's client and its tokens are entitled to beyond scopes: grants, permissions, users, organisations and purviews,
//! idle timeouts, and how far the token endpoint's clock is off.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::assertion::PublicKey;
use super::fields::Fields;
use super::reply::Reply;

/// The right to upload, beside its scope.
pub(super) const UPLOAD_PERMISSION: &str = "admin:screen_recording";
const READ_PERMISSION: &str = "read:screen_recording";

/// Where a token shows whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claims {
    Nowhere,
    /// Beside it, in the answer of the token endpoint.
    Answer,
    /// Inside, as a JWT.
    Jwt,
}

#[derive(Debug, Clone)]
pub(super) struct Rights {
    pub(super) grants: BTreeSet<String>,
    pub(super) permissions: BTreeSet<String>,
    /// Whom assertions may speak for.
    pub(super) users: BTreeSet<String>,
    /// Deliveries need a token that acts for a user.
    pub(super) needs_user: bool,
    /// Questions about recordings do.
    fetch_needs_user: bool,
    pub(super) claims: Claims,
    /// What tokens are issued for instead of the tenant's own organisation.
    purviews: BTreeSet<String>,
    /// Those of before the last change, which tokens show until it has spread.
    purviews_before: BTreeSet<String>,
    purviews_changed_at: Duration,
    purview_lag: Duration,
    /// A token unused for so long is revoked.
    pub(super) idle_timeout: Option<Duration>,
    /// How far the token endpoint's clock is ahead of the truth, in seconds.
    pub(super) clock_offset_s: i64,
    pub(super) rotate_refresh: bool,
    /// Whether a client may come without its secret where a grant allows that.
    pub(super) public_client: bool,
    /// What exchanges call the tokens that they issue instead of what was asked for.
    pub(super) issued_token_type: Option<String>,
    pub(super) key: PublicKey,
    pub(super) key_id: Option<String>,
}

/// The members of a change that are read here.
pub(super) const MEMBERS: [&str; 14] = [
    "grants",
    "permissions",
    "users",
    "needs_user",
    "fetch_needs_user",
    "claims",
    "purviews",
    "purview_lag_ms",
    "idle_timeout_ms",
    "clock_offset_s",
    "rotate_refresh",
    "public_client",
    "issued_token_type",
    "key_id",
];

pub(super) const GRANTS: [&str; 4] = [
    "client_credentials",
    "token_exchange",
    "jwt_bearer",
    "refresh_token",
];

impl Rights {
    pub(super) fn new(name: &str) -> Self {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            grants: set(&GRANTS),
            permissions: set(&[UPLOAD_PERMISSION, READ_PERMISSION]),
            users: [user_of(name)].into(),
            needs_user: false,
            fetch_needs_user: false,
            claims: Claims::Nowhere,
            purviews: BTreeSet::new(),
            purviews_before: BTreeSet::new(),
            purviews_changed_at: Duration::ZERO,
            purview_lag: Duration::ZERO,
            idle_timeout: None,
            clock_offset_s: 0,
            rotate_refresh: true,
            public_client: false,
            issued_token_type: None,
            key: PublicKey::fixture(),
            key_id: None,
        }
    }

    /// Reads one member of a change, if it is one of these.
    pub(super) fn change(
        &mut self,
        name: &str,
        fields: &Fields<'_>,
        now: Duration,
    ) -> Result<(), Reply> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let words = || -> Result<BTreeSet<String>, Reply> {
            let list = fields.list(name)?.iter().map(word).collect::<Option<_>>();
            list.ok_or_else(|| fields.refuse(name, "holds something that is no string"))
        };
        match name {
            "grants" => {
                let grants = words()?;
                if grants.iter().any(|grant| !GRANTS.contains(&grant.as_str())) {
                    return Err(fields.refuse(name, &format!("is none of {}", GRANTS.join(", "))));
                }
                self.grants = grants;
            }
            "permissions" => self.permissions = words()?,
            "users" => self.users = words()?,
            "needs_user" => self.needs_user = fields.flag(name)?,
            "fetch_needs_user" => self.fetch_needs_user = fields.flag(name)?,
            "rotate_refresh" => self.rotate_refresh = fields.flag(name)?,
            "public_client" => self.public_client = fields.flag(name)?,
            "purviews" => {
                let purviews = words()?;
                self.purviews_before = self.purviews_at(now).clone();
                self.purviews = purviews;
                self.purviews_changed_at = now;
            }
            "purview_lag_ms" => self.purview_lag = Duration::from_millis(fields.count(name)?),
            "idle_timeout_ms" => {
                self.idle_timeout = match fields.optional(name) {
                    Some(_) => Some(Duration::from_millis(fields.count(name)?)),
                    None => None,
                };
            }
            "clock_offset_s" => {
                let offset = fields.value(name)?.as_i64();
                self.clock_offset_s = offset
                    .filter(|offset| offset.abs() <= 366 * 86_400)
                    .ok_or_else(|| {
                        fields.refuse(name, "is not a number of seconds within a year")
                    })?;
            }
            "issued_token_type" | "key_id" => {
                let text = match fields.optional(name) {
                    Some(_) => Some(fields.text(name)?.to_owned()),
                    None => None,
                };
                if name == "key_id" {
                    self.key_id = text;
                } else {
                    self.issued_token_type = text;
                }
            }
            "claims" => {
                self.claims = match fields.text(name)? {
                    "nowhere" => Claims::Nowhere,
                    "answer" => Claims::Answer,
                    "jwt" => Claims::Jwt,
                    _ => return Err(fields.refuse(name, "is none of nowhere, answer, jwt")),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether such a token may ask for recordings.
    pub(super) fn may_fetch(&self, is_user: bool) -> Result<(), Reply> {
        if self.fetch_needs_user && !is_user {
            return Err(user_wanted());
        }
        Ok(())
    }

    /// The purviews that a token shows which is issued now: changes spread slowly.
    pub(super) fn purviews_at(&self, now: Duration) -> &BTreeSet<String> {
        if now < self.purviews_changed_at.saturating_add(self.purview_lag) {
            &self.purviews_before
        } else {
            &self.purviews
        }
    }

    pub(super) fn view(&self) -> Value {
        json!({
            "grants": self.grants,
            "permissions": self.permissions,
            "users": self.users,
            "needs_user": self.needs_user,
            "fetch_needs_user": self.fetch_needs_user,
            "purviews": self.purviews,
            "clock_offset_s": self.clock_offset_s,
        })
    }
}

/// What a service's token is told where only a user's will do.
pub(super) fn user_wanted() -> Reply {
    Reply::error(
        400,
        "bad.request",
        "This request requires a user context. Client credentials cannot be used for requests that require a user context.",
    )
}

/// Whom a tenant's assertions and refresh tokens speak for.
pub(super) fn user_of(name: &str) -> String {
    format!("recorder@{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_purviews_shows_once_it_has_spread() {
        let mut rights = Rights::new("acme");
        let second = Duration::from_secs(1);
        let mut change = |change: Value, now| {
            let known = MEMBERS;
            let fields = Fields::of(&change, "", &known).unwrap();
            for (name, _) in fields.members() {
                rights.change(name, &fields, now).unwrap();
            }
        };
        change(json!({"purview_lag_ms": 2000}), second);
        change(json!({"purviews": ["o1"]}), 10 * second);
        change(json!({"purviews": ["o2"]}), 20 * second);
        for (at, shown) in [(20, "o1"), (21, "o1"), (22, "o2"), (60, "o2")] {
            assert!(rights.purviews_at(at * second).contains(shown), "{at}");
        }
    }
}
