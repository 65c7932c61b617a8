//! The platform as the witness of whose a token is: `auth` asks, `platform` answers, and neither knows the other.

use std::sync::Arc;

use crate::auth::{Told, Witness, Witnessing};
use crate::clock::Clock;
use crate::config::Tenant;
use crate::control::{Code, Refusal};
use crate::http::Reach;
use crate::model::Token;
use crate::platform::{OWNER_PATH, Owner, owner};

#[derive(Clone)]
pub struct PlatformWitness {
    reach: Reach,
    api_url: String,
    path: String,
    clock: Arc<dyn Clock>,
}

impl PlatformWitness {
    /// # Errors
    /// Its way there is configured wrongly.
    pub fn of(tenant: &Tenant, clock: &Arc<dyn Clock>) -> Result<Self, Refusal> {
        let reach = tenant.http.reach();
        Ok(Self {
            reach: reach.map_err(|what| Refusal::new(Code::Configuration, what))?,
            api_url: tenant.api_url.clone(),
            path: path_of(tenant).to_owned(),
            clock: Arc::clone(clock),
        })
    }
}

/// Where it may be asked at all.
pub fn path_of(tenant: &Tenant) -> &str {
    tenant.owner_path.as_deref().unwrap_or(OWNER_PATH)
}

impl Witness for PlatformWitness {
    fn whose<'a>(&'a self, token: &'a Token) -> Witnessing<'a> {
        Box::pin(async move {
            let place = (self.api_url.as_str(), self.path.as_str());
            match owner(&self.reach, place, token, self.clock.wall()).await {
                Owner::Accepted {
                    organization: Some(name),
                } => Told::Organization(name),
                Owner::Silent => Told::Silent,
                Owner::Accepted { organization: None }
                | Owner::Refused(_)
                | Owner::Unreachable(_) => Told::Nothing,
            }
        })
    }
}
