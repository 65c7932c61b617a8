//! One HTTP client, and so one connection pool, a lane: a tenant's stalled or broken connections
//! are never another's.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::http::{self, HttpError, Proxying, Reach, Settings};
use crate::model::TenantId;

/// The clients of all lanes, made when first used. As many as there are tenants.
pub struct Clients {
    connect_timeout: Duration,
    reach: Reach,
    lanes: Mutex<HashMap<(TenantId, Proxying), reqwest::Client>>,
}

impl Clients {
    pub fn new(connect_timeout: Duration, reach: Reach) -> Self {
        Self {
            connect_timeout,
            reach,
            lanes: Mutex::new(HashMap::new()),
        }
    }

    /// # Errors
    /// As [`http::client`].
    pub fn of(&self, tenant: &TenantId, url: &str) -> Result<reqwest::Client, HttpError> {
        let proxying = Proxying::toward(url);
        let mut lanes = self.lanes.lock().expect("nothing panics while it is held");
        let lane = (tenant.clone(), proxying);
        if let Some(client) = lanes.get(&lane) {
            return Ok(client.clone());
        }
        let settings = Settings {
            connect_timeout: self.connect_timeout,
            ..Settings::default()
        };
        let client = http::client_by(&self.reach, url, &settings)?;
        lanes.insert(lane, client.clone());
        Ok(client)
    }
}
