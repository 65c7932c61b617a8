//! Which organisation a tenant belongs to, once its token has shown one: kept in the ledger.

use std::io;

use super::error::StoreError;
use super::inner::Inner;
use super::roll::write_ledger;
use crate::model::TenantId;

/// Organisations are identified by short ids everywhere; a claim that is longer is none.
const ORGANISATION_MAX: usize = 256;

pub fn organisation(inner: &Inner, tenant: &TenantId) -> Option<String> {
    let ledger = inner.ledger.lock().expect("no holder panics");
    ledger.organisations.get(tenant).cloned()
}

pub fn pin(inner: &Inner, tenant: &TenantId, given: &str) -> Result<(), StoreError> {
    if given.is_empty() || given.len() > ORGANISATION_MAX {
        let length = format!("an organisation has 1 to {ORGANISATION_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, length).into());
    }
    let _alone = inner.pinning.lock().expect("no holder panics");
    match organisation(inner, tenant) {
        Some(pinned) if pinned == given => return Ok(()),
        Some(pinned) => {
            return Err(StoreError::OtherOrganisation {
                tenant: tenant.clone(),
                pinned,
                given: given.to_owned(),
            });
        }
        None => {}
    }
    replace(inner, tenant, Some(given.to_owned()))?;
    Ok(())
}

pub fn unpin(inner: &Inner, tenant: &TenantId) -> Result<Option<String>, StoreError> {
    let _alone = inner.pinning.lock().expect("no holder panics");
    if organisation(inner, tenant).is_none() {
        return Ok(None);
    }
    Ok(replace(inner, tenant, None)?)
}

/// Both ledger files say so when this returns the former pin; after a fault the former one is in force.
fn replace(inner: &Inner, tenant: &TenantId, pin: Option<String>) -> io::Result<Option<String>> {
    let former = put(inner, tenant, pin);
    if let Err(error) = write_ledger(inner) {
        put(inner, tenant, former);
        return Err(error);
    }
    Ok(former)
}

fn put(inner: &Inner, tenant: &TenantId, pin: Option<String>) -> Option<String> {
    let mut ledger = inner.ledger.lock().expect("no holder panics");
    match pin {
        Some(pin) => ledger.organisations.insert(tenant.clone(), pin),
        None => ledger.organisations.remove(tenant),
    }
}
