//! What a failure is called in a hold: one sentence what is wrong, one what to change.

use super::hold::Words;
use crate::model::{FailureClass, FailureRecord, Missing};

/// For a hold that this failure causes.
pub fn of(record: &FailureRecord) -> Words {
    let answer = answer(record);
    match record.class {
        FailureClass::Forbidden => forbidden(record, &answer),
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

/// For a throttle that no failure caused: the budget that the headers tell of is used up.
pub fn budget_used_up(allowed: Option<u64>) -> Words {
    let of = allowed.map_or(String::new(), |allowed| format!(" of {allowed}"));
    Words::new(format!("its request budget{of} is used up"), "")
}

fn forbidden(record: &FailureRecord, answer: &str) -> Words {
    match &record.missing {
        Some(Missing::Scope(scope)) => Words::new(
            format!("its token lacks the scope {scope}"),
            "Add it to its client",
        ),
        Some(Missing::Permission(permission)) => Words::new(
            format!("its client lacks the permission {permission}"),
            "Add it to a role of its client",
        ),
        Some(Missing::Unnamed) | None => Words::new(
            format!("the platform forbids its uploads ({answer})"),
            "Check scopes and permissions of its client",
        ),
    }
}

/// Status, code and message, as far as there are any.
fn answer(record: &FailureRecord) -> String {
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

    pub(crate) fn record(class: FailureClass) -> FailureRecord {
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
        assert_eq!(
            of(&record).line(),
            "its token lacks the scope analytics:screenrecordings:write. Add it to its client"
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
            let words = of(&record(class));
            assert!(!words.remedy.is_empty(), "{class}");
            assert!(
                words.reason.contains("403 missing.permissions"),
                "{}",
                words.reason
            );
        }
    }

    #[test]
    fn an_outage_says_what_the_network_said() {
        let mut record = record(FailureClass::Transient);
        record.status = None;
        record.code = None;
        record.message = "connection refused".into();
        assert_eq!(
            of(&record).line(),
            "the platform is unreachable (connection refused)"
        );
    }
}
