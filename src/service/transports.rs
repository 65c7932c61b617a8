//! The transport of each tenant, from the configuration. Every tenant has its own, so that neither connections nor
//! proxies nor certificates are shared.

use std::sync::Arc;

use crate::config::{Tenant, Transport};
use crate::control::{Code, Refusal};
use crate::platform::{BinaryPlatform, JsonPlatform, Platform, PresignedPlatform, Timeouts};

/// # Errors
/// A file of its `[http]` table cannot be used.
pub fn transport(tenant: &Tenant) -> Result<Arc<dyn Platform>, Refusal> {
    let reach = tenant.http.reach();
    let reach = reach.map_err(|what| Refusal::new(Code::Configuration, what))?;
    let timeouts = Timeouts::default();
    Ok(match tenant.transport {
        Transport::Json => Arc::new(JsonPlatform::new(timeouts, reach)),
        Transport::Binary => Arc::new(BinaryPlatform::new(timeouts, reach)),
        Transport::Presigned => Arc::new(PresignedPlatform::new(timeouts, reach)),
    })
}
