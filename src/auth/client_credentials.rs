//! The client credentials grant (RFC 6749 section 4.4; docs/PROTOCOL.md, token endpoint).

use std::path::PathBuf;

use super::endpoint::TokenEndpoint;
use super::grant::{About, Grant, MintFailure, Minted, Minting};
use super::secret::{SecretPlaces, read_secret};

/// Mints tokens for one client.
#[derive(Debug)]
pub struct ClientCredentials {
    pub endpoint: TokenEndpoint,
    pub client_id: String,
    /// As configured; read anew before each token request.
    pub secret_file: PathBuf,
    pub places: SecretPlaces,
    /// Empty: the server's default.
    pub scopes: Vec<String>,
}

impl ClientCredentials {
    async fn request(&self) -> Result<Minted, MintFailure> {
        let (file, places) = (self.secret_file.clone(), self.places.clone());
        // The file may lie on a slow or hanging disk.
        let secret = tokio::task::spawn_blocking(move || read_secret(&file, &places))
            .await
            .map_err(|error| MintFailure::Unreachable {
                cause: format!("reading the secret ended early: {error}"),
            })?
            .map_err(MintFailure::Secret)?;
        let scope = self.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        self.endpoint.request(&self.client_id, &secret, &form).await
    }
}

impl Grant for ClientCredentials {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.request())
    }

    fn about(&self) -> About {
        About {
            endpoint: self.endpoint.shown(),
            client_id: self.client_id.clone(),
            grant: "client_credentials",
            scopes: self.scopes.clone(),
            secret_file: self.secret_file.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
