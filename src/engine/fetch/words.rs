//! What holds a tenant's recordings, in words: one sentence what is wrong, one what to change.

use crate::auth;
use crate::engine::hold::Words;
use crate::engine::words::{self, Client};
use crate::model::{FailureClass, FailureRecord, Missing, TenantId};
use crate::platform::fetch::{FETCH_PERMISSIONS, FETCH_SCOPES};

/// A refusal that another kind of token would have cured, had there been one. What to change comes first: the platform's
/// own words may be cut.
pub fn without_fallback(why: Words, refusal: &str) -> String {
    format!(
        "the fallback token is not to be had: {}; the other one was refused: {refusal}",
        why.line()
    )
}

/// Whose tokens were refused.
pub struct Whose<'a> {
    pub tenant: &'a TenantId,
    /// There is another kind of token.
    pub has_fallback: bool,
    pub client: Client,
}

pub fn of(record: &FailureRecord, whose: &Whose<'_>) -> Words {
    let client = &whose.client;
    let name = client
        .id
        .as_ref()
        .map_or("its client".to_owned(), |id| format!("client {id}"));
    match (record.class, &record.missing) {
        (FailureClass::Forbidden, _) if auth::needs_user(&record.message) => {
            user_needed(record, whose, &name)
        }
        (FailureClass::Forbidden | FailureClass::PurviewPending, Some(Missing::Scope(scope))) => {
            let granted = match client.granted.as_deref() {
                None => String::new(),
                Some([]) => " (granted: none)".to_owned(),
                Some(scopes) => format!(" (granted: {})", scopes.join(" ")),
            };
            Words::new(
                format!("recordings: its token lacks the scope {scope}{granted}"),
                format!("Add it to {name}"),
            )
        }
        (FailureClass::Forbidden, Some(Missing::Permission(permission))) => Words::new(
            format!("recordings: its client lacks the permission {permission}"),
            format!("Add it to a role of {name}"),
        ),
        (FailureClass::Forbidden, _) => Words::new(
            format!(
                "recordings: the platform forbids them ({})",
                words::answer(record)
            ),
            format!(
                "Check that {name} has the scopes {} and the permissions {}",
                FETCH_SCOPES.join(" "),
                FETCH_PERMISSIONS.join(", ")
            ),
        ),
        (FailureClass::PurviewPending, _) => Words::new(
            format!(
                "recordings: refused for the purview of the token ({})",
                words::answer(record)
            ),
            "Take the token of the tenant's own organisation",
        ),
        (FailureClass::Endpoint | FailureClass::Unrecognised, _) => Words::new(
            format!(
                "recordings: what answers does not know them ({})",
                words::answer(record)
            ),
            "Check api_url, and path and list_path of its recordings",
        ),
        (FailureClass::Throttled, _) => Words::new(
            format!(
                "recordings: the platform asks for patience ({})",
                words::answer(record)
            ),
            "",
        ),
        _ => Words::new(
            format!(
                "recordings: the platform is unreachable ({})",
                words::answer(record)
            ),
            "",
        ),
    }
}

fn user_needed(record: &FailureRecord, whose: &Whose<'_>, name: &str) -> Words {
    let answer = words::answer(record);
    if !whose.has_fallback {
        let (reason, remedy) = auth::user_needed(name, &answer, Some(whose.tenant));
        return Words::new(format!("recordings: {reason}"), remedy);
    }
    Words::new(
        format!("recordings: the platform wants a token that acts for a user ({answer})"),
        format!(
            "Check that [tenants.{}.auth.fallback] is of grant \"jwt_bearer\" or \"refresh_token\", and its token to be had",
            whose.tenant
        ),
    )
}

pub fn budget_used_up() -> Words {
    Words::new("recordings: its request budget is used up", "")
}

pub fn other_organization(own: &str, named: &[String]) -> String {
    format!(
        "its token speaks for {}, the tenant is {own}",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn record(class: FailureClass) -> FailureRecord {
        FailureRecord {
            at: Timestamp(0),
            class,
            status: Some(422),
            code: Some("purview.mismatch".into()),
            correlation_id: None,
            fields: vec!["purview".into()],
            missing: None,
            message: "no match".into(),
            body: String::new(),
            token_generation: None,
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        }
    }

    fn said(record: &FailureRecord, client: Client, has_fallback: bool) -> Words {
        let tenant = "acme".parse().unwrap();
        let whose = Whose {
            tenant: &tenant,
            has_fallback,
            client,
        };
        of(record, &whose)
    }

    /// Seen: "Check that it has the scopes …", which no scope cures.
    #[test]
    fn a_service_token_where_a_users_is_wanted_is_told_where_to_configure_one() {
        let record = FailureRecord {
            status: Some(400),
            code: Some("bad.request".into()),
            message: "This request requires a user context.".into(),
            ..record(FailureClass::Forbidden)
        };
        assert_eq!(
            said(&record, Client::default(), false).line(),
            "recordings: the platform wants a token that acts for a user, and that of its client is a service token \
             (400 bad.request: This request requires a user context.). \
             Configure [tenants.acme.auth.fallback] with grant = \"jwt_bearer\" or \"refresh_token\""
        );
        assert_eq!(
            said(&record, Client::default(), true).line(),
            "recordings: the platform wants a token that acts for a user \
             (400 bad.request: This request requires a user context.). \
             Check that [tenants.acme.auth.fallback] is of grant \"jwt_bearer\" or \"refresh_token\", and its token to be had"
        );
    }

    #[test]
    fn a_422_that_is_a_missing_scope_names_it_and_the_client() {
        let record = FailureRecord {
            missing: Some(Missing::Scope("screenshare:read screenshare:write".into())),
            ..record(FailureClass::PurviewPending)
        };
        let client = Client {
            id: Some("5b1c9e".into()),
            granted: Some(vec!["analytics:screenrecordings:write".into()]),
        };
        assert_eq!(
            said(&record, client, false).line(),
            "recordings: its token lacks the scope screenshare:read screenshare:write \
             (granted: analytics:screenrecordings:write). Add it to client 5b1c9e"
        );
    }

    #[test]
    fn every_block_says_what_to_change() {
        for class in [
            FailureClass::Forbidden,
            FailureClass::PurviewPending,
            FailureClass::Endpoint,
            FailureClass::Unrecognised,
        ] {
            let words = said(&record(class), Client::default(), false);
            assert!(!words.remedy.is_empty(), "{class}");
            assert!(
                words.reason.contains("422 purview.mismatch: no match"),
                "{}",
                words.reason
            );
        }
        let forbidden = said(&record(FailureClass::Forbidden), Client::default(), false).remedy;
        assert!(
            forbidden.contains("screenshare:read screenshare:write"),
            "{forbidden}"
        );
        assert!(
            forbidden.contains("read:screen_recording, admin:screen_recording"),
            "{forbidden}"
        );
    }
}
