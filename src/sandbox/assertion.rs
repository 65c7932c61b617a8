//! Checks an assertion (RFC 7523 section 3) from the standard's text: its signature with the client's registered key, then
//! every claim. Nothing of it is believed before its signature is.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use serde_json::{Map, Value};

/// Made for the emulator; it opens nothing else.
const RSA_FIXTURE: &str = include_str!("fixtures/rsa.pem");
/// How far the clocks may be apart.
const LEEWAY_S: i64 = 5;
/// An assertion that is good for longer is no assertion but a password.
const LIFE_MAX_S: i64 = 3600;

/// The public half of a client's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa(Vec<u8>),
    Ec(Vec<u8>),
}

impl PublicKey {
    pub(super) fn fixture() -> Self {
        let body: String = RSA_FIXTURE
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let der = STANDARD.decode(body).expect("the fixture is base64");
        let pair = RsaKeyPair::from_pkcs8(&der).expect("the fixture is an RSA key");
        Self::Rsa(pair.public_key().as_ref().to_vec())
    }

    /// A new key on P-256, and its private half in PEM form.
    pub(super) fn new_ec() -> (Self, String) {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there is randomness");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random)
            .expect("what was made can be read");
        let public = pair.public_key().as_ref().to_vec();
        let body = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        );
        (Self::Ec(public), pem)
    }

    /// The private half of [`PublicKey::fixture`].
    pub(super) fn fixture_pem() -> &'static str {
        RSA_FIXTURE
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa(key), "RS256") => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                .verify(message, signature)
                .is_ok(),
            (Self::Ec(key), "ES256") => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signature)
                .is_ok(),
            _ => false,
        }
    }
}

/// What an assertion says of itself before anything is checked.
pub(super) struct Unverified {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    message: String,
    signature: Vec<u8>,
}

/// What a good assertion says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assertion {
    pub(super) user: String,
    pub(super) id: String,
    /// Seconds after the Unix epoch.
    pub(super) expires_at_s: i64,
}

impl Unverified {
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            header: object(header)?,
            claims: object(claims)?,
            message: format!("{header}.{claims}"),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims
            .get(claim)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    fn seconds(&self, claim: &str) -> Option<i64> {
        self.claims.get(claim)?.as_i64()
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// Checks everything but whether it was used before. The error is what the endpoint says.
    pub(super) fn check(
        &self,
        key: &PublicKey,
        key_id: Option<&str>,
        audiences: &[String],
        now_s: i64,
    ) -> Result<Assertion, &'static str> {
        let algorithm = self
            .header
            .get("alg")
            .and_then(Value::as_str)
            .unwrap_or("none");
        if let Some(wanted) = key_id
            && self.header.get("kid").and_then(Value::as_str) != Some(wanted)
        {
            return Err("no key is registered under the assertion's kid");
        }
        if !key.verifies(algorithm, self.message.as_bytes(), &self.signature) {
            return Err("the signature of the assertion does not verify with the client's key");
        }
        let user = self.text("sub").ok_or("the assertion has no sub")?;
        let is_ours = |aud: &Value| {
            aud.as_str()
                .is_some_and(|aud| audiences.iter().any(|a| a == aud))
        };
        let for_us = match self.claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if !for_us {
            return Err("the aud of the assertion is not this token endpoint");
        }
        let expires_at_s = self.seconds("exp").ok_or("the assertion has no exp")?;
        if expires_at_s + LEEWAY_S <= now_s {
            return Err("the assertion has expired");
        }
        if expires_at_s > now_s + LIFE_MAX_S {
            return Err("the assertion expires too far in the future");
        }
        for (claim, early) in [
            ("iat", "the assertion was issued in the future"),
            ("nbf", "the assertion is not valid yet"),
        ] {
            if self.claims.contains_key(claim)
                && self.seconds(claim).is_none_or(|at| at > now_s + LEEWAY_S)
            {
                return Err(early);
            }
        }
        let id = self.text("jti").ok_or("the assertion has no jti")?;
        Ok(Assertion {
            user: user.to_owned(),
            id: id.to_owned(),
            expires_at_s,
        })
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}
