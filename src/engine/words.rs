//! What a failure is called in a hold: one sentence what is wrong, one what to change.

use super::hold::Words;
use crate::auth;
use crate::model::{FailureClass, FailureRecord, Missing};

/// What the token slot knows of its tokens.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub id: Option<String>,
    /// The scopes that the newest token states, if it states any.
    pub granted: Option<Vec<String>>,
}

/// For a hold that this failure causes.
pub fn of(record: &FailureRecord, client: &Client) -> Words {
    let answer = answer(record);
    match record.class {
        FailureClass::Forbidden => forbidden(record, client, &answer),
        FailureClass::Unrecognised => Words::new(
            format!("what answers is not the platform ({answer}, and no receipt)"),
            "Check api_url, and what stands between: a proxy, a captive portal",
        ),
        FailureClass::Endpoint => Words::new(
            format!("the platform refuses its uploads ({answer})"),
            "Check region or api_url, path and the plan of its organisation",
        ),
        FailureClass::PurviewPending => Words::new(
            format!("the platform refuses its uploads for their purview ({answer})"),
            "Check the organisation and purview of its client",
        ),
        FailureClass::Rejected => Words::new(
            format!("the platform refuses the chunks of every session ({answer})"),
            "Check path and transport against what the platform expects; nothing was set aside",
        ),
        FailureClass::Throttled => {
            Words::new(format!("the platform asks for patience ({answer})"), "")
        }
        _ => Words::new(format!("the platform is unreachable ({answer})"), ""),
    }
}

/// For a hold of a storage host's route that this failure causes.
pub fn of_store_host(record: &FailureRecord) -> Words {
    let answer = answer(record);
    match record.class {
        FailureClass::Throttled => {
            Words::new(format!("the storage host asks for patience ({answer})"), "")
        }
        FailureClass::Transient | FailureClass::InDoubt => {
            Words::new(format!("the storage host is unreachable ({answer})"), "")
        }
        _ => Words::new(
            format!("the storage host refuses its uploads ({answer})"),
            "Check what the platform signs its upload URLs with, and what stands between: a proxy, a clock",
        ),
    }
}

/// For a throttle that no failure caused: the budget that the headers tell of is used up.
pub fn budget_used_up(allowed: Option<u64>) -> Words {
    let of = allowed.map_or(String::new(), |allowed| format!(" of {allowed}"));
    Words::new(format!("its request budget{of} is used up"), "")
}

fn forbidden(record: &FailureRecord, client: &Client, answer: &str) -> Words {
    let name = match &client.id {
        Some(id) => format!("client {id}"),
        None => "its client".to_owned(),
    };
    if auth::needs_user(&record.message) {
        let (reason, remedy) = auth::user_needed(&name, answer, None);
        return Words::new(reason, remedy);
    }
    match &record.missing {
        Some(Missing::Scope(scope)) => Words::new(
            format!(
                "its token lacks the scope {scope}{}",
                granted(client, scope)
            ),
            format!("Add it to {name}"),
        ),
        Some(Missing::Permission(permission)) => Words::new(
            format!("its client lacks the permission {permission}"),
            format!("Add it to a role of {name}"),
        ),
        Some(Missing::Unnamed) | None => Words::new(
            format!("the platform forbids its uploads ({answer})"),
            format!("Check scopes and permissions of {name}"),
        ),
    }
}

/// Nothing where the token still states the scope: it was taken from a live one, and the statement is out of date.
fn granted(client: &Client, missing: &String) -> String {
    match client.granted.as_deref() {
        None => String::new(),
        Some(scopes) if scopes.contains(missing) => String::new(),
        Some([]) => " (granted: none)".to_owned(),
        Some(scopes) => format!(" (granted: {})", scopes.join(" ")),
    }
}

/// A 401 with what became of the token, where that is known: `Invalid login credentials (its token expired)`.
pub fn add_fate(record: &mut FailureRecord, fate: Option<String>) {
    let Some(fate) = fate else { return };
    let said = record.message.trim_end_matches('.');
    record.message = match said {
        "" => format!("its token {fate}"),
        said => format!("{said} (its token {fate})"),
    };
}

/// Status, code and message, as far as there are any.
pub fn answer(record: &FailureRecord) -> String {
    let status = record.status.map(|status| status.to_string());
    let parts = [status.as_deref(), record.code.as_deref()];
    let head = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    match (head.is_empty(), record.message.is_empty()) {
        (true, true) => "no answer".to_owned(),
        (true, false) => record.message.clone(),
        (false, true) => head,
        (false, false) => format!("{head}: {}", record.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn record(class: FailureClass) -> FailureRecord {
        FailureRecord {
            at: Timestamp(0),
            class,
            status: Some(403),
            code: Some("missing.permissions".into()),
            correlation_id: None,
            fields: vec![],
            missing: None,
            message: String::new(),
            body: String::new(),
            token_generation: None,
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        }
    }

    #[test]
    fn a_missing_scope_is_named_with_what_to_do() {
        let mut record = record(FailureClass::Forbidden);
        record.missing = Some(Missing::Scope("analytics:screenrecordings:write".into()));
        let client = Client {
            id: Some("5b1c9e".into()),
            granted: Some(vec!["screenshare:read".into()]),
        };
        assert_eq!(
            of(&record, &client).line(),
            "its token lacks the scope analytics:screenrecordings:write (granted: screenshare:read). Add it to client 5b1c9e"
        );
        assert_eq!(
            of(&record, &Client::default()).line(),
            "its token lacks the scope analytics:screenrecordings:write. Add it to its client"
        );
    }

    #[test]
    fn a_service_token_where_a_users_is_wanted_is_told_which_grants_would_do() {
        let mut record = record(FailureClass::Forbidden);
        record.message = "This request requires a user context.".into();
        let words = of(&record, &Client::default());
        assert_eq!(
            words.line(),
            "the platform wants a token that acts for a user, and that of its client is a service token \
             (403 missing.permissions: This request requires a user context.). \
             Configure grant = \"jwt_bearer\" or \"refresh_token\""
        );
    }

    #[test]
    fn a_scope_taken_from_a_live_token_is_not_said_to_be_granted() {
        let mut record = record(FailureClass::Forbidden);
        record.missing = Some(Missing::Scope("a:write".into()));
        let client = Client {
            id: Some("5b1c9e".into()),
            granted: Some(vec!["a:write".into(), "b".into()]),
        };
        assert_eq!(
            of(&record, &client).line(),
            "its token lacks the scope a:write. Add it to client 5b1c9e"
        );
    }

    #[test]
    fn every_hold_that_needs_a_person_says_what_to_change() {
        for class in [
            FailureClass::Forbidden,
            FailureClass::Unrecognised,
            FailureClass::Endpoint,
            FailureClass::PurviewPending,
            FailureClass::Rejected,
        ] {
            let words = of(&record(class), &Client::default());
            assert!(!words.remedy.is_empty(), "{class}");
            assert!(
                words.reason.contains("403 missing.permissions"),
                "{}",
                words.reason
            );
        }
    }

    #[test]
    fn a_401_says_what_became_of_the_token() {
        let mut record = record(FailureClass::Unauthorized);
        record.message = "Invalid login credentials.".into();
        add_fate(&mut record, None);
        assert_eq!(record.message, "Invalid login credentials.");
        add_fate(&mut record, Some("expired".into()));
        assert_eq!(
            record.message,
            "Invalid login credentials (its token expired)"
        );
    }

    #[test]
    fn an_outage_says_what_the_network_said() {
        let mut record = record(FailureClass::Transient);
        record.status = None;
        record.code = None;
        record.message = "connection refused".into();
        assert_eq!(
            of(&record, &Client::default()).line(),
            "the platform is unreachable (connection refused)"
        );
    }
}
