//! What a token says of itself, read without verification: whose it is and when it ends are claims that choose the words of
//! a diagnosis and stop a delivery to the wrong organisation. They open nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// More are no list of organisations.
const ORGANIZATIONS_MAX: usize = 256;
const NAME_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The organisation that the token is said to belong to.
    pub organization: Option<String>,
    /// Further organisations that it is said to see into.
    pub purviews: Vec<String>,
    /// Seconds after the Unix epoch (`exp`).
    pub expires_at_s: Option<i64>,
}

impl Claims {
    /// Those of a JWT access token, and those that stand beside it in its answer; the token's own come first.
    pub fn of(access_token: &str, beside: &Map<String, Value>) -> Self {
        let inside = payload(access_token);
        let inside = inside.as_ref().unwrap_or(beside);
        let (own, told) = (Self::read(inside), Self::read(beside));
        Self {
            organization: own.organization.or(told.organization),
            purviews: if own.purviews.is_empty() {
                told.purviews
            } else {
                own.purviews
            },
            expires_at_s: own.expires_at_s,
        }
    }

    fn read(members: &Map<String, Value>) -> Self {
        let one = |name| members.get(name).and_then(name_of);
        let purviews = members.get("purviews").and_then(Value::as_array);
        Self {
            organization: one("organization")
                .or_else(|| one("org"))
                .or_else(|| one("purview_id")),
            purviews: purviews
                .into_iter()
                .flatten()
                .filter_map(name_of)
                .take(ORGANIZATIONS_MAX)
                .collect(),
            expires_at_s: members.get("exp").and_then(Value::as_f64).map(|s| s as i64),
        }
    }

    /// Whether it says anything of organisations.
    pub fn show_whose(&self) -> bool {
        self.organization.is_some() || !self.purviews.is_empty()
    }

    /// The platform says whose it is, which counts more than what it says itself.
    pub fn tell(&mut self, organization: &str) {
        let told = name_of(&Value::from(organization));
        self.organization = told.or(self.organization.take());
    }

    /// Whether it shows organisations and this one is not among them.
    pub fn excludes(&self, organization: &str) -> bool {
        let mut shown = self.organization.iter().chain(&self.purviews).peekable();
        shown.peek().is_some() && !shown.any(|shown| shown == organization)
    }

    /// Every organisation that it shows, for messages.
    pub fn shown(&self) -> String {
        let mut shown: Vec<&str> = Vec::new();
        for name in self.organization.iter().chain(&self.purviews) {
            if !shown.contains(&name.as_str()) {
                shown.push(name);
            }
        }
        shown.join(", ")
    }
}

/// A name, or an object that has one as its `id`.
fn name_of(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("id")?.as_str())?;
    let name: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARS_MAX)
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The claims of a JWT (RFC 7519 section 3.1); `None` for an opaque token.
fn payload(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(claims) => Some(claims),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jwt(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(claims))
    }

    fn claims(token: &str, beside: Value) -> Claims {
        Claims::of(token, beside.as_object().unwrap())
    }

    #[test]
    fn a_token_shows_its_organisation_under_any_of_its_names() {
        for (inside, beside, organization, purviews) in [
            (json!({"organization": "o1"}), json!({}), Some("o1"), 0),
            (
                json!({"organization": {"id": "o1", "name": "Acme"}}),
                json!({}),
                Some("o1"),
                0,
            ),
            (
                json!({"org": "o1", "purview_id": "o2"}),
                json!({}),
                Some("o1"),
                0,
            ),
            (
                json!({"purview_id": "o2", "purviews": ["o2", "o3"]}),
                json!({}),
                Some("o2"),
                2,
            ),
            (json!({"purviews": ["o3", 7, ""]}), json!({}), None, 1),
            (json!({}), json!({"organization": "o4"}), Some("o4"), 0),
            (
                json!({"org": "o1"}),
                json!({"organization": "o4"}),
                Some("o1"),
                0,
            ),
            (json!({"org": 7, "purviews": "o3"}), json!({}), None, 0),
        ] {
            let read = claims(&jwt(&inside), beside);
            assert_eq!(read.organization.as_deref(), organization, "{inside}");
            assert_eq!(read.purviews.len(), purviews, "{inside}");
        }
    }

    #[test]
    fn what_is_no_token_of_claims_claims_nothing() {
        for token in [
            "",
            "opaque",
            "a.b",
            "a.b.c",
            "a.e30.c.d",
            "a.W10.c",
            "..",
            "a.!!.c",
        ] {
            assert_eq!(claims(token, json!({})), Claims::default(), "{token}");
        }
        let told = claims("opaque", json!({"org": "o1", "exp": 12}));
        assert_eq!(told.organization.as_deref(), Some("o1"));
    }

    #[test]
    fn only_a_token_that_shows_organisations_excludes_one() {
        let shown = |inside| claims(&jwt(&inside), json!({}));
        assert!(!shown(json!({})).excludes("o1"));
        assert!(!shown(json!({"org": "o1"})).excludes("o1"));
        assert!(shown(json!({"org": "o2"})).excludes("o1"));
        assert!(!shown(json!({"org": "o2", "purviews": ["o2", "o1"]})).excludes("o1"));
        assert!(shown(json!({"purviews": ["o2", "o3"]})).excludes("o1"));
        assert_eq!(
            shown(json!({"org": "o2", "purviews": ["o2", "o3"]})).shown(),
            "o2, o3"
        );
    }

    #[test]
    fn an_end_of_every_silly_kind_is_no_panic() {
        for (exp, want) in [
            (json!(1_700_000_000), Some(1_700_000_000)),
            (json!(1e300), Some(i64::MAX)),
            (json!(-1e300), Some(i64::MIN)),
            (json!("soon"), None),
            (json!(null), None),
        ] {
            assert_eq!(
                claims(&jwt(&json!({"exp": exp})), json!({})).expires_at_s,
                want
            );
        }
    }
}
