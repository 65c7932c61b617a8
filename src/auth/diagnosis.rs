//! What is wrong with a slot, in one sentence, and what to change, in another. Pure. A reason has no full
//! stop; a remedy is an instruction with a capital letter and no full stop, or empty where waiting is all.

use std::time::Duration;

use super::CredentialHoldKind;
use super::grant::{About, MintFailure, Refusal, RefusalKind};
use super::words::{parenthesis, span};
use crate::model::{FailureClass, FailureRecord, Missing, Timestamp};

/// A failure of a slot, understood once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub kind: CredentialHoldKind,
    what: String,
    /// Said after how long it has lasted.
    cause: Option<String>,
    /// What to change; empty if there is nothing to do but wait.
    pub remedy: String,
    /// When the endpoint wants to be asked again.
    pub hint: Option<Duration>,
    /// The answer behind it, if one came.
    pub record: Option<FailureRecord>,
}

/// What the platform refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circumstance {
    /// A token that no delivery had used before.
    Fresh,
    /// A token past the end that its endpoint stated.
    Expired,
    /// A token that had worked, or was long idle, before the end that its endpoint stated.
    RevokedEarly { age: Duration, life: Duration },
}

impl Circumstance {
    /// For the log: why another token is minted.
    pub fn sentence(self) -> String {
        match self {
            Self::Fresh => "a fresh token was refused".to_owned(),
            Self::Expired => "its token expired".to_owned(),
            Self::RevokedEarly { age, life } => format!(
                "its token was revoked early, {} into a stated life of {}",
                span(age),
                span(life)
            ),
        }
    }
}

impl Diagnosis {
    /// The reason, after it has lasted for `lasting`.
    pub fn reason(&self, lasting: Duration) -> String {
        let mut reason = self.what.clone();
        if self.kind != CredentialHoldKind::Blocked && lasting >= Duration::from_secs(1) {
            reason.push_str(" for ");
            reason.push_str(&span(lasting));
        }
        if let Some(cause) = &self.cause {
            reason.push_str(&format!(" ({cause})"));
        }
        reason
    }

    /// Why a token request gave no token.
    pub fn of_mint(failure: &MintFailure, about: &About, at: Timestamp) -> Self {
        match failure {
            MintFailure::Secret(error) => Self {
                what: chain(error),
                ..Self::blocked("")
            },
            MintFailure::Unreachable { cause } => Self {
                cause: Some(cause.clone()),
                ..Self::outage(format!("token endpoint {} unreachable", about.endpoint))
            },
            MintFailure::Refused(refusal) => {
                let (mut diagnosis, class) = of_refusal(refusal, about);
                diagnosis.hint = refusal.retry_after;
                diagnosis.record = Some(record(refusal, class, at, &diagnosis.what));
                diagnosis
            }
        }
    }

    /// Why the platform's 401s close the slot. `granted`: the scopes that the refused token states.
    pub fn of_rejection(
        record: &FailureRecord,
        seen: Circumstance,
        retry_on_401: bool,
        granted: Option<&[String]>,
        about: &About,
    ) -> Self {
        let answer = answer_words(record);
        let lacking = match &record.missing {
            Some(Missing::Scope(scope)) => Some(scope),
            _ => granted.and_then(|granted| about.scopes.iter().find(|s| !granted.contains(s))),
        };
        let client = &about.client_id;
        let (what, remedy) = if !retry_on_401 && seen != Circumstance::Fresh {
            (
                format!("{} ({answer}) and retry_on_401 is false", seen.sentence()),
                "Set retry_on_401 = true to renew tokens at once".to_owned(),
            )
        } else if let Some(scope) = lacking {
            (
                lacks_scope(scope, granted),
                format!("Add it to client {client}"),
            )
        } else if record.code.as_deref() == Some("credentials.expired") {
            (
                format!(
                    "the platform calls tokens fresh from {} expired ({answer})",
                    about.endpoint
                ),
                "Compare the clocks of the token endpoint and the platform".to_owned(),
            )
        } else {
            (
                format!(
                    "the platform refuses tokens fresh from {} ({answer})",
                    about.endpoint
                ),
                format!(
                    "Check that token_url and api_url belong to one region and organisation, and that client {client} is active"
                ),
            )
        };
        Self {
            what,
            record: Some(record.clone()),
            ..Self::blocked(remedy)
        }
    }

    fn blocked(remedy: impl Into<String>) -> Self {
        Self {
            kind: CredentialHoldKind::Blocked,
            what: String::new(),
            cause: None,
            remedy: remedy.into(),
            hint: None,
            record: None,
        }
    }

    fn outage(what: String) -> Self {
        Self {
            kind: CredentialHoldKind::Outage,
            what,
            ..Self::blocked("")
        }
    }
}

/// `its token lacks the scope a (granted: b)`
pub fn lacks_scope(scope: &str, granted: Option<&[String]>) -> String {
    match granted {
        Some([]) => format!("its token lacks the scope {scope} (granted: none)"),
        Some(names) => format!(
            "its token lacks the scope {scope} (granted: {})",
            names.join(" ")
        ),
        None => format!("its token lacks the scope {scope}"),
    }
}

/// A refusal's diagnosis, but for what is the same for all, and its class.
fn of_refusal(refusal: &Refusal, about: &About) -> (Diagnosis, FailureClass) {
    let endpoint = &about.endpoint;
    let said = parenthesis(&[
        Some(refusal.status.to_string()),
        refusal.error.clone(),
        refusal.description.clone(),
    ]);
    if is_throttle(refusal) {
        let diagnosis = Diagnosis {
            kind: CredentialHoldKind::Throttled,
            cause: said,
            ..Diagnosis::outage(format!("token endpoint {endpoint} throttles"))
        };
        return (diagnosis, FailureClass::Throttled);
    }
    let odd = |what: &str, remedy: &str| Diagnosis {
        cause: said.clone(),
        remedy: remedy.to_owned(),
        ..Diagnosis::outage(format!("token endpoint {endpoint} {what}"))
    };
    match refusal.kind {
        RefusalKind::Error => of_error(refusal, about, said),
        RefusalKind::Html => (
            odd(
                "answers with a web page instead of a token",
                "Check token_url and any proxy between",
            ),
            FailureClass::Unrecognised,
        ),
        RefusalKind::Redirect => (
            odd(
                "redirects, which is not followed",
                "Check token_url and any proxy between",
            ),
            FailureClass::Unrecognised,
        ),
        RefusalKind::Unreadable => (
            odd("answers with something that is no token", "Check token_url"),
            FailureClass::Unrecognised,
        ),
        RefusalKind::TooLarge => (
            odd("answers with far more than a token", "Check token_url"),
            FailureClass::Unrecognised,
        ),
        RefusalKind::Unusable => (
            Diagnosis {
                what: format!("token endpoint {endpoint} gives a token that is no bearer token"),
                cause: said,
                ..Diagnosis::blocked(format!(
                    "Have client {} issue bearer tokens",
                    about.client_id
                ))
            },
            FailureClass::Unrecognised,
        ),
    }
}

fn of_error(refusal: &Refusal, about: &About, said: Option<String>) -> (Diagnosis, FailureClass) {
    let (endpoint, client) = (&about.endpoint, &about.client_id);
    let code = refusal.error.as_deref().unwrap_or_default();
    if is_outage(refusal.status, code) {
        let diagnosis = Diagnosis {
            cause: said,
            ..Diagnosis::outage(format!("token endpoint {endpoint} unavailable"))
        };
        return (diagnosis, FailureClass::Transient);
    }
    let (what, remedy) = match code {
        _ if says_disabled(refusal) => (
            format!("client {client} is disabled"),
            format!("Have client {client} activated where it was made"),
        ),
        "unauthorized_client" | "unsupported_grant_type" => (
            format!("client {client} may not use the grant {}", about.grant),
            format!("Allow it for client {client}, or configure another grant"),
        ),
        "invalid_scope" => (
            format!(
                "token endpoint {endpoint} refuses the scopes asked for: {}",
                if about.scopes.is_empty() {
                    "none".to_owned()
                } else {
                    about.scopes.join(" ")
                }
            ),
            format!("Grant them to client {client}, or take them out of scopes"),
        ),
        "invalid_client" => wrong_secret(about),
        "" if refusal.status == 401 => wrong_secret(about),
        "" if matches!(refusal.status, 404 | 405 | 410 | 421) => (
            format!("there is no token endpoint at {endpoint}"),
            "Check token_url".to_owned(),
        ),
        _ => (
            format!("token endpoint {endpoint} refuses client {client}"),
            format!("Check token_url and client {client}"),
        ),
    };
    let class = match refusal.status {
        401 => FailureClass::Unauthorized,
        404 | 405 | 410 | 421 => FailureClass::Endpoint,
        _ => FailureClass::Forbidden,
    };
    let diagnosis = Diagnosis {
        what,
        cause: said,
        ..Diagnosis::blocked(remedy)
    };
    (diagnosis, class)
}

fn wrong_secret(about: &About) -> (String, String) {
    let client = &about.client_id;
    (
        format!(
            "token endpoint {} does not accept client {client} with its secret",
            about.endpoint
        ),
        format!(
            "Put the secret of client {client} into {}",
            about.secret_file
        ),
    )
}

/// Throttling comes as 429, and on this platform as 400 `invalid_request` with a set phrase.
fn is_throttle(refusal: &Refusal) -> bool {
    let phrase = refusal
        .description
        .as_deref()
        .is_some_and(|said| said.to_ascii_lowercase().starts_with("rate limit exceeded"));
    refusal.status == 429
        || (refusal.status == 503 && refusal.retry_after.is_some())
        || (phrase && refusal.error.as_deref() == Some("invalid_request"))
        || matches!(
            refusal.error.as_deref(),
            Some("slow_down" | "too.many.requests")
        )
}

fn is_outage(status: u16, code: &str) -> bool {
    matches!(status, 408 | 425 | 500..)
        || matches!(code, "server_error" | "temporarily_unavailable")
}

fn says_disabled(refusal: &Refusal) -> bool {
    let said = refusal
        .description
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    [
        "disabled",
        "inactive",
        "not active",
        "deactivated",
        "suspended",
    ]
    .iter()
    .any(|word| said.contains(word))
}

fn record(refusal: &Refusal, class: FailureClass, at: Timestamp, what: &str) -> FailureRecord {
    FailureRecord {
        at,
        class,
        status: Some(refusal.status),
        code: refusal.error.clone(),
        correlation_id: refusal.correlation_id.clone(),
        fields: Vec::new(),
        missing: None,
        message: refusal
            .description
            .clone()
            .unwrap_or_else(|| what.to_owned()),
        body: refusal.body.clone(),
        token_generation: None,
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}

/// `401 bad.credentials: Invalid login credentials.`
fn answer_words(record: &FailureRecord) -> String {
    let status = record
        .status
        .map_or_else(|| "401".to_owned(), |s| s.to_string());
    let message = record.message.trim_end_matches('.');
    let message = (!message.is_empty()).then(|| message.to_owned());
    parenthesis(&[Some(status), record.code.clone(), message]).unwrap_or_default()
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
