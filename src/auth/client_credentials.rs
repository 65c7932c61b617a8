//! The client credentials grant (RFC 6749 section 4.4; docs/PROTOCOL.md, token endpoint).

use super::endpoint::{Asking, Client, TokenEndpoint};
use super::grant::{About, Grant, MintFailure, Minted, Minting, Proof};
use super::secret::SecretSource;

/// Mints tokens for one client.
#[derive(Debug)]
pub struct ClientCredentials {
    pub endpoint: TokenEndpoint,
    pub client: Client,
    /// Empty: the server's default.
    pub scopes: Vec<String>,
}

impl ClientCredentials {
    async fn request(&self) -> Result<Minted, MintFailure> {
        let scope = self.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let asking = Asking {
            form,
            secrets: Vec::new(),
            proof: Proof::Nothing,
        };
        Ok(self.endpoint.request(&self.client, asking).await?.minted)
    }
}

impl Grant for ClientCredentials {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.request())
    }

    fn about(&self) -> About {
        About {
            endpoint: self.endpoint.shown(),
            client_id: self.client.id.clone(),
            grant: "client_credentials",
            scopes: self.scopes.clone(),
            secret_file: self.client.secret_shown(),
            ..About::default()
        }
    }

    fn files(&self) -> Vec<SecretSource> {
        self.client.secret.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
