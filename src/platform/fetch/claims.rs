//! What a token says of itself, where it is a JWT. Nothing is verified: it is our own token, and the claims only choose
//! the words of a diagnosis.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::model::Token;

/// Longer tokens are not looked into.
const TOKEN_MAX: usize = 64 * 1024;

/// The organisations that the token's purview covers; `None` if it does not say.
pub fn organizations(token: &Token) -> Option<Vec<String>> {
    let text = token.expose();
    let claims = text.split('.').nth(1).filter(|_| text.len() <= TOKEN_MAX)?;
    let json = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&json).ok()?;
    let mut named = Vec::new();
    for name in ["purview_id", "purviews", "org_id", "organization_id"] {
        match claims.get(name) {
            Some(Value::String(one)) => named.push(one.clone()),
            Some(Value::Array(several)) => {
                let texts = several.iter().filter_map(|one| {
                    let id = one.get("id").unwrap_or(one);
                    id.as_str().map(str::to_owned)
                });
                named.extend(texts);
            }
            _ => {}
        }
    }
    (!named.is_empty()).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Generation;

    fn token(claims: &str) -> Token {
        let body = URL_SAFE_NO_PAD.encode(claims);
        Token::new(format!("e30.{body}.c2ln"), Generation(1))
    }

    #[test]
    fn a_token_that_is_no_jwt_names_nobody() {
        for text in ["canary-token", "a.b.c", "..", "a.!!.c"] {
            assert_eq!(organizations(&Token::new(text.into(), Generation(1))), None);
        }
        assert_eq!(organizations(&token(r#"{"sub":"x"}"#)), None);
    }

    #[test]
    fn a_token_names_its_organisations_in_every_way_seen() {
        for (claims, named) in [
            (r#"{"purview_id":"org-acme"}"#, vec!["org-acme"]),
            (r#"{"purviews":["a","b"]}"#, vec!["a", "b"]),
            (r#"{"purviews":[{"id":"a"}],"purview_id":7}"#, vec!["a"]),
        ] {
            assert_eq!(organizations(&token(claims)).unwrap(), named, "{claims}");
        }
    }
}
