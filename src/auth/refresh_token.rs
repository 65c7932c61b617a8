//! The refresh token grant (RFC 6749 section 6; docs/PROTOCOL.md, token endpoint). Endpoints that rotate give a new refresh
//! token with every answer and take the old one for stolen afterwards, so each new one is made durable before its access
//! token is used, and a request that was begun is finished even if nobody waits for it any more.
//!
//! What a crash can cost: between the endpoint's answer and the write, the new refresh token exists in memory alone. After
//! it the old one is sent, the endpoint refuses it, and the slot blocks until the operator writes a new one; no chunk is lost.

use std::io;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::endpoint::{Asking, Client, TokenEndpoint};
use super::grant::{About, Grant, MintFailure, Minted, Minting, Proof};
use super::rotated::{Rotated, RotatedFile};
use super::secret::SecretSource;
use crate::clock::Instant;
use crate::model::Digest;
use crate::sabotage;

/// Renews tokens that a person once consented to.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: TokenEndpoint,
    client: Client,
    /// The operator's: the first of its line, or one written anew.
    file: SecretSource,
    kept: RotatedFile,
    scopes: Vec<String>,
    /// Held through a whole request: two with one refresh token are what an endpoint takes for theft.
    unkept: Mutex<Option<Unkept>>,
}

/// An answer whose refresh token the disk did not take yet.
#[derive(Debug)]
struct Unkept {
    minted: Minted,
    rotated: Rotated,
    since: Instant,
}

impl RefreshToken {
    pub fn new(
        endpoint: TokenEndpoint,
        client: Client,
        file: SecretSource,
        kept: RotatedFile,
        scopes: Vec<String>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                endpoint,
                client,
                file,
                kept,
                scopes,
                unkept: Mutex::new(None),
            }),
        }
    }
}

impl Inner {
    async fn request(&self) -> Result<Minted, MintFailure> {
        let mut unkept = self.unkept.lock().await;
        let clock = self.endpoint.clock();
        if unkept.is_none() {
            let (token, seed) = self.newest().await?;
            let granted = self.ask(&token).await?;
            sabotage::stop_at("refresh_token_answered");
            let rotated = granted
                .refresh_token
                .filter(|new| new.expose_secret() != token.expose_secret());
            match rotated {
                None => return Ok(granted.minted),
                Some(token) => {
                    *unkept = Some(Unkept {
                        minted: granted.minted,
                        rotated: Rotated { token, seed },
                        since: clock.now(),
                    });
                }
            }
        }
        let waiting = unkept.take().expect("set above");
        let (waiting, written) = self.keep(waiting).await?;
        if let Err(source) = written {
            *unkept = Some(waiting);
            return Err(self.unkeepable(source));
        }
        let mut minted = waiting.minted;
        let waited = clock.now().since(waiting.since);
        minted.lifetime = minted.lifetime.saturating_sub(waited);
        Ok(minted)
    }

    /// The youngest refresh token: the operator's, unless the kept one descends from it.
    async fn newest(&self) -> Result<(SecretString, Digest), MintFailure> {
        let own = self.file.read().await?;
        let seed = Digest::of(own.expose_secret().as_bytes());
        let kept = self.kept.clone();
        let kept = blocking(move || kept.read())
            .await?
            .map_err(|source| self.unkeepable(source))?;
        Ok(match kept {
            Some(kept) if kept.seed == seed => (kept.token, seed),
            _ => (own, seed),
        })
    }

    async fn ask(&self, token: &SecretString) -> Result<super::answer::Granted, MintFailure> {
        let scope = self.scopes.join(" ");
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose_secret()),
        ];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let asking = Asking {
            form,
            secrets: vec![token],
            proof: Proof::RefreshToken,
        };
        self.endpoint.request(&self.client, asking).await
    }

    async fn keep(&self, waiting: Unkept) -> Result<(Unkept, io::Result<()>), MintFailure> {
        let kept = self.kept.clone();
        blocking(move || {
            let written = kept.write(&waiting.rotated);
            (waiting, written)
        })
        .await
    }

    fn unkeepable(&self, source: io::Error) -> MintFailure {
        MintFailure::Keep {
            path: self.kept.path(),
            source,
        }
    }
}

/// Files may lie on a slow disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MintFailure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| MintFailure::Unreachable {
            cause: format!("the refresh token's file: {error}"),
        })
}

impl Grant for RefreshToken {
    fn mint(&self) -> Minting<'_> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            // A task of its own: whoever stops waiting must not lose a refresh token that is on its way.
            tokio::spawn(async move { inner.request().await })
                .await
                .unwrap_or_else(|error| {
                    Err(MintFailure::Unreachable {
                        cause: format!("the request ended early: {error}"),
                    })
                })
        })
    }

    fn about(&self) -> About {
        let inner = &self.inner;
        About {
            endpoint: inner.endpoint.shown(),
            client_id: inner.client.id.clone(),
            grant: "refresh_token",
            scopes: inner.scopes.clone(),
            secret_file: inner.client.secret_shown(),
            proof_file: inner.file.shown(),
            ..About::default()
        }
    }

    fn files(&self) -> Vec<SecretSource> {
        let mut files = vec![self.inner.file.clone()];
        files.extend(self.inner.client.secret.clone());
        files
    }
}

#[cfg(test)]
mod tests;
