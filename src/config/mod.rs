//! The configuration: one TOML file and what it includes, checked whole. Every finding is reported at once
//! with its file and line. What comes out is plain data without an `Option` that means "default".

mod auth;
mod complaint;
mod delivery;
mod http;
mod nearest;
mod read;
mod secret;
mod section;
mod tenant;
#[cfg(test)]
mod tests;
pub mod unit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{HostName, TenantId};
use crate::store;

pub use auth::{Auth, Grant};
pub use complaint::{Complaint, ConfigError};
pub use delivery::{Delivery, OnDead, Refresh};
pub use http::Http;
pub use read::{Lookup, load, load_text};
pub use secret::SecretFile;
pub use tenant::{Tenant, Transport};

/// Everything the program uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The main file, as the operator knows it.
    pub file: PathBuf,
    pub store: StoreConfig,
    pub host: HostName,
    pub pool: Pool,
    pub tenants: BTreeMap<TenantId, Tenant>,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    pub path: PathBuf,
    pub segment_bytes: u64,
    pub max_bytes: u64,
    pub min_free_bytes: u64,
    pub max_chunk_bytes: u64,
    pub remember: Duration,
}

/// `[pool]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Uploads in flight, all tenants.
    pub workers: usize,
    /// What a stop waits for uploads in flight.
    pub grace: Duration,
}

impl Config {
    pub fn store_settings(&self) -> store::Settings {
        store::Settings {
            segment_bytes: self.store.segment_bytes,
            max_bytes: self.store.max_bytes,
            min_free_bytes: self.store.min_free_bytes,
            max_chunk_bytes: self.store.max_chunk_bytes,
            remember: self.store.remember,
            tenants: self.tenants.keys().cloned().collect(),
            host: self.host.clone(),
            sabotaged: crate::sabotage::Sabotaged::from_env(),
        }
    }

    /// `acme, globex`, for messages.
    pub fn tenant_names(&self) -> String {
        if self.tenants.is_empty() {
            return "none".to_owned();
        }
        let names: Vec<_> = self.tenants.keys().map(TenantId::as_str).collect();
        names.join(", ")
    }

    /// What is wrong with the secret and certificate files now. Checked by whoever is about to need them.
    pub fn secret_findings(&self) -> Vec<String> {
        let mut ways: Vec<&Http> = Vec::new();
        for tenant in self.tenants.values() {
            if !ways.contains(&&tenant.http) {
                ways.push(&tenant.http);
            }
        }
        let ways = ways.into_iter().filter_map(|way| way.reach().err());
        self.tenants
            .values()
            .filter_map(|tenant| tenant.auth.client_secret_file.finding())
            .chain(ways)
            .collect()
    }
}
