//! The seam between a slot and the request that mints its tokens. A further grant is a further
//! implementation of [`Grant`]; the slot, its timing and its diagnosis stay as they are.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;

use super::secret::SecretError;

/// A token as its endpoint issued it.
#[derive(Debug)]
pub struct Minted {
    pub access_token: SecretString,
    /// Sane whatever the endpoint stated.
    pub lifetime: Duration,
    /// `None`: the answer did not say.
    pub scopes: Option<Vec<String>>,
}

/// Why no token came, as plain facts; `diagnosis` turns them into words.
#[derive(Debug)]
pub enum MintFailure {
    /// Nothing was sent: the secret on this host is unusable.
    Secret(SecretError),
    /// No answer came.
    Unreachable {
        /// Two or three words, such as `connection refused`.
        cause: String,
    },
    /// An answer without a usable token.
    Refused(Refusal),
}

/// What a token endpoint said instead of giving a token. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    pub status: u16,
    pub kind: RefusalKind,
    /// The `error` of RFC 6749 section 5.2.
    pub error: Option<String>,
    pub description: Option<String>,
    pub correlation_id: Option<String>,
    pub retry_after: Option<Duration>,
    /// The first KiB of a refusal's body, printable characters only; empty where the body may hold a token.
    pub body: String,
}

/// What the answer was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusalKind {
    /// An error object, or a status that speaks for itself.
    #[default]
    Error,
    /// A web page: a proxy, a captive portal, a wrong address.
    Html,
    /// A redirect, which is never followed with a secret in hand.
    Redirect,
    /// A 2xx that is neither a token nor an error object.
    Unreadable,
    /// A token that no bearer header can carry, or of another type than bearer.
    Unusable,
    /// More bytes than any token answer has.
    TooLarge,
}

/// What is said about a slot's request in messages. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// The token endpoint, without user, password and query.
    pub endpoint: String,
    pub client_id: String,
    /// The grant's name, such as `client_credentials`.
    pub grant: &'static str,
    /// The scopes that are asked for.
    pub scopes: Vec<String>,
    /// The secret file, as configured.
    pub secret_file: String,
}

pub type Minting<'a> = Pin<Box<dyn Future<Output = Result<Minted, MintFailure>> + Send + 'a>>;

/// One way of getting a token. Called for one token at a time, at the slot's pace and under the slot's
/// deadline; never retries by itself, because the slot does.
pub trait Grant: Send + Sync + 'static {
    fn mint(&self) -> Minting<'_>;

    fn about(&self) -> About;
}
