//! What can be changed of a tenant while the emulator runs, and the strict reading of such a change.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::fields::Fields;
use super::quota::{Dialect, Quota};
use super::reply::Reply;

/// Where the token endpoint stands for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenEndpoint {
    Up,
    /// Ends the connection without an answer.
    Down,
    Throttled,
}

/// What a token request for a scope that the client lacks gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopePolicy {
    /// A token with what the client has.
    Narrow,
    /// 400 `invalid_scope`.
    Strict,
}

/// How a delivery without the needed right is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    InsufficientScope,
    MissingPermissions,
}

/// The right that each upload path asks for.
pub(super) const ANALYTICS_SCOPE: &str = "analytics:screenrecordings:write";
pub(super) const SCREENSHARE_SCOPE: &str = "screenshare:write";

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) secret: String,
    pub(super) organization: String,
    pub(super) disabled: bool,
    pub(super) scopes: BTreeSet<String>,
    pub(super) scope_policy: ScopePolicy,
    pub(super) refusal: Refusal,
    pub(super) token_life: Duration,
    /// What a token response claims where that is not the truth; `null` claims nothing.
    pub(super) expires_in: Option<Value>,
    pub(super) token_endpoint: TokenEndpoint,
    pub(super) quota: Option<Quota>,
    /// Whether idempotency keys are recomputed with this tenant's name.
    pub(super) check_keys: bool,
    /// How long upload URLs live, whatever was asked for.
    pub(super) url_life: Option<Duration>,
    /// What the storage host says of stored bytes: `etag`, `sha256` or `none`.
    pub(super) store_receipt: String,
}

/// The members of a change; `revoke` is an act, not a setting.
const MEMBERS: [&str; 14] = [
    "scopes",
    "scope_policy",
    "refusal",
    "revoke",
    "organization",
    "disabled",
    "secret",
    "token_life_ms",
    "expires_in",
    "quota",
    "token_endpoint",
    "check_keys",
    "url_life_ms",
    "store_receipt",
];

impl Settings {
    pub(super) fn new(name: &str, secret: String, token_life: Duration) -> Self {
        Self {
            secret,
            organization: format!("org-{name}"),
            disabled: false,
            scopes: [ANALYTICS_SCOPE, SCREENSHARE_SCOPE]
                .map(str::to_owned)
                .into(),
            scope_policy: ScopePolicy::Narrow,
            refusal: Refusal::InsufficientScope,
            token_life,
            expires_in: None,
            token_endpoint: TokenEndpoint::Up,
            quota: None,
            check_keys: true,
            url_life: None,
            store_receipt: "etag".to_owned(),
        }
    }

    /// These settings with `change` merged in, and whether it revokes the live tokens.
    pub(super) fn changed(&self, change: &Value) -> Result<(Self, bool), Reply> {
        let fields = Fields::of(change, "", &MEMBERS)?;
        let mut new = self.clone();
        for (name, value) in fields.members() {
            match name {
                "secret" => fields.text(name)?.clone_into(&mut new.secret),
                "organization" => fields.text(name)?.clone_into(&mut new.organization),
                "disabled" => new.disabled = fields.flag(name)?,
                "check_keys" => new.check_keys = fields.flag(name)?,
                "token_life_ms" => new.token_life = Duration::from_millis(fields.count(name)?),
                "url_life_ms" => {
                    let life = fields
                        .optional(name)
                        .map(|_| fields.count(name))
                        .transpose()?;
                    new.url_life = life.map(Duration::from_millis);
                }
                "store_receipt" => {
                    let words = ["etag", "sha256", "none"].map(|word| (word, word));
                    one_of(&fields, name, &words)?.clone_into(&mut new.store_receipt);
                }
                "expires_in" => new.expires_in = Some(value.clone()),
                "scopes" => new.scopes = scopes(&fields)?,
                "quota" => new.quota = quota(value)?,
                "scope_policy" => {
                    new.scope_policy = one_of(
                        &fields,
                        name,
                        &[
                            ("narrow", ScopePolicy::Narrow),
                            ("strict", ScopePolicy::Strict),
                        ],
                    )?;
                }
                "refusal" => {
                    new.refusal = one_of(
                        &fields,
                        name,
                        &[
                            ("insufficient_scope", Refusal::InsufficientScope),
                            ("missing.permissions", Refusal::MissingPermissions),
                        ],
                    )?;
                }
                "token_endpoint" => {
                    new.token_endpoint = one_of(
                        &fields,
                        name,
                        &[
                            ("up", TokenEndpoint::Up),
                            ("down", TokenEndpoint::Down),
                            ("throttled", TokenEndpoint::Throttled),
                        ],
                    )?;
                }
                _ => {}
            }
        }
        let revokes = match fields.optional("revoke") {
            Some(_) => fields.flag("revoke")?,
            None => false,
        };
        Ok((new, revokes))
    }

    /// What the control routes show; never the secret.
    pub(super) fn view(&self) -> Value {
        json!({
            "organization": self.organization,
            "disabled": self.disabled,
            "scopes": self.scopes,
            "token_life_ms": millis(self.token_life),
            "quota": self.quota.as_ref().map(|quota| json!({
                "requests": quota.requests,
                "window_ms": millis(quota.window),
            })),
        })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn one_of<T: Copy>(fields: &Fields<'_>, name: &str, words: &[(&str, T)]) -> Result<T, Reply> {
    let word = fields.text(name)?;
    let found = words.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        fields.refuse(name, &format!("is none of {}", known.join(", ")))
    })
}

fn scopes(fields: &Fields<'_>) -> Result<BTreeSet<String>, Reply> {
    fields
        .list("scopes")?
        .iter()
        .map(|value| {
            value
                .as_str()
                .filter(|scope| !scope.is_empty() && !scope.contains(' '))
                .map(str::to_owned)
                .ok_or_else(|| fields.refuse("scopes", "holds something that is no scope"))
        })
        .collect()
}

/// `null` lifts the quota.
fn quota(value: &Value) -> Result<Option<Quota>, Reply> {
    if value.is_null() {
        return Ok(None);
    }
    let fields = Fields::of(value, "quota.", &["requests", "window_ms", "dialect"])?;
    let dialect = match fields.optional("dialect") {
        None => Dialect::Inin,
        Some(_) => Dialect::named(fields.text("dialect")?).ok_or_else(|| {
            fields.refuse("dialect", "is none of inin, x, x-epoch, ratelimit, none")
        })?,
    };
    Ok(Some(Quota::new(
        fields.count("requests")?,
        Duration::from_millis(fields.count("window_ms")?),
        dialect,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("acme", "canary".to_owned(), Duration::from_secs(60))
    }

    #[test]
    fn a_change_with_one_mistake_changes_nothing_and_names_it() {
        for (bad, field) in [
            (json!({"scope": []}), "scope"),
            (json!({"scopes": ["a b"]}), "scopes"),
            (json!({"disabled": "yes"}), "disabled"),
            (json!({"token_endpoint": "off"}), "token_endpoint"),
            (json!({"quota": {"requests": 1}}), "quota.window_ms"),
            (
                json!({"quota": {"requests": 1, "window_ms": 1, "dialect": "z"}}),
                "quota.dialect",
            ),
            (json!({"revoke": 1}), "revoke"),
        ] {
            let refusal = settings().changed(&bad).map(|_| ()).unwrap_err();
            assert_eq!(refusal.status, 400, "{bad}");
            let (body, _) = refusal.rendered();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["details"][0]["fieldName"], field, "{bad}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let (new, revokes) = settings()
            .changed(&json!({"organization": "o2", "revoke": true, "expires_in": null}))
            .unwrap();
        assert!(revokes);
        assert_eq!(new.organization, "o2");
        assert_eq!(new.expires_in, Some(Value::Null));
        assert_eq!(new.scopes, settings().scopes);
    }

    #[test]
    fn a_view_never_shows_the_secret() {
        assert!(!settings().view().to_string().contains("canary"));
    }
}
