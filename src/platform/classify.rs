//! What an answer means. Every answer and every broken request becomes a verdict here and nowhere
//! else, purely: no clock, no network, no policy. The class says what was seen; what happens next
//! is decided elsewhere.

mod meaning;
mod store_host;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::checksum::Checksums;
use super::error_body::ErrorBody;
use super::limits;
use super::printable::{keep, keep_bytes};
use super::receipt::Expected;
use super::{Answer, Failure, ReceiptPolicy, Verdict};
use crate::model::{FailureClass, FailureRecord, Route, Timestamp, Token};
use meaning::{Finding, Meaning};

/// How much of an error body is kept for the operator.
const BODY_KEPT: usize = 1024;
/// How long a message, and any other single text, may be.
const MESSAGE_KEPT: usize = 512;
const WORD_KEPT: usize = 128;
const FIELDS_KEPT: usize = 16;

/// How much of a request body was handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    /// The platform cannot have the request: its length was announced and not reached.
    Part,
    /// The platform may have it.
    All,
}

/// A request, as far as its verdict depends on it.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub route: Route,
    pub receipt: ReceiptPolicy,
    pub expected: &'a Expected,
    pub sent: Sent,
    pub at: Timestamp,
    pub attempt: u32,
    pub token: &'a Token,
    /// What the answer may echo and no record may keep.
    pub secret: &'a str,
}

/// How a response body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Whole,
    /// It was longer than is read.
    Cut,
    /// The connection ended before it did.
    Torn,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Heard<'a> {
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub ending: Ending,
}

/// Why a request got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The stored payload is not what its metadata says.
    DamagedPayload,
    /// The stored payload is out of reach for now.
    UnreadablePayload,
    /// No connection: names, routes, TLS.
    Connecting,
    /// The connection broke, or a wait was too long.
    Exchanging,
    /// No header can carry the token.
    UnsendableToken,
    /// The configured URL is none.
    UnusableUrl,
}

/// The verdict on a response.
pub fn answer(asked: &Asked<'_>, heard: &Heard<'_>) -> Answer {
    let error = ErrorBody::read(heard.body);
    let limits = limits::limits(heard.headers);
    let meaning = meaning::of(asked, heard, &error);
    let verdict = verdict(asked, heard, &error, meaning);
    Answer { verdict, limits }
}

/// The verdict on a storage host's answer to a payload with these checksums.
pub fn stored(asked: &Asked<'_>, heard: &Heard<'_>, checksums: &Checksums) -> Verdict {
    let error = ErrorBody::read_xml(heard.body);
    let meaning = store_host::of(asked, heard, &error, checksums);
    verdict(asked, heard, &error, meaning)
}

/// The verdict on an answer that accepts and cannot be used.
pub fn unusable(asked: &Asked<'_>, heard: &Heard<'_>, why: &str) -> Answer {
    let why = format!("the answer with status {} {why}", heard.status);
    let class = match heard.ending {
        Ending::Torn => unanswered(asked.sent),
        Ending::Whole | Ending::Cut => FailureClass::Unrecognised,
    };
    let meaning = Meaning::Failed(Finding::because(class, why));
    Answer {
        verdict: verdict(asked, heard, &ErrorBody::default(), meaning),
        limits: limits::limits(heard.headers),
    }
}

fn verdict(asked: &Asked<'_>, heard: &Heard<'_>, error: &ErrorBody, meaning: Meaning) -> Verdict {
    match meaning {
        Meaning::Delivered { duplicate } => Verdict::Delivered { duplicate },
        Meaning::Failed(finding) => {
            let retry_after = limits::retry_after(heard.headers).or_else(|| {
                let throttled = finding.class == FailureClass::Throttled;
                throttled.then(|| other_hint(heard, error)).flatten()
            });
            Verdict::Failed(Failure {
                conflict: finding.conflict,
                record: record_answer(asked, heard, error, finding),
                retry_after,
                route: asked.route,
            })
        }
    }
}

/// The verdict on a request that broke. `message` says how.
pub fn broken(asked: &Asked<'_>, trouble: Trouble, message: &str) -> Failure {
    let class = match trouble {
        Trouble::DamagedPayload => FailureClass::Damaged,
        Trouble::UnreadablePayload | Trouble::Connecting => FailureClass::Transient,
        Trouble::Exchanging => unanswered(asked.sent),
        Trouble::UnsendableToken => FailureClass::Unauthorized,
        Trouble::UnusableUrl => FailureClass::Endpoint,
    };
    Failure {
        record: FailureRecord {
            message: keep(message, asked.secret, MESSAGE_KEPT),
            ..blank_record(asked, class)
        },
        retry_after: None,
        conflict: false,
        route: asked.route,
    }
}

/// Only a complete request can have been stored.
fn unanswered(sent: Sent) -> FailureClass {
    match sent {
        Sent::Nothing | Sent::Part => FailureClass::Transient,
        Sent::All => FailureClass::InDoubt,
    }
}

/// A throttle without `Retry-After`: the budget's reset when the budget is what ran out, else the
/// platform's sentence "Retry the request in n seconds".
fn other_hint(heard: &Heard<'_>, error: &ErrorBody) -> Option<Duration> {
    let limits = limits::limits(heard.headers);
    let exhausted = limits.remaining.is_none_or(|left| left == 0);
    let reset = limits.reset_in.filter(|_| exhausted);
    reset.or_else(|| {
        let said = error.messages.iter().find_map(|message| {
            let (_, after) = message.split_once("etry the request in ")?;
            let number = after.trim_start_matches('[');
            let end = number.find(|c: char| !c.is_ascii_digit())?;
            number[..end].parse().ok()
        });
        said.map(|seconds| Duration::from_secs(seconds).min(limits::LONGEST))
    })
}

fn record_answer(
    asked: &Asked<'_>,
    heard: &Heard<'_>,
    error: &ErrorBody,
    finding: Finding,
) -> FailureRecord {
    let secret = asked.secret;
    let word = |text: &String| keep(text, secret, WORD_KEPT);
    let header = heard.headers.get("inin-correlation-id");
    let correlation = header.map(|value| keep_bytes(value.as_bytes(), secret, WORD_KEPT));
    let said = error
        .messages
        .first()
        .filter(|text| !text.trim().is_empty());
    let message = match (finding.why, said) {
        (Some(why), _) => why,
        (None, Some(said)) => said.clone(),
        (None, None) => format!("status {} {}", heard.status, content_kind(heard)),
    };
    FailureRecord {
        status: Some(heard.status),
        code: error.codes.first().map(word),
        correlation_id: correlation
            .filter(|id| !id.is_empty())
            .or_else(|| error.context_id.as_ref().map(word)),
        fields: error.fields.iter().take(FIELDS_KEPT).map(word).collect(),
        missing: finding.missing,
        message: keep(&message, secret, MESSAGE_KEPT),
        body: keep_bytes(heard.body, secret, BODY_KEPT),
        ..blank_record(asked, finding.class)
    }
}

fn blank_record(asked: &Asked<'_>, class: FailureClass) -> FailureRecord {
    // A storage host never sees the token.
    let token = (asked.route != Route::StoreHost).then_some(asked.token);
    FailureRecord {
        at: asked.at,
        class,
        status: None,
        code: None,
        correlation_id: None,
        fields: Vec::new(),
        missing: None,
        message: String::new(),
        body: String::new(),
        token_generation: token.map(|token| token.generation.0),
        token_fingerprint: token.map(Token::fingerprint),
        attempt: asked.attempt,
        next_try_at: None,
    }
}

/// "with text/html", for a body that says nothing in a language that is read here.
fn content_kind(heard: &Heard<'_>) -> String {
    let kind = heard
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    match kind {
        _ if heard.body.is_empty() => "without a body".to_owned(),
        Some(kind) => format!("with {}", kind.split(';').next().unwrap_or(kind).trim()),
        None => "with a body of no stated type".to_owned(),
    }
}
