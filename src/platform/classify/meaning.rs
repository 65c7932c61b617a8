//! The classification table: status, headers and body to a class. One function a family of
//! statuses, in the order of the table.

use super::{Asked, Ending, Heard, Sent, content_kind, unanswered};
use crate::model::{FailureClass, Missing, Route};
use crate::platform::ReceiptPolicy;
use crate::platform::challenge;
use crate::platform::error_body::ErrorBody;
use crate::platform::printable::keep;
use crate::platform::receipt::{self, Receipt};

/// A name of a right may be this long.
const RIGHT_KEPT: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    Delivered { duplicate: bool },
    Failed(Finding),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub class: FailureClass,
    pub missing: Option<Missing>,
    pub conflict: bool,
    /// Says it better than the body's own message.
    pub why: Option<String>,
}

impl From<FailureClass> for Finding {
    fn from(class: FailureClass) -> Self {
        Self {
            class,
            missing: None,
            conflict: false,
            why: None,
        }
    }
}

impl Finding {
    pub fn because(class: FailureClass, why: String) -> Self {
        Self {
            why: Some(why),
            ..class.into()
        }
    }

    fn conflict(why: Option<String>) -> Self {
        Self {
            conflict: true,
            why,
            ..FailureClass::Rejected.into()
        }
    }
}

pub fn of(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody) -> Meaning {
    use FailureClass::{Endpoint, Rejected, Throttled, Transient, Unauthorized, Unrecognised};
    let failed = match heard.status {
        200 | 201 | 208 => return accepted(asked, heard),
        409 => return conflict(asked, heard, error),
        401 => Finding {
            missing: claimed_scope(asked, heard, error),
            ..Unauthorized.into()
        },
        403 => forbidden(asked, heard, error),
        400 | 422 => refused(asked, heard, error),
        460 => FailureClass::DigestMismatch.into(),
        413..=415 => Rejected.into(),
        429 => Throttled.into(),
        503 if super::limits::retry_after(heard.headers).is_some() => Throttled.into(),
        408 | 425 => Transient.into(),
        402..=499 | 501 | 505..=508 | 510 | 511 => Endpoint.into(),
        500..=599 => Transient.into(),
        status => {
            let why = format!("status {status} is no receipt");
            Finding::because(Unrecognised, why)
        }
    };
    Meaning::Failed(failed)
}

/// 200, 201 and 208: delivered if the body is a receipt, else from somebody who is not the
/// platform.
fn accepted(asked: &Asked<'_>, heard: &Heard<'_>) -> Meaning {
    if asked.route == Route::Fetch {
        let (status, kind) = (heard.status, content_kind(heard));
        if heard.ending == Ending::Torn {
            let why = format!("the answer with status {status} broke off");
            return Meaning::Failed(Finding::because(unanswered(asked.sent), why));
        }
        let why = format!("status {status} {kind} is no recording");
        return Meaning::Failed(Finding::because(FailureClass::Unrecognised, why));
    }
    if asked.receipt == ReceiptPolicy::Status && asked.sent == Sent::All {
        return Meaning::Delivered {
            duplicate: heard.status == 208,
        };
    }
    let refuse = |why: String| Meaning::Failed(Finding::because(FailureClass::Unrecognised, why));
    let status = heard.status;
    match receipt::read(heard.body, asked.expected) {
        Receipt::Complete { duplicates } => {
            // What it had before it can name at once; what it never got it cannot have stored.
            if asked.sent != Sent::All && duplicates < asked.expected.parts.len() {
                return refuse(format!("status {status} came before the payload was sent"));
            }
            Meaning::Delivered {
                duplicate: duplicates > 0 || status == 208,
            }
        }
        Receipt::Absent if heard.ending == Ending::Torn => {
            let why = format!("the answer with status {status} broke off");
            Meaning::Failed(Finding::because(unanswered(asked.sent), why))
        }
        Receipt::Absent => refuse(format!(
            "status {status} {} is no receipt",
            content_kind(heard)
        )),
        Receipt::OtherSession => refuse("the receipt is for another session".into()),
        Receipt::Lacks { sequence } => refuse(format!(
            "the receipt does not say that sequence {sequence} is stored"
        )),
        Receipt::OtherDigest { sequence } => refuse(format!(
            "the receipt has another digest for sequence {sequence}"
        )),
    }
}

/// 409: stored already, being stored, or stored with other bytes.
fn conflict(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody) -> Meaning {
    let class = match receipt::read(heard.body, asked.expected) {
        Receipt::Complete { .. } => return Meaning::Delivered { duplicate: true },
        Receipt::OtherDigest { sequence } => return Meaning::Failed(other_writer(sequence)),
        _ if error.has_code("conflictdigest") => return Meaning::Failed(Finding::conflict(None)),
        _ if is_in_progress(error) => FailureClass::InDoubt,
        _ if heard.ending == Ending::Torn => unanswered(asked.sent),
        _ => FailureClass::Endpoint,
    };
    Meaning::Failed(class.into())
}

fn other_writer(sequence: u64) -> Finding {
    Finding::conflict(Some(format!(
        "other bytes are stored under sequence {sequence}: another writer uses this session id"
    )))
}

/// The code of this protocol, or the words of the Idempotency-Key draft.
fn is_in_progress(error: &ErrorBody) -> bool {
    error.has_code("inprogress")
        || error.mentions("in progress")
        || error.mentions("request is outstanding")
}

/// 400 and 422: a rejection, unless the body says otherwise.
fn refused(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody) -> Finding {
    let names_purview = error.mentions("purview");
    let mismatch = ["digestmismatch", "checksummismatch", "baddigest"];
    if heard.status == 422 && names_purview {
        FailureClass::PurviewPending.into()
    } else if error.mentions("user context") {
        // The token is of the wrong kind, which the chunk cannot help.
        FailureClass::Forbidden.into()
    } else if let Receipt::OtherDigest { sequence } = receipt::read(heard.body, asked.expected) {
        other_writer(sequence)
    } else if error.has_code("conflictdigest") {
        Finding::conflict(None)
    } else if mismatch.iter().any(|code| error.has_code(code)) || contains(heard.body, "BadDigest")
    {
        FailureClass::DigestMismatch.into()
    } else if heard.ending == Ending::Torn {
        // The part that is missing may have said otherwise.
        unanswered(asked.sent).into()
    } else {
        FailureClass::Rejected.into()
    }
}

fn forbidden(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody) -> Finding {
    let is_about_rights = error.has_code("missing")
        || error.has_code("permission")
        || error.has_code("notauthorized");
    let missing = claimed_scope(asked, heard, error).or_else(|| {
        is_about_rights.then(|| match permissions(error) {
            names if names.is_empty() => Missing::Unnamed,
            names => Missing::Permission(keep(&names, asked.secret, RIGHT_KEPT)),
        })
    });
    Finding {
        missing,
        ..FailureClass::Forbidden.into()
    }
}

/// `insufficient_scope`, in the challenge or in the body (RFC 6750 section 3.1).
fn claimed_scope(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody) -> Option<Missing> {
    let challenge = challenge::bearer(heard.headers);
    let in_challenge = challenge.error.as_deref() == Some("insufficient_scope");
    if !in_challenge && !error.has_code("insufficientscope") {
        return None;
    }
    let scope = challenge.scope.or_else(|| error.scope.clone());
    let scope = scope.map(|scope| keep(&scope, asked.secret, RIGHT_KEPT));
    Some(match scope {
        Some(scope) if !scope.is_empty() => Missing::Scope(scope),
        _ => Missing::Unnamed,
    })
}

/// "… missing the following permission(s): `recording:recording:upload`": words of several pieces
/// joined by colons.
fn permissions(error: &ErrorBody) -> String {
    let texts = error.permissions.iter().chain(&error.messages);
    let named = texts.map(|text| {
        let words = text.split(|c: char| c.is_whitespace() || "[](),;'\"".contains(c));
        let names = words
            .map(|word| word.trim_matches(['.', ':']))
            .filter(|word| {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.*:".contains(c);
                word.contains(':') && word.chars().all(plain) && !word.contains("::")
            });
        names.collect::<Vec<_>>().join(", ")
    });
    named
        .into_iter()
        .find(|names| !names.is_empty())
        .unwrap_or_default()
}

fn contains(body: &[u8], words: &str) -> bool {
    body.windows(words.len())
        .any(|window| window == words.as_bytes())
}
