//! Token slots: one per token request, shared by every lane that would make the same one.
//!
//! `slot` decides (pure), `refusals` weighs the platform's 401s (pure), `diagnosis` and `words` say what is
//! wrong (pure), `answer` reads what an endpoint says (pure); `source` performs it on a runtime, `endpoint`
//! makes the request, `watch` notices that the operator wrote a file, and each grant is a file that implements [`Grant`].

mod answer;
mod claims;
mod client_credentials;
mod diagnosis;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grant;
mod jwt_bearer;
mod key;
mod refresh_token;
mod refusals;
mod rotated;
mod secret;
mod slot;
mod source;
mod static_token;
#[cfg(test)]
mod testing;
mod token_exchange;
mod watch;
mod witness;
mod words;

use std::future::Future;
use std::pin::Pin;

use crate::clock::Instant;
use crate::model::{FailureRecord, Generation, SessionKey, Timestamp, Token, TokenView};

pub use claims::Claims;
pub use client_credentials::ClientCredentials;
pub use endpoint::{Client, EndpointError, TokenEndpoint, token_client};
pub use grant::{About, Grant, MintFailure, Minted, Minting, Proof, Refusal, RefusalKind};
pub use jwt_bearer::{Assertion, JwtBearer};
pub use key::{KeyError, SigningKey};
pub use refresh_token::RefreshToken;
pub use rotated::RotatedFile;
pub use secret::{SECRET_BYTES_MAX, SecretError, SecretPlaces, SecretSource, read_secret};
pub use slot::{RefreshPolicy, Rules};
pub use source::Slot;
pub use static_token::StaticToken;
pub use token_exchange::{TokenExchange, Wish};
pub use witness::{Told, Witness, Witnessing};
pub use words::{
    blocked_sentence, missing_scope_sentence, needs_user, user_needed, waiting_sentence,
};

/// Why a slot gives no token now, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHold {
    pub kind: CredentialHoldKind,
    /// One sentence, without a full stop: what is wrong.
    pub reason: String,
    /// One sentence, without a full stop: what to change. Empty if there is nothing to do but wait.
    pub remedy: String,
    pub since: Timestamp,
    /// When the slot tries again by itself.
    pub until: Instant,
    /// Failed tries since the hold began.
    pub probes_failed: u32,
    /// The last answer, if one came.
    pub last: Option<FailureRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialHoldKind {
    /// The token endpoint does not answer, or answers 5xx.
    Outage,
    /// The token endpoint asks for patience.
    Throttled,
    /// Only an operator can cure it: wrong secret, disabled client, tokens refused by the platform.
    Blocked,
}

/// A platform's 401 for a token of this slot.
#[derive(Debug, Clone)]
pub struct Rejection {
    pub generation: Generation,
    pub session: SessionKey,
    /// No other session of the lane has work.
    pub only_session: bool,
    pub record: FailureRecord,
}

/// What the caller of [`TokenSource::reject`] does next. In every case the chunk is released, not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRejection {
    /// A newer token exists or is on its way: ask again.
    Retry,
    /// Other sessions are served: hold this session alone.
    HoldSession,
    /// The slot is blocked; `token` says until when.
    Blocked,
}

pub type TokenResult<'a> = Pin<Box<dyn Future<Output = Result<Token, CredentialHold>> + Send + 'a>>;

/// A slot, as the engine sees it.
pub trait TokenSource: Send + Sync + 'static {
    /// A usable token: at once if one is held (also while its refresh is under way), else after the one
    /// shared request. `Err` at once while the slot is held. Dropping the future cancels nothing.
    fn token(&self) -> TokenResult<'_>;

    /// Compare-and-swap invalidation: has an effect only while `generation` is the newest.
    fn reject(&self, rejection: Rejection) -> AfterRejection;

    /// A delivery of `session` succeeded with this generation.
    fn accepted(&self, generation: Generation, session: &SessionKey);

    /// The operator says that the cause is cured: try now.
    fn retry_now(&self);

    /// A right that tokens of `generation` lack may have been granted since, and a token carries what it was
    /// minted with: asks for a younger one. Callers are given the present one meanwhile. `false`: none will come.
    fn renew(&self, _generation: Generation) -> bool {
        false
    }

    /// Whoever tokens of `generation` were to be exchanged with does not take them: the next caller gets a younger one.
    /// Compare-and-swap, as `reject`; `false`: none will come.
    fn invalidate(&self, _generation: Generation) -> bool {
        false
    }

    /// The hold in force, if any: there is one exactly while `token` would refuse at once. Once its
    /// `until` has passed there is none, and the next call of `token` is the probe.
    fn hold(&self) -> Option<CredentialHold>;

    fn view(&self) -> TokenView;

    /// The scopes that the newest token states; `None` if it states none.
    fn granted_scopes(&self) -> Option<Vec<String>> {
        None
    }

    /// The organisation that the newest token shows, or that it was to show; `None` if it shows none.
    fn organization(&self) -> Option<String> {
        None
    }

    /// What became of the token of `generation`, if a platform refuses it now: what stands behind `its token`. `None` where it
    /// was fresh, or is not the newest.
    fn fate(&self, _generation: Generation) -> Option<String> {
        None
    }

    /// The platform says whose the token of `generation` is. The hold that follows where the slot wants those of another
    /// organisation; from then on tokens that do not show it are asked about.
    fn told(&self, _generation: Generation, _organization: &str) -> Option<CredentialHold> {
        None
    }

    /// What a platform's refusal of the newest token means: what is wrong, and what to change. Nothing follows from it here.
    fn explain(&self, record: &FailureRecord) -> (String, String) {
        (record.message.clone(), String::new())
    }

    /// Whose tokens these are, for messages.
    fn client_id(&self) -> Option<String> {
        None
    }

    /// Ends when the slot's state changed after the call. A hint, never the only wake-up.
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

#[cfg(test)]
mod tests;
