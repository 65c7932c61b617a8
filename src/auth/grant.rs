//! The seam between a slot and the request that mints its tokens. A further grant is a further
//! implementation of [`Grant`]; the slot, its timing and its diagnosis stay as they are.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;

use super::CredentialHold;
use super::claims::Claims;
use super::key::KeyError;
use super::secret::{SecretError, SecretSource};

/// A token as its endpoint issued it.
#[derive(Debug)]
pub struct Minted {
    pub access_token: SecretString,
    /// Sane whatever the endpoint stated.
    pub lifetime: Duration,
    /// `None`: the answer did not say.
    pub scopes: Option<Vec<String>>,
    /// What the token or its answer says of itself; believed for diagnoses and holds only.
    pub claims: Claims,
}

/// The lifetime of a token that is usable until it is refused.
pub const UNTIL_REFUSED: Duration = Duration::MAX;

/// Why no token came, as plain facts; `diagnosis` turns them into words.
#[derive(Debug)]
pub enum MintFailure {
    /// Nothing was sent: the secret on this host is unusable.
    Secret(SecretError),
    /// Nothing was sent: the key is none that assertions can be signed with.
    Key(KeyError),
    /// A token came, and what its endpoint gave with it cannot be kept on this host's disk.
    Keep { path: PathBuf, source: io::Error },
    /// The token that this one is exchanged for is not to be had.
    Subject(Box<CredentialHold>),
    /// No answer came.
    Unreachable {
        /// Two or three words, such as `connection refused`.
        cause: String,
    },
    /// An answer without a usable token.
    Refused(Box<Refusal>),
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
    /// How far this host's clock was ahead of the endpoint's, in seconds, where its answer had a date.
    pub clock_ahead_s: Option<i64>,
    /// What was asked for in exchange, or as proof.
    pub about: Proof,
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
    /// A token of another type than was asked for (`issued_token_type`).
    OtherType,
}

/// What a request proves itself with, beside the client's own secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    #[default]
    Nothing,
    Assertion,
    RefreshToken,
    SubjectToken,
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
    /// The client's secret file, as configured; empty for a client without one.
    pub secret_file: String,
    /// The file of the key, refresh token or token, as configured.
    pub proof_file: String,
    /// Where an assertion or an exchanged token is meant for, if that is stated.
    pub audience: String,
    /// Whom an assertion speaks for.
    pub user: String,
}

impl About {
    /// `client 5b1c9e`, or what stands for it where a grant has no client.
    pub fn client(&self) -> String {
        if self.client_id.is_empty() {
            "its client".to_owned()
        } else {
            format!("client {}", self.client_id)
        }
    }
}

pub type Minting<'a> = Pin<Box<dyn Future<Output = Result<Minted, MintFailure>> + Send + 'a>>;

/// One way of getting a token. Called for one token at a time, at the slot's pace and under the slot's
/// deadline; never retries by itself, because the slot does.
pub trait Grant: Send + Sync + 'static {
    fn mint(&self) -> Minting<'_>;

    fn about(&self) -> About;

    /// How many requests one token may take, one after another; each has the whole time of one.
    fn requests(&self) -> u32 {
        1
    }

    /// The operator's files behind its tokens. While the slot is held for one, a change of it sets off a try.
    fn files(&self) -> Vec<SecretSource> {
        Vec::new()
    }

    /// Its tokens stand in its files: a change is a newer token, and asking again without one gives the same.
    fn is_static(&self) -> bool {
        false
    }

    /// An operator says that the cause is cured.
    fn retry_now(&self) {}
}
