//! A signing key from a PEM file: RSA (PKCS#8 or PKCS#1) signs RS256, EC on P-256 (PKCS#8 or SEC1) signs ES256. The file
//! says which, so nobody configures an algorithm that does not fit the key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// Why a file's text is no key to sign with. Names the file as configured, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("{file} holds no private key in PEM form")]
    NoKey { file: String },
    #[error("{file} holds an encrypted private key: store it without a passphrase, mode 0600")]
    Encrypted { file: String },
    #[error(
        "{file} holds a key that cannot sign RS256 or ES256 ({why}): use RSA of 2048 bits or more, or EC on P-256"
    )]
    Unusable { file: String, why: String },
}

/// A private key, ready to sign.
pub struct SigningKey {
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm())
    }
}

impl SigningKey {
    /// The first private key in `text`; whatever stands before or after it is passed over (RFC 7468 section 2).
    ///
    /// # Errors
    /// [`KeyError`]; `file` is what it calls the text.
    pub fn from_pem(text: &SecretString, file: &str) -> Result<Self, KeyError> {
        let none = || KeyError::NoKey {
            file: file.to_owned(),
        };
        let (label, der) = private_key(text.expose_secret()).ok_or_else(none)?;
        let unusable = |why: &dyn fmt::Display| KeyError::Unusable {
            file: file.to_owned(),
            why: why.to_string(),
        };
        let random = SystemRandom::new();
        let pair = match label {
            Label::Encrypted => {
                return Err(KeyError::Encrypted {
                    file: file.to_owned(),
                });
            }
            Label::Pkcs1 => RsaKeyPair::from_der(&der).map(|pair| Pair::Rsa(Box::new(pair))),
            Label::Sec1 => ec(&in_pkcs8(&der), &random),
            Label::Pkcs8 => RsaKeyPair::from_pkcs8(&der)
                .map(|pair| Pair::Rsa(Box::new(pair)))
                .or_else(|of_rsa| {
                    // Where it is no EC key of any curve either, RSA's complaint is the one about the key.
                    ec(&der, &random).map_err(|of_ec| {
                        if of_rsa.to_string() == "WrongAlgorithm" {
                            of_ec
                        } else {
                            of_rsa
                        }
                    })
                }),
        };
        let pair = pair.map_err(|why| unusable(&why))?;
        Ok(Self { pair, random })
    }

    /// As a JWT's header names it (RFC 7518 section 3.1).
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    /// `None` if the system gives no randomness.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Pair::Ec(pair) => {
                let signature = pair.sign(&self.random, message).ok()?;
                Some(signature.as_ref().to_vec())
            }
        }
    }
}

fn ec(der: &[u8], random: &SystemRandom) -> Result<Pair, ring::error::KeyRejected> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, random)
        .map(|pair| Pair::Ec(Box::new(pair)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Pkcs8,
    Pkcs1,
    Sec1,
    Encrypted,
}

fn private_key(text: &str) -> Option<(Label, Zeroizing<Vec<u8>>)> {
    for (begin, end, label) in [
        (
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            Label::Pkcs8,
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----END RSA PRIVATE KEY-----",
            Label::Pkcs1,
        ),
        (
            "-----BEGIN EC PRIVATE KEY-----",
            "-----END EC PRIVATE KEY-----",
            Label::Sec1,
        ),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "-----END ENCRYPTED PRIVATE KEY-----",
            Label::Encrypted,
        ),
    ] {
        let Some((_, rest)) = text.split_once(begin) else {
            continue;
        };
        let (body, _) = rest.split_once(end)?;
        // The old way of encrypting (RFC 1421) says so inside.
        if body.contains("ENCRYPTED") {
            return Some((Label::Encrypted, Zeroizing::default()));
        }
        let joined: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_whitespace()).collect());
        let der = STANDARD.decode(joined.as_bytes()).ok()?;
        return Some((label, Zeroizing::new(der)));
    }
    None
}

/// A SEC1 key in the PKCS#8 envelope that the crypto library wants (RFC 5958; the curve is P-256 or it is refused).
fn in_pkcs8(sec1: &[u8]) -> Zeroizing<Vec<u8>> {
    /// Version 0, then `ecPublicKey` on `prime256v1`.
    const HEAD: [u8; 24] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
        0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let key = tagged(0x04, sec1);
    tagged(0x30, &[&HEAD[..], &key].concat())
}

/// DER: tag, length, content.
fn tagged(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let bytes = content.len().to_be_bytes();
    let length: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![tag];
    if content.len() < 128 {
        der.push(u8::try_from(content.len()).expect("below 128"));
    } else {
        der.push(0x80 | u8::try_from(length.len()).expect("at most eight"));
        der.extend_from_slice(&length);
    }
    der.extend_from_slice(content);
    Zeroizing::new(der)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };

    /// Made with `openssl` for these tests; they open nothing.
    pub const RSA_PKCS8: &str = include_str!("fixtures/rsa.pkcs8.pem");
    pub const RSA_PKCS1: &str = include_str!("fixtures/rsa.pkcs1.pem");
    pub const EC_PKCS8: &str = include_str!("fixtures/ec.pkcs8.pem");
    pub const EC_SEC1: &str = include_str!("fixtures/ec.sec1.pem");
    const RSA_1024: &str = include_str!("fixtures/rsa1024.pem");
    const ED25519: &str = include_str!("fixtures/ed25519.pem");
    const EC_P384: &str = include_str!("fixtures/ec384.pem");

    pub fn key(pem: &str) -> Result<SigningKey, KeyError> {
        SigningKey::from_pem(&SecretString::from(pem), "acme.pem")
    }

    /// Whether the key's own public half verifies.
    pub fn verifies(key: &SigningKey, message: &[u8], signature: &[u8]) -> bool {
        match &key.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key().as_ref().to_vec();
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                    .verify(message, signature)
            }
            Pair::Ec(pair) => {
                let public = pair.public_key().as_ref().to_vec();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(message, signature)
            }
        }
        .is_ok()
    }

    #[test]
    fn every_common_form_of_a_key_signs_what_its_public_half_verifies() {
        for (pem, algorithm) in [
            (RSA_PKCS8, "RS256"),
            (RSA_PKCS1, "RS256"),
            (EC_PKCS8, "ES256"),
            (EC_SEC1, "ES256"),
        ] {
            let text = format!(
                "a comment that begins the file\n{}",
                pem.replace('\n', "\r\n")
            );
            let key = key(&text).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let signature = key.sign(b"message").unwrap();
            assert!(verifies(&key, b"message", &signature), "{algorithm}");
            assert!(!verifies(&key, b"another", &signature), "{algorithm}");
        }
    }

    #[test]
    fn the_same_key_in_two_forms_is_the_same_key() {
        let (new, old) = (key(RSA_PKCS8).unwrap(), key(RSA_PKCS1).unwrap());
        assert!(verifies(&old, b"m", &new.sign(b"m").unwrap()));
        let (new, old) = (key(EC_PKCS8).unwrap(), key(EC_SEC1).unwrap());
        assert!(verifies(&old, b"m", &new.sign(b"m").unwrap()));
    }

    #[test]
    fn what_cannot_sign_is_refused_with_the_cure() {
        let cut = &EC_PKCS8[..100];
        let garbled = RSA_PKCS8.replace("MII", "M!!");
        for (pem, wants) in [
            ("", "no private key in PEM form"),
            ("canary", "no private key in PEM form"),
            (cut, "no private key in PEM form"),
            (&garbled, "no private key in PEM form"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                "without a passphrase",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----",
                "without a passphrase",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                "use RSA of 2048 bits or more",
            ),
            (RSA_1024, "use RSA of 2048 bits or more"),
            (ED25519, "or EC on P-256"),
            (EC_P384, "or EC on P-256"),
        ] {
            let error = key(pem).unwrap_err().to_string();
            assert!(error.starts_with("acme.pem holds "), "{error}");
            assert!(error.contains(wants), "{error}");
            assert!(
                !error.contains("canary") && !error.contains("AAAA"),
                "{error}"
            );
        }
    }
}
