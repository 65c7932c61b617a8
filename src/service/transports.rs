//! The transport of each tenant, from the configuration. Tenants with the same transport share one, which keeps
//! their connections apart by itself.

use std::sync::Arc;

use crate::config::{Tenant, Transport};
use crate::platform::{BinaryPlatform, JsonPlatform, Platform, PresignedPlatform, Timeouts};

/// Made when first asked for.
#[derive(Default)]
pub struct Transports {
    json: Option<Arc<dyn Platform>>,
    binary: Option<Arc<dyn Platform>>,
    presigned: Option<Arc<dyn Platform>>,
}

impl Transports {
    pub fn of(&mut self, tenant: &Tenant) -> Arc<dyn Platform> {
        let timeouts = Timeouts::default();
        let platform = match tenant.transport {
            Transport::Json => self
                .json
                .get_or_insert_with(|| Arc::new(JsonPlatform::new(timeouts))),
            Transport::Binary => self
                .binary
                .get_or_insert_with(|| Arc::new(BinaryPlatform::new(timeouts))),
            Transport::Presigned => self
                .presigned
                .get_or_insert_with(|| Arc::new(PresignedPlatform::new(timeouts))),
        };
        Arc::clone(platform)
    }
}
