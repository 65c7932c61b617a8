//! A token that somebody else writes into a file. It is usable until the platform refuses it; a newer file is taken as soon
//! as it is seen.

use secrecy::ExposeSecret;
use serde_json::Map;

use super::answer::is_bearer;
use super::claims::Claims;
use super::grant::{
    About, Grant, MintFailure, Minted, Minting, Refusal, RefusalKind, UNTIL_REFUSED,
};
use super::secret::SecretSource;

/// The token in one file.
#[derive(Debug)]
pub struct StaticToken {
    pub file: SecretSource,
}

impl StaticToken {
    async fn read(&self) -> Result<Minted, MintFailure> {
        let token = self.file.read().await?;
        if !is_bearer(None, token.expose_secret()) {
            return Err(MintFailure::Refused(Box::new(Refusal {
                kind: RefusalKind::Unusable,
                ..Refusal::default()
            })));
        }
        Ok(Minted {
            claims: Claims::of(token.expose_secret(), &Map::new()),
            access_token: token,
            lifetime: UNTIL_REFUSED,
            scopes: None,
        })
    }
}

impl Grant for StaticToken {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.read())
    }

    fn about(&self) -> About {
        About {
            grant: "static",
            proof_file: self.file.shown(),
            ..About::default()
        }
    }

    fn files(&self) -> Vec<SecretSource> {
        vec![self.file.clone()]
    }

    fn is_static(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
