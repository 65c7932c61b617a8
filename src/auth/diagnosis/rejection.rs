//! What the platform's refusal of a token means, purely.

use std::time::Duration;

use super::{Circumstance, Refused, lacks_scope};
use crate::auth::grant::About;
use crate::auth::words::{needs_user, parenthesis, span, user_needed};
use crate::model::{FailureRecord, Missing};

/// What is wrong, and what to change.
pub fn words(record: &FailureRecord, refused: Refused<'_>, about: &About) -> (String, String) {
    let answer = answer_words(record);
    let client = about.client();
    let granted = refused.granted;
    let lacking = match &record.missing {
        Some(Missing::Scope(scope)) => Some(scope),
        _ => granted.and_then(|granted| about.scopes.iter().find(|s| !granted.contains(s))),
    };
    if about.grant == "static" {
        return of_file(refused, about, &answer);
    }
    if !refused.retry_on_401 && refused.seen != Circumstance::Fresh {
        return (
            format!(
                "{} ({answer}) and retry_on_401 is false",
                refused.seen.sentence()
            ),
            "Set retry_on_401 = true to renew tokens at once".to_owned(),
        );
    }
    if let Some(scope) = lacking {
        return (lacks_scope(scope, granted), format!("Add it to {client}"));
    }
    if needs_user(&record.message) {
        return user_needed(&client, &answer, None);
    }
    let endpoint = &about.endpoint;
    let message = record.message.to_ascii_lowercase();
    if message.contains("audience") || message.contains("issuer") {
        let audience = match about.audience.as_str() {
            "" => "audience".to_owned(),
            audience => format!("audience ({audience})"),
        };
        return (
            format!("the platform is not whom tokens from {endpoint} are meant for ({answer})"),
            format!("Check {audience}, and that token_url and api_url belong to one region"),
        );
    }
    if record.code.as_deref() == Some("credentials.expired") {
        return (
            format!("the platform calls tokens fresh from {endpoint} expired ({answer})"),
            "Compare the clocks of the token endpoint and the platform".to_owned(),
        );
    }
    (
        format!("the platform refuses tokens fresh from {endpoint} ({answer})"),
        format!(
            "Check that token_url and api_url belong to one region and organisation, and that {client} is active"
        ),
    )
}

/// A token that somebody else writes into a file.
fn of_file(refused: Refused<'_>, about: &About, answer: &str) -> (String, String) {
    let file = &about.proof_file;
    let now_s = refused.at.0.div_euclid(1000);
    let gone = refused.expires_at_s.map(|end| now_s.saturating_sub(end));
    let what = match gone.map(u64::try_from) {
        Some(Ok(gone)) => format!(
            "the token in {file} expired {} ago by its own claim ({answer})",
            span(Duration::from_secs(gone))
        ),
        _ => format!("the platform refuses the token in {file} ({answer})"),
    };
    let what = match refused.seen {
        Circumstance::Ended { age } if !matches!(gone, Some(0..)) => {
            format!("{what} after {} of use", span(age))
        }
        _ => what,
    };
    (what, format!("Write a newer token into {file}"))
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
