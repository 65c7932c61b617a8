//! The transport of each tenant, from the configuration. Tenants with the same transport share one, which keeps
//! their connections apart by itself.

use std::sync::Arc;

use crate::config::{Tenant, Transport};
use crate::platform::{JsonPlatform, Patience, Platform, Timeouts, WebsocketPlatform};

/// Made when first asked for.
#[derive(Default)]
pub struct Transports {
    json: Option<Arc<dyn Platform>>,
    websocket: Option<Arc<dyn Platform>>,
}

impl Transports {
    pub fn of(&mut self, tenant: &Tenant) -> Arc<dyn Platform> {
        let platform = match tenant.transport {
            Transport::Json => self
                .json
                .get_or_insert_with(|| Arc::new(JsonPlatform::new(Timeouts::default()))),
            Transport::Websocket => self
                .websocket
                .get_or_insert_with(|| Arc::new(WebsocketPlatform::new(Patience::default()))),
        };
        Arc::clone(platform)
    }
}
