//! What is wrong with a slot, in one sentence, and what to change, in another. Pure. A reason has no full
//! stop; a remedy is an instruction with a capital letter and no full stop, or empty where waiting is all.

mod refusal;
mod rejection;

use std::time::Duration;

use super::CredentialHoldKind;
use super::grant::{About, MintFailure, Refusal};
use super::words::{other_organization, span};
use crate::clock::Instant;
use crate::model::{FailureClass, FailureRecord, Timestamp};

/// A failure of a slot, understood once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub kind: CredentialHoldKind,
    what: String,
    /// Said after how long it has lasted.
    cause: Option<String>,
    /// `what` says how long it has lasted.
    says_how_long: bool,
    /// What to change; empty if there is nothing to do but wait.
    pub remedy: String,
    /// When the endpoint wants to be asked again.
    pub hint: Option<Duration>,
    /// When the slot that this one waits for tries again: earlier is in vain, later is late.
    pub until: Option<Instant>,
    /// The answer behind it, if one came.
    pub record: Option<FailureRecord>,
}

/// The shortest idle timeout in the field: an unused token older than that may have died of it.
pub const SHORTEST_IDLE: Duration = Duration::from_secs(5 * 60);

/// What the platform refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circumstance {
    /// A token that no delivery had used before.
    Fresh,
    /// A token past the end that its endpoint stated.
    Expired,
    /// A token that had worked, or was long idle, before the end that its endpoint stated.
    RevokedEarly { age: Duration, life: Duration },
    /// A token that had worked, and whose end nobody stated.
    Ended { age: Duration },
}

/// A token that the platform refused, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub seen: Circumstance,
    pub retry_on_401: bool,
    /// The scopes that it states.
    pub granted: Option<&'a [String]>,
    /// The end that it claims, in seconds after the Unix epoch.
    pub expires_at_s: Option<i64>,
    pub at: Timestamp,
}

impl Circumstance {
    /// Why another token is minted.
    pub fn sentence(self) -> String {
        match self {
            Self::Fresh => "a fresh token was refused".to_owned(),
            older => format!("its token {}", older.fate().unwrap_or_default()),
        }
    }

    /// What became of a token that was not fresh.
    pub fn fate(self) -> Option<String> {
        Some(match self {
            Self::Fresh => return None,
            Self::Expired => "expired".to_owned(),
            Self::RevokedEarly { age, life } => {
                let perhaps = match age >= SHORTEST_IDLE {
                    true => ", perhaps by an idle timeout",
                    false => "",
                };
                let (age, life) = (span(age), span(life));
                format!("was revoked early{perhaps}, {age} into a stated life of {life}")
            }
            Self::Ended { age } => format!("ended after {} of use", span(age)),
        })
    }
}

impl Diagnosis {
    /// The reason, after it has lasted for `lasting`.
    pub fn reason(&self, lasting: Duration) -> String {
        let mut reason = self.what.clone();
        let blocked = self.kind == CredentialHoldKind::Blocked;
        if !blocked && !self.says_how_long && lasting >= Duration::from_secs(1) {
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
            MintFailure::Key(error) => Self {
                what: error.to_string(),
                ..Self::blocked("")
            },
            MintFailure::Keep { path, source } => Self {
                what: format!(
                    "the newest refresh token of {} cannot be kept in {}: {source}",
                    about.client(),
                    path.display()
                ),
                ..Self::blocked(
                    "Repair that disk before a restart: until it is written the token is in memory alone",
                )
            },
            MintFailure::Subject(hold) => Self {
                kind: hold.kind,
                what: format!("the token to exchange is not to be had: {}", hold.reason),
                says_how_long: true,
                until: Some(hold.until),
                record: hold.last.clone(),
                ..Self::blocked(hold.remedy.clone())
            },
            MintFailure::Unreachable { cause } => Self {
                cause: Some(cause.clone()),
                ..Self::outage(format!("token endpoint {} unreachable", about.endpoint))
            },
            MintFailure::Refused(refusal) => {
                let (mut diagnosis, class) = refusal::read(refusal, about);
                diagnosis.hint = refusal.retry_after;
                diagnosis.record = Some(record(refusal, class, at, &diagnosis.what));
                diagnosis
            }
        }
    }

    /// Why the platform's 401s close the slot.
    pub fn of_rejection(record: &FailureRecord, refused: Refused<'_>, about: &About) -> Self {
        let (what, remedy) = rejection::words(record, refused, about);
        Self {
            what,
            record: Some(record.clone()),
            ..Self::blocked(remedy)
        }
    }

    /// Why a token is not used though nobody refused it: it shows organisations, and not the one that was stated or pinned.
    /// `unused`: it never was.
    pub fn of_organization(shown: &str, wanted: &str, unused: bool, about: &About) -> Self {
        let whom = match about.audience.as_str() {
            "" => about.client(),
            audience => format!("{} and audience {audience}", about.client()),
        };
        let (what, remedy) = other_organization(shown, wanted, &whom);
        Self {
            what: match unused {
                true => format!("{what}; nothing was sent"),
                false => what,
            },
            ..Self::blocked(remedy)
        }
    }

    fn blocked(remedy: impl Into<String>) -> Self {
        Self {
            kind: CredentialHoldKind::Blocked,
            what: String::new(),
            cause: None,
            says_how_long: false,
            remedy: remedy.into(),
            hint: None,
            until: None,
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
