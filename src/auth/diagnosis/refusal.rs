//! What a token endpoint's refusal means, purely.

use std::time::Duration;

use super::Diagnosis;
use crate::auth::CredentialHoldKind;
use crate::auth::grant::{About, Proof, Refusal, RefusalKind};
use crate::auth::words::{parenthesis, span};
use crate::model::FailureClass;

/// A refusal's diagnosis, but for what is the same for all, and its class.
pub fn read(refusal: &Refusal, about: &About) -> (Diagnosis, FailureClass) {
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
        RefusalKind::Unusable if about.grant == "static" => (
            Diagnosis {
                what: format!("{} holds no bearer token", about.proof_file),
                ..Diagnosis::blocked(format!("Write a token into {}", about.proof_file))
            },
            FailureClass::Unrecognised,
        ),
        RefusalKind::Unusable => (
            Diagnosis {
                what: format!("token endpoint {endpoint} gives a token that is no bearer token"),
                cause: said,
                ..Diagnosis::blocked(format!("Have {} issue bearer tokens", about.client()))
            },
            FailureClass::Unrecognised,
        ),
        RefusalKind::OtherType => (
            Diagnosis {
                what: format!(
                    "token endpoint {endpoint} gives a token of another type than asked for"
                ),
                cause: said,
                ..Diagnosis::blocked("Check requested_token_type")
            },
            FailureClass::Unrecognised,
        ),
    }
}

fn of_error(refusal: &Refusal, about: &About, said: Option<String>) -> (Diagnosis, FailureClass) {
    let (endpoint, client) = (&about.endpoint, about.client());
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
            format!("{client} is disabled"),
            format!("Have {client} activated where it was made"),
        ),
        "unauthorized_client" | "unsupported_grant_type" => (
            format!("{client} may not use the grant {}", about.grant),
            format!("Allow it for {client}, or configure another grant"),
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
            format!("Grant them to {client}, or take them out of scopes"),
        ),
        "invalid_client" => wrong_secret(about),
        "invalid_target" => (
            format!(
                "token endpoint {endpoint} knows no audience {}",
                about.audience
            ),
            "Check audience and resource".to_owned(),
        ),
        "invalid_grant" | "invalid_token" | "invalid_request"
            if let Some(words) = of_proof(refusal, about) =>
        {
            words
        }
        "" if refusal.status == 401 => wrong_secret(about),
        "" if matches!(refusal.status, 404 | 405 | 410 | 421) => (
            format!("there is no token endpoint at {endpoint}"),
            "Check token_url".to_owned(),
        ),
        _ => (
            format!("token endpoint {endpoint} refuses {client}"),
            format!("Check token_url and {client}"),
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
    let client = about.client();
    if about.secret_file.is_empty() {
        return (
            format!(
                "token endpoint {} does not accept {client} without a secret",
                about.endpoint
            ),
            format!("Set client_secret_file, or have {client} allowed without one"),
        );
    }
    (
        format!(
            "token endpoint {} does not accept {client} with its secret",
            about.endpoint
        ),
        format!("Put the secret of {client} into {}", about.secret_file),
    )
}

/// Clocks that are closer than this explain no refusal: assertions are dated back by half a minute.
const SKEW_MIN_S: u64 = 30;

/// Why an assertion, a refresh token or a subject token is not taken.
fn of_proof(refusal: &Refusal, about: &About) -> Option<(String, String)> {
    let (endpoint, client, file) = (&about.endpoint, about.client(), &about.proof_file);
    let said = refusal
        .description
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let is_request = refusal.error.as_deref() == Some("invalid_request");
    match refusal.about {
        Proof::Nothing => None,
        Proof::Assertion if is_request && !says(&["assertion", "jwt"]) => None,
        Proof::Assertion => Some(if let Some(skew) = skew(refusal) {
            (
                format!("token endpoint {endpoint} refuses the assertion of {client}, and {skew}"),
                "Set this host's clock".to_owned(),
            )
        } else if says(&["aud"]) {
            (
                format!(
                    "token endpoint {endpoint} is not the audience {} of the assertion",
                    about.audience
                ),
                "Set audience to what the token endpoint calls itself".to_owned(),
            )
        } else if says(&["signature", "key"]) {
            (
                format!("token endpoint {endpoint} does not know the key in {file}"),
                format!("Register the public half of {file} for {client}, or set key_id"),
            )
        } else if says(&["subject", "user", "sub "]) {
            (
                format!(
                    "token endpoint {endpoint} does not let {client} act for {}",
                    about.user
                ),
                format!("Check user, and that {client} may act for it"),
            )
        } else {
            (
                format!(
                    "token endpoint {endpoint} refuses the assertion of {client} for {}",
                    about.user
                ),
                format!("Check issuer, user, audience and {file}"),
            )
        }),
        Proof::RefreshToken if is_request && !says(&["refresh"]) => None,
        Proof::RefreshToken => Some((
            format!("the refresh token of {client} was used before, was revoked or has expired"),
            format!("Write a new refresh token into {file}"),
        )),
        Proof::SubjectToken if is_request && !says(&["subject"]) => None,
        Proof::SubjectToken => {
            let target = match about.audience.as_str() {
                "" => String::new(),
                audience => format!(" for audience {audience}"),
            };
            Some((
                format!("token endpoint {endpoint} does not exchange the subject's token{target}"),
                format!("Check [auth.subject], and that its client may exchange{target}"),
            ))
        }
    }
}

/// `this host's clock is 7 min ahead of the token endpoint's`, where it is far enough from it to matter.
fn skew(refusal: &Refusal) -> Option<String> {
    let ahead_s = refusal.clock_ahead_s?;
    let far = Duration::from_secs(ahead_s.unsigned_abs());
    let side = if ahead_s > 0 { "ahead of" } else { "behind" };
    (far.as_secs() >= SKEW_MIN_S).then(|| {
        format!(
            "this host's clock is {} {side} the token endpoint's",
            span(far)
        )
    })
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
