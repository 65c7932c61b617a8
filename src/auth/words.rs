//! The sentences about credentials that an operator reads first. Pure; each is a golden test.

use std::time::Duration;

use super::{CredentialHold, diagnosis};
use crate::clock::Instant;
use crate::model::TenantId;

/// `tenant acme is blocked: REASON. REMEDY; delivery resumes by itself within 15 min, or now: …`
pub fn blocked_sentence(tenant: &TenantId, reason: &str, remedy: &str) -> String {
    let stop = if remedy.is_empty() { "" } else { ". " };
    format!(
        "tenant {tenant} is blocked: {reason}{stop}{remedy}; delivery resumes by itself within 15 min, or now: worker tenants resume {tenant}"
    )
}

/// For a right that the platform says is missing. `granted` is what the token states, if it states any.
pub fn missing_scope_sentence(
    tenant: &TenantId,
    missing: &str,
    granted: Option<&[String]>,
    client_id: Option<&str>,
) -> String {
    let remedy = match client_id {
        Some(client) => format!("Add it to client {client}"),
        None => "Add it to the client".to_owned(),
    };
    blocked_sentence(tenant, &diagnosis::lacks_scope(missing, granted), &remedy)
}

/// For an outage or a throttle that `waiting` tenants share.
pub fn waiting_sentence(hold: &CredentialHold, waiting: usize, now: Instant) -> String {
    let tenants = if waiting == 1 {
        "1 tenant waits".to_owned()
    } else {
        format!("{waiting} tenants wait")
    };
    format!(
        "{}; {tenants}, no retries used, next try in {}",
        hold.reason,
        span(hold.until.since(now))
    )
}

/// A duration as people say it: the largest unit that it fills, rounded down.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A token of another organisation than the one that is stated or pinned: what is wrong, and what to change.
pub fn other_organization(shown: &str, wanted: &str, whom: &str) -> (String, String) {
    (
        format!("its token belongs to organisation {shown}, not {wanted}"),
        format!("Check {whom}; if {shown} is right, set organization = \"{shown}\""),
    )
}

/// The platform says that a service's token will not do.
pub fn needs_user(message: &str) -> bool {
    message.to_ascii_lowercase().contains("user context")
}

/// What is wrong then, and what to change. `fallback_of`: a tenant's fallback token would do, which is never used for uploads.
pub fn user_needed(client: &str, answer: &str, fallback_of: Option<&TenantId>) -> (String, String) {
    let grants = "grant = \"jwt_bearer\" or \"refresh_token\"";
    (
        format!(
            "the platform wants a token that acts for a user, and that of {client} is a service token ({answer})"
        ),
        match fallback_of {
            None => format!("Configure {grants}"),
            Some(tenant) => format!("Configure [tenants.{tenant}.auth.fallback] with {grants}"),
        },
    )
}

/// What somebody else said, short enough for a sentence and without anything that breaks a line.
pub(super) fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// `401 invalid_client: client not found`: what of status, code and message there is.
pub(super) fn parenthesis(parts: &[Option<String>; 3]) -> Option<String> {
    let [status, code, message] = parts;
    let head: Vec<&str> = [status, code]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    match (head.is_empty(), message) {
        (true, None) => None,
        (true, Some(message)) => Some(message.clone()),
        (false, None) => Some(head.join(" ")),
        (false, Some(message)) => Some(format!("{}: {message}", head.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::CredentialHoldKind;
    use crate::model::Timestamp;

    #[test]
    fn a_missing_scope_names_itself_the_granted_ones_and_the_client() {
        assert_eq!(
            missing_scope_sentence(
                &"acme".parse().unwrap(),
                "analytics:screenrecordings:write",
                Some(&["screenshare:read".to_owned()]),
                Some("5b1c9e"),
            ),
            "tenant acme is blocked: its token lacks the scope analytics:screenrecordings:write \
             (granted: screenshare:read). Add it to client 5b1c9e; delivery resumes by itself \
             within 15 min, or now: worker tenants resume acme"
        );
    }

    #[test]
    fn a_token_that_states_no_scopes_is_not_said_to_have_none() {
        let acme = "acme".parse().unwrap();
        let silent = missing_scope_sentence(&acme, "a", None, None);
        assert!(!silent.contains("granted"), "{silent}");
        let empty = missing_scope_sentence(&acme, "a", Some(&[]), None);
        assert!(empty.contains("(granted: none)"), "{empty}");
    }

    #[test]
    fn an_outage_says_how_long_who_waits_and_when_the_next_try_is() {
        let now = Instant(Duration::from_secs(1_000));
        let hold = CredentialHold {
            kind: CredentialHoldKind::Outage,
            reason: "token endpoint https://login.example/oauth/token unreachable for 12 min (connection refused)".into(),
            remedy: String::new(),
            since: Timestamp(0),
            until: now.saturating_add(Duration::from_secs(48)),
            probes_failed: 7,
            last: None,
        };
        assert_eq!(
            waiting_sentence(&hold, 3, now),
            "token endpoint https://login.example/oauth/token unreachable for 12 min \
             (connection refused); 3 tenants wait, no retries used, next try in 48 s"
        );
        assert!(waiting_sentence(&hold, 1, now).contains("; 1 tenant waits, "));
    }

    #[test]
    fn a_block_without_a_remedy_reads_as_one_sentence() {
        assert_eq!(
            blocked_sentence(&"acme".parse().unwrap(), "acme.secret is empty", ""),
            "tenant acme is blocked: acme.secret is empty; delivery resumes by itself within \
             15 min, or now: worker tenants resume acme"
        );
    }

    #[test]
    fn spans_are_said_in_the_largest_unit_they_fill() {
        for (seconds, want) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (720, "12 min"),
            (3_600, "1 h"),
            (86_400, "24 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), want);
        }
    }
}
