//! One HTTP client, and so one connection pool, a lane: a tenant's stalled or broken connections
//! are never another's.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::http::{self, HttpError, Proxying, Settings};
use crate::model::TenantId;

/// The clients of all lanes, made when first used. As many as there are tenants.
#[derive(Debug)]
pub struct Clients {
    connect_timeout: Duration,
    lanes: Mutex<HashMap<(TenantId, Proxying), reqwest::Client>>,
}

impl Clients {
    pub fn new(connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            lanes: Mutex::new(HashMap::new()),
        }
    }

    /// # Errors
    /// As [`http::client`].
    pub fn of(&self, tenant: &TenantId, api_url: &str) -> Result<reqwest::Client, HttpError> {
        let proxying = Proxying::toward(api_url);
        let mut lanes = self.lanes.lock().expect("nothing panics while it is held");
        let lane = (tenant.clone(), proxying);
        if let Some(client) = lanes.get(&lane) {
            return Ok(client.clone());
        }
        let client = http::client(&Settings {
            connect_timeout: self.connect_timeout,
            proxying,
            ..Settings::default()
        })?;
        lanes.insert(lane, client.clone());
        Ok(client)
    }
}
