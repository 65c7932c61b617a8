//! The token exchange grant (RFC 8693; docs/PROTOCOL.md, token endpoint): the token of another slot, the subject, buys one for
//! another audience. Nothing lives longer than what it was bought with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;

use super::answer::Granted;
use super::endpoint::{Asking, Client, TokenEndpoint};
use super::grant::{
    About, Grant, MintFailure, Minted, Minting, Proof, Refusal, RefusalKind, UNTIL_REFUSED,
};
use super::secret::SecretSource;
use super::{TokenSource, words};
use crate::model::{Generation, Token};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What a bearer header can carry, where nothing was asked for by name.
const BEARERS: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:access_token",
    "urn:ietf:params:oauth:token-type:jwt",
];

/// What is asked for, beside the subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    pub audience: Option<String>,
    pub resource: Option<String>,
    pub scopes: Vec<String>,
    /// A token type's URN; `None`: the server's choice.
    pub requested_token_type: Option<String>,
    pub subject_token_type: String,
}

/// Exchanges the tokens of another slot.
pub struct TokenExchange {
    endpoint: TokenEndpoint,
    client: Client,
    wish: Wish,
    subject: Arc<dyn TokenSource>,
    /// The operator's files behind the subject.
    subject_files: Vec<SecretSource>,
    /// The newest subject that the endpoint complained of: each is complained of once.
    complained: Mutex<Generation>,
}

impl TokenExchange {
    pub fn new(
        endpoint: TokenEndpoint,
        client: Client,
        wish: Wish,
        subject: Arc<dyn TokenSource>,
        subject_files: Vec<SecretSource>,
    ) -> Self {
        Self {
            endpoint,
            client,
            wish,
            subject,
            subject_files,
            complained: Mutex::default(),
        }
    }

    async fn request(&self) -> Result<Minted, MintFailure> {
        let (subject, left) = self.subject().await?;
        match self.exchange(&subject, left).await {
            Err(MintFailure::Refused(refusal))
                if is_about_subject(&refusal) && self.complain(subject.generation) =>
            {
                let (younger, left) = self.subject().await?;
                if younger.generation == subject.generation {
                    return Err(MintFailure::Refused(refusal));
                }
                self.exchange(&younger, left).await
            }
            result => result,
        }
    }

    /// The subject's token and how long it lives.
    async fn subject(&self) -> Result<(Token, Duration), MintFailure> {
        let token = self
            .subject
            .token()
            .await
            .map_err(|hold| MintFailure::Subject(Box::new(hold)))?;
        let left = self.subject.view().expires_in_s;
        Ok((token, left.map_or(UNTIL_REFUSED, Duration::from_secs)))
    }

    async fn exchange(&self, subject: &Token, left: Duration) -> Result<Minted, MintFailure> {
        let wish = &self.wish;
        let scope = wish.scopes.join(" ");
        let mut form = vec![
            ("grant_type", GRANT_TYPE),
            ("subject_token", subject.expose()),
            ("subject_token_type", wish.subject_token_type.as_str()),
        ];
        for (name, value) in [
            ("audience", wish.audience.as_deref()),
            ("resource", wish.resource.as_deref()),
            ("requested_token_type", wish.requested_token_type.as_deref()),
            ("scope", Some(scope.as_str()).filter(|s| !s.is_empty())),
        ] {
            form.extend(value.map(|value| (name, value)));
        }
        let hidden = SecretString::from(subject.expose());
        let asking = Asking {
            form,
            secrets: vec![&hidden],
            proof: Proof::SubjectToken,
        };
        let granted = self.endpoint.request(&self.client, asking).await?;
        let mut minted = self.checked(granted)?;
        minted.lifetime = minted.lifetime.min(left);
        Ok(minted)
    }

    /// RFC 8693 section 2.2.1. An answer that does not say what it issued is taken at its `token_type`, which is bearer.
    fn checked(&self, granted: Granted) -> Result<Minted, MintFailure> {
        let Some(issued) = granted.issued_token_type else {
            return Ok(granted.minted);
        };
        let right = match &self.wish.requested_token_type {
            Some(wanted) => issued == *wanted,
            None => BEARERS.contains(&issued.as_str()),
        };
        if right {
            return Ok(granted.minted);
        }
        Err(MintFailure::Refused(Box::new(Refusal {
            status: 200,
            kind: RefusalKind::OtherType,
            description: Some(words::clipped(&issued)),
            about: Proof::SubjectToken,
            ..Refusal::default()
        })))
    }

    /// Gives the subject up, once a generation. Whether a younger one may come.
    fn complain(&self, generation: Generation) -> bool {
        let mut complained = self.complained.lock().expect("no comparison panics");
        if generation <= *complained {
            return false;
        }
        *complained = generation;
        drop(complained);
        self.subject.invalidate(generation)
    }
}

/// The endpoint refuses what was to be exchanged, not who asks for it.
pub fn is_about_subject(refusal: &Refusal) -> bool {
    let said = refusal
        .description
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match refusal.error.as_deref() {
        Some("invalid_grant" | "invalid_token") => true,
        Some("invalid_request") => said.contains("subject"),
        _ => false,
    }
}

impl Grant for TokenExchange {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.request())
    }

    fn about(&self) -> About {
        About {
            endpoint: self.endpoint.shown(),
            client_id: self.client.id.clone(),
            grant: "token_exchange",
            scopes: self.wish.scopes.clone(),
            secret_file: self.client.secret_shown(),
            audience: self.wish.audience.clone().unwrap_or_default(),
            ..About::default()
        }
    }

    /// The subject and the exchange, each once more if the first subject is complained of.
    fn requests(&self) -> u32 {
        4
    }

    fn files(&self) -> Vec<SecretSource> {
        let mut files = self.subject_files.clone();
        files.extend(self.client.secret.clone());
        files
    }

    fn retry_now(&self) {
        self.subject.retry_now();
    }
}

#[cfg(test)]
mod tests;
