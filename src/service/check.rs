//! `worker check --online`: whether a token can be had, and what the platform says to it.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{CredentialHold, TokenSource, other_organization};
use crate::clock::{Clock, SystemClock};
use crate::config::{Mint, Tenant};
use crate::control::wire::{Finding, Level};
use crate::control::words;
use crate::model::{FailureClass, FailureRecord, Token};
use crate::platform::{Owner, owner};

/// What is to be said of one slot of a tenant.
pub async fn token(
    what: String,
    slot: &Arc<dyn TokenSource>,
    mint: &Mint,
    tenant: &Tenant,
) -> Finding {
    let (level, message) = match looked(slot, mint, tenant).await {
        Ok(had) => (Level::Ok, had),
        Err((level, message)) => (level, message),
    };
    Finding {
        what,
        level,
        message,
    }
}

type Looked = Result<String, (Level, String)>;

async fn looked(slot: &Arc<dyn TokenSource>, mint: &Mint, tenant: &Tenant) -> Looked {
    let token = slot.token().await.map_err(held)?;
    if let Some(lack) = lacking(mint.grant.scopes(), slot.granted_scopes().as_deref()) {
        return Err((Level::Critical, lack));
    }
    let organization = accepted(slot, tenant, token).await?;
    let wanted = tenant.organization.clone().or_else(|| slot.organization());
    if let (Some(told), Some(wanted)) = (&organization, &wanted)
        && told != wanted
    {
        let client = slot.client_id();
        let whom = client.map_or_else(|| "its client".to_owned(), |id| format!("client {id}"));
        let (reason, remedy) = other_organization(told, wanted, &whom);
        return Err((Level::Critical, line(&reason, &remedy)));
    }
    let life = slot.view().expires_in_s.map(Duration::from_secs);
    let life = life.map_or_else(String::new, |life| {
        format!(", valid for {}", words::span(life))
    });
    let whose = organization.or_else(|| slot.organization());
    let whose = whose.map_or_else(String::new, |name| format!(", of organisation {name}"));
    Ok(format!("had{life}{whose}"))
}

fn held(hold: CredentialHold) -> (Level, String) {
    (Level::Critical, line(&hold.reason, &hold.remedy))
}

/// The organisation that the platform names. A token may have died unnoticed, so a refused one is given up and its
/// successor has the last word.
async fn accepted(
    slot: &Arc<dyn TokenSource>,
    tenant: &Tenant,
    token: Token,
) -> Result<Option<String>, (Level, String)> {
    let reach = tenant
        .http
        .reach()
        .map_err(|what| (Level::Critical, what))?;
    let ask = async |token: &Token| owner(&reach, &tenant.api_url, token, SystemClock.wall()).await;
    let mut told = ask(&token).await;
    if is_unauthorized(&told) && slot.invalidate(token.generation) {
        let younger = slot.token().await.map_err(held)?;
        told = ask(&younger).await;
    }
    match told {
        Owner::Accepted { organization } => Ok(organization),
        Owner::Silent => Ok(None),
        Owner::Unreachable(cause) => Err((
            Level::Critical,
            format!(
                "had, and the platform at {} is unreachable ({cause})",
                tenant.api_url
            ),
        )),
        Owner::Refused(record) => Err(refused(slot, tenant, &record)),
    }
}

fn is_unauthorized(told: &Owner) -> bool {
    matches!(told, Owner::Refused(record) if record.class == FailureClass::Unauthorized)
}

fn refused(
    slot: &Arc<dyn TokenSource>,
    tenant: &Tenant,
    record: &FailureRecord,
) -> (Level, String) {
    if record.class == FailureClass::Unauthorized {
        let (reason, remedy) = slot.explain(record);
        return (Level::Critical, line(&reason, &remedy));
    }
    let level = match record.class {
        // It answers, only not now.
        FailureClass::Throttled => Level::Warning,
        _ => Level::Critical,
    };
    let url = &tenant.api_url;
    let message = &record.message;
    (
        level,
        format!(
            "had, and what answers at {url} does not know it ({message}). Check region or api_url, and any proxy between"
        ),
    )
}

/// What is wrong, and what to change if there is anything to change.
fn line(reason: &str, remedy: &str) -> String {
    if remedy.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}. {remedy}")
    }
}

/// The scopes that were asked for and not granted, where the token states its scopes at all.
fn lacking(asked: &[String], granted: Option<&[String]>) -> Option<String> {
    let granted = granted?;
    let lacking: Vec<_> = asked
        .iter()
        .filter(|scope| !granted.contains(scope))
        .map(String::as_str)
        .collect();
    if lacking.is_empty() {
        return None;
    }
    Some(format!(
        "had, and lacks {} (granted: {})",
        lacking.join(", "),
        granted.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_an_asked_scope_is_a_finding_only_where_it_states_its_scopes() {
        let scopes = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let asked = scopes(&["a:write", "b:read"]);
        assert_eq!(lacking(&asked, None), None);
        assert_eq!(
            lacking(&asked, Some(&scopes(&["b:read", "a:write", "c"]))),
            None
        );
        assert_eq!(
            lacking(&asked, Some(&scopes(&["b:read"]))).as_deref(),
            Some("had, and lacks a:write (granted: b:read)")
        );
    }
}
