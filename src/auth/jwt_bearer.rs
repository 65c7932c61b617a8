//! The JWT bearer grant (RFC 7523; docs/PROTOCOL.md, token endpoint): a short-lived assertion, signed on this host, buys a
//! token that acts for a user. Each assertion is used once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::endpoint::{Asking, Client, TokenEndpoint};
use super::grant::{About, Grant, MintFailure, Minted, Minting, Proof};
use super::key::SigningKey;
use super::secret::SecretSource;
use crate::model::Timestamp;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An assertion is dated back by this, so that an endpoint whose clock is behind by less takes it.
const BACKDATED: Duration = Duration::from_secs(30);

/// Mints tokens that act for one user.
#[derive(Debug)]
pub struct JwtBearer {
    pub endpoint: TokenEndpoint,
    pub client: Client,
    /// PEM; read anew before each assertion.
    pub key: SecretSource,
    pub assertion: Assertion,
    /// Empty: the server's default.
    pub scopes: Vec<String>,
}

/// What every assertion of a grant says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    pub issuer: String,
    pub user: String,
    pub audience: String,
    pub key_id: Option<String>,
    pub life: Duration,
}

impl Assertion {
    /// A signed assertion (RFC 7515 compact form). `nonce` makes it unlike any other.
    ///
    /// # Errors
    /// The system gives no randomness to sign with.
    pub fn signed(
        &self,
        key: &SigningKey,
        now: Timestamp,
        nonce: &str,
    ) -> Result<SecretString, MintFailure> {
        let mut header = json!({"alg": key.algorithm(), "typ": "JWT"});
        if let Some(kid) = &self.key_id {
            header["kid"] = json!(kid);
        }
        let now_s = now.0.div_euclid(1000);
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let claims = json!({
            "iss": self.issuer,
            "sub": self.user,
            "aud": self.audience,
            "iat": now_s.saturating_sub(seconds(BACKDATED)),
            "exp": now_s.saturating_add(seconds(self.life)),
            "jti": nonce,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = key
            .sign(message.as_bytes())
            .ok_or_else(|| MintFailure::Unreachable {
                cause: "this host gives no random numbers to sign with".to_owned(),
            })?;
        Ok(SecretString::from(format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(signature)
        )))
    }
}

/// 128 bits that were never used before.
fn nonce() -> Result<String, MintFailure> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| MintFailure::Unreachable {
        cause: "this host gives no random numbers for an assertion".to_owned(),
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl JwtBearer {
    async fn request(&self) -> Result<Minted, MintFailure> {
        let text = self.key.read().await?;
        let key = SigningKey::from_pem(&text, &self.key.shown()).map_err(MintFailure::Key)?;
        let assertion = self
            .assertion
            .signed(&key, self.endpoint.wall(), &nonce()?)?;
        let scope = self.scopes.join(" ");
        let mut form = vec![
            ("grant_type", GRANT_TYPE),
            ("assertion", assertion.expose_secret()),
        ];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let asking = Asking {
            form,
            secrets: vec![&assertion],
            proof: Proof::Assertion,
        };
        Ok(self.endpoint.request(&self.client, asking).await?.minted)
    }
}

impl Grant for JwtBearer {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.request())
    }

    fn about(&self) -> About {
        About {
            endpoint: self.endpoint.shown(),
            client_id: self.client.id.clone(),
            grant: "jwt_bearer",
            scopes: self.scopes.clone(),
            secret_file: self.client.secret_shown(),
            proof_file: self.key.shown(),
            audience: self.assertion.audience.clone(),
            user: self.assertion.user.clone(),
        }
    }

    fn files(&self) -> Vec<SecretSource> {
        let mut files = vec![self.key.clone()];
        files.extend(self.client.secret.clone());
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key::tests::{EC_SEC1, RSA_PKCS8, key, verifies};

    fn assertion() -> Assertion {
        Assertion {
            issuer: "5b1c9e".to_owned(),
            user: "recorder@acme".to_owned(),
            audience: "https://login.example/oauth/token".to_owned(),
            key_id: Some("k1".to_owned()),
            life: Duration::from_secs(120),
        }
    }

    #[test]
    fn an_assertion_states_who_for_whom_where_and_how_long_and_is_signed() {
        for (pem, algorithm) in [(RSA_PKCS8, "RS256"), (EC_SEC1, "ES256")] {
            let key = key(pem).unwrap();
            let now = Timestamp(1_700_000_000_900);
            let signed = assertion().signed(&key, now, "n1").unwrap();
            let parts: Vec<&str> = signed.expose_secret().split('.').collect();
            let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
            let json =
                |part: &str| serde_json::from_slice::<serde_json::Value>(&decoded(part)).unwrap();
            assert_eq!(
                json(parts[0]),
                json!({"alg": algorithm, "typ": "JWT", "kid": "k1"})
            );
            assert_eq!(
                json(parts[1]),
                json!({"iss": "5b1c9e", "sub": "recorder@acme", "aud": "https://login.example/oauth/token",
                    "iat": 1_699_999_970, "exp": 1_700_000_120, "jti": "n1"})
            );
            let message = format!("{}.{}", parts[0], parts[1]);
            assert!(verifies(&key, message.as_bytes(), &decoded(parts[2])));
        }
    }

    #[test]
    fn no_two_assertions_carry_the_same_number() {
        let numbers: std::collections::BTreeSet<String> =
            (0..1_000).map(|_| nonce().unwrap()).collect();
        assert_eq!(numbers.len(), 1_000);
        assert!(numbers.iter().all(|number| number.len() == 22));
    }
}
