//! An access token in memory.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// Counts the tokens of one slot since the process started; a 401 invalidates one generation only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// A bearer token. Cheap to clone; wiped when the last clone goes; never printed.
#[derive(Clone)]
pub struct Token {
    secret: Arc<SecretString>,
    pub generation: Generation,
}

impl Token {
    pub fn new(secret: String, generation: Generation) -> Self {
        Self {
            secret: Arc::new(SecretString::from(secret)),
            generation,
        }
    }

    /// As [`Token::new`], for a secret that was never a plain text.
    pub fn from_secret(secret: SecretString, generation: Generation) -> Self {
        Self {
            secret: Arc::new(secret),
            generation,
        }
    }

    /// The bearer value, for building one header.
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The first eight hex digits of the token's BLAKE3: tells tokens apart without telling them.
    pub fn fingerprint(&self) -> String {
        super::Digest::of(self.expose().as_bytes()).short()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Token(generation {}, {})",
            self.generation.0,
            self.fingerprint()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_prints_its_secret() {
        let token = Token::new("canary-secret".into(), Generation(3));
        assert!(!format!("{token:?}").contains("canary"));
    }
}
