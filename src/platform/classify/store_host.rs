//! The same table for storage hosts: they speak XML, know nothing of tokens, and their receipt is a checksum.

use super::meaning::{Finding, Meaning};
use super::{Asked, Heard, Sent};
use crate::model::FailureClass;
use crate::platform::ReceiptPolicy;
use crate::platform::checksum::{Checksums, Match};
use crate::platform::error_body::ErrorBody;
use crate::platform::limits;

pub fn of(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody, sums: &Checksums) -> Meaning {
    use FailureClass::{
        DigestMismatch, Endpoint, Rejected, Throttled, Transient, Unrecognised, UrlExpired,
    };
    let class = match heard.status {
        200 | 201 | 204 => return stored(asked, heard, sums),
        400 | 403 if is_url_expired(error) => UrlExpired,
        400 | 422 if is_other_bytes(error) => DigestMismatch,
        460 => DigestMismatch,
        400 if error.has_code("requesttimeout") => Transient,
        400 | 412..=415 | 422 => Rejected,
        429 => Throttled,
        503 if limits::retry_after(heard.headers).is_some() || error.has_code("slowdown") => {
            Throttled
        }
        408 | 409 | 425 => Transient,
        // 401 and 403 too: no token was sent, so none can be to blame.
        401..=499 | 501 | 505..=508 | 510 | 511 => Endpoint,
        500..=599 => Transient,
        status => {
            let why = format!("status {status} of the storage host is no receipt");
            return Meaning::Failed(Finding::because(Unrecognised, why));
        }
    };
    Meaning::Failed(class.into())
}

fn stored(asked: &Asked<'_>, heard: &Heard<'_>, sums: &Checksums) -> Meaning {
    let status = heard.status;
    let refuse = |why: String| Meaning::Failed(Finding::because(FailureClass::Unrecognised, why));
    if asked.sent != Sent::All {
        return refuse(format!("status {status} came before the payload was sent"));
    }
    match sums.compare(heard.headers) {
        Match::Same => Meaning::Delivered { duplicate: false },
        Match::Untold if asked.receipt == ReceiptPolicy::Status => {
            Meaning::Delivered { duplicate: false }
        }
        Match::Untold => refuse(format!(
            "status {status} of the storage host names no checksum that is the payload's"
        )),
        Match::Other => refuse("the storage host has another checksum".into()),
    }
}

/// The words of storage hosts.
fn is_url_expired(error: &ErrorBody) -> bool {
    error.has_code("expiredtoken") || error.mentions("request has expired")
}

fn is_other_bytes(error: &ErrorBody) -> bool {
    [
        "baddigest",
        "checksummismatch",
        "sha256mismatch",
        "digestmismatch",
    ]
    .iter()
    .any(|code| error.has_code(code))
}
