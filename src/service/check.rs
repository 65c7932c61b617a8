//! `worker check --online`: whether a token can be had, and what the platform says to it.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{CredentialHold, CredentialHoldKind, TokenSource};
use crate::clock::{Clock, SystemClock};
use crate::config::{Mint, Tenant};
use crate::control::wire::{Finding, Level};
use crate::control::words;
use crate::model::{FailureClass, FailureRecord, Token};
use crate::platform::{Owner, owner};

use super::witness::path_of;

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
    let whom = slot
        .client_id()
        .map_or_else(|| "its client".to_owned(), |id| format!("client {id}"));
    let complete = || {
        let granted = slot.granted_scopes();
        match lacking(mint.grant.scopes(), granted.as_deref(), &whom) {
            Some(lack) => Err((Level::Critical, lack)),
            None => Ok(()),
        }
    };
    complete()?;
    let (organization, before) = accepted(slot, tenant, token).await?;
    // It may be a younger one now.
    complete()?;
    let life = slot.view().expires_in_s.map(Duration::from_secs);
    let life = life.map_or_else(String::new, |life| {
        format!(", valid for {}", words::span(life))
    });
    let whose = organization.or_else(|| slot.organization());
    let whose = whose.map_or_else(String::new, |name| format!(", of organisation {name}"));
    let before = before.map_or_else(String::new, |fate| format!("; the one before {fate}"));
    Ok(format!("had{life}{whose}{before}"))
}

fn held(hold: CredentialHold) -> (Level, String) {
    let level = match hold.kind {
        CredentialHoldKind::Blocked => Level::Critical,
        // Nobody has to do anything, as its gate says too.
        CredentialHoldKind::Outage | CredentialHoldKind::Throttled => Level::Warning,
    };
    (level, line(&hold.reason, &hold.remedy))
}

/// The organisation that the platform names, which the slot is told: what is found here and what is done there are one. A token may have died unnoticed, so a refused one is given up and its
/// successor has the last word. With it, what became of the refused one.
async fn accepted(
    slot: &Arc<dyn TokenSource>,
    tenant: &Tenant,
    token: Token,
) -> Result<(Option<String>, Option<String>), (Level, String)> {
    let reach = tenant
        .http
        .reach()
        .map_err(|what| (Level::Critical, what))?;
    let place = (tenant.api_url.as_str(), path_of(tenant));
    let ask = async |token: &Token| owner(&reach, place, token, SystemClock.wall()).await;
    let mut generation = token.generation;
    let mut told = ask(&token).await;
    let fate = slot
        .fate(token.generation)
        .filter(|_| is_unauthorized(&told));
    if is_unauthorized(&told) && slot.invalidate(token.generation) {
        let younger = slot.token().await.map_err(held)?;
        generation = younger.generation;
        told = ask(&younger).await;
    }
    match told {
        Owner::Accepted { organization } => {
            let name = organization.as_deref();
            match name.and_then(|name| slot.told(generation, name)) {
                Some(hold) => Err(held(hold)),
                None => Ok((organization, fate)),
            }
        }
        Owner::Silent => Ok((None, fate)),
        Owner::Unreachable(cause) => Err((
            Level::Critical,
            format!(
                "had, and the platform at {} is unreachable ({cause}). Check region or api_url, and what stands between: a firewall, a proxy",
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
fn lacking(asked: &[String], granted: Option<&[String]>, whom: &str) -> Option<String> {
    let granted = granted?;
    let lacking: Vec<_> = asked
        .iter()
        .filter(|scope| !granted.contains(scope))
        .map(String::as_str)
        .collect();
    if lacking.is_empty() {
        return None;
    }
    let them = match lacking.as_slice() {
        [_] => "it",
        _ => "them",
    };
    let granted = match granted {
        [] => "none".to_owned(),
        granted => granted.join(", "),
    };
    Some(format!(
        "had, and lacks {} (granted: {granted}). Add {them} to {whom}",
        lacking.join(", "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_token_without_an_asked_scope_is_a_finding_only_where_it_states_its_scopes() {
        let scopes = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let asked = scopes(&["a:write", "b:read"]);
        let lacking = |granted: Option<&[&str]>| {
            let granted = granted.map(scopes);
            lacking(&asked, granted.as_deref(), "client 5b1c9e")
        };
        assert_eq!(lacking(None), None);
        assert_eq!(lacking(Some(&["b:read", "a:write", "c"])), None);
        assert_eq!(
            lacking(Some(&["b:read"])).as_deref(),
            Some("had, and lacks a:write (granted: b:read). Add it to client 5b1c9e")
        );
        assert_eq!(
            lacking(Some(&[])).as_deref(),
            Some("had, and lacks a:write, b:read (granted: none). Add them to client 5b1c9e")
        );
    }

    #[test]
    fn what_passes_by_itself_is_a_warning_here_as_at_the_gate() {
        for (kind, level) in [
            (CredentialHoldKind::Blocked, Level::Critical),
            (CredentialHoldKind::Throttled, Level::Warning),
            (CredentialHoldKind::Outage, Level::Warning),
        ] {
            let hold = CredentialHold {
                kind,
                reason: "r".into(),
                remedy: String::new(),
                since: Timestamp(0),
                until: crate::clock::Instant::default(),
                probes_failed: 0,
                last: None,
            };
            assert_eq!(held(hold).0, level, "{kind:?}");
        }
    }
}
