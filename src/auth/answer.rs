//! Reads a token endpoint's answer, purely. Hostile until parsed: every field is bounded, and nothing of
//! a body that may hold a token is kept.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::grant::{MintFailure, Minted, Proof, Refusal, RefusalKind};
use crate::model::Timestamp;
use crate::policy::refresh;

/// Far above any token answer (a signed token with many claims is 2 to 4 KiB).
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What common servers accept in one header.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const TEXT_CHARS_MAX: usize = 300;
const BODY_CHARS_MAX: usize = 1024;
const SCOPES_MAX: usize = 256;
/// Longer hints are daily caps, which end sooner or are no hints.
const HINT_MAX: Duration = Duration::from_secs(24 * 3600);

/// An HTTP answer, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub struct RawAnswer {
    pub status: u16,
    pub content_type: Option<String>,
    pub retry_after: Option<String>,
    /// The server's own clock, to read a `Retry-After` that is a date.
    pub date: Option<String>,
    pub correlation_id: Option<String>,
    /// When it came, by this host's clock.
    pub arrived: Timestamp,
    /// At most [`ANSWER_BYTES_MAX`].
    pub body: Vec<u8>,
    /// The body had more bytes than that.
    pub cut: bool,
}

/// What an endpoint gave.
#[derive(Debug)]
pub struct Granted {
    pub minted: Minted,
    /// A refresh token that came along.
    pub refresh_token: Option<SecretString>,
    /// RFC 8693: what kind of token it is.
    pub issued_token_type: Option<String>,
}

#[derive(Deserialize)]
struct Fields<L> {
    access_token: Option<String>,
    refresh_token: Option<Value>,
    issued_token_type: Option<Value>,
    token_type: Option<String>,
    expires_in: Option<L>,
    scope: Option<Value>,
    error: Option<Value>,
    error_description: Option<Value>,
    description: Option<Value>,
}

/// The token in `answer`, or what it says instead. `sent` are the secrets of the request, in every form
/// in which they went out: a server that echoes one must not make us repeat it.
///
/// # Errors
/// [`MintFailure::Refused`] with the facts of the answer.
pub fn read(answer: &RawAnswer, sent: &[&str], proof: Proof) -> Result<Granted, MintFailure> {
    let printable_text = |text: &str| printable(text, sent, TEXT_CHARS_MAX);
    let text_of = |value: &Value| match value {
        Value::String(text) => printable_text(text),
        other => printable_text(&other.to_string()),
    };
    let mut refusal = Refusal {
        status: answer.status,
        correlation_id: answer.correlation_id.as_deref().map(printable_text),
        retry_after: hint(answer),
        clock_ahead_s: clock_ahead_s(answer),
        about: proof,
        ..Refusal::default()
    };
    let granted = (200..300).contains(&answer.status);
    if !granted {
        refusal.body = printable(&String::from_utf8_lossy(&answer.body), sent, BODY_CHARS_MAX);
    }
    let (fields, life) = match parse(&answer.body) {
        Some(parsed) if !answer.cut => parsed,
        _ => {
            refusal.kind = unparsed_kind(answer);
            return Err(MintFailure::Refused(Box::new(refusal)));
        }
    };
    refusal.error = fields.error.as_ref().map(text_of);
    let description = fields.error_description.or(fields.description);
    refusal.description = description.as_ref().map(text_of);
    if (300..400).contains(&answer.status) {
        refusal.kind = RefusalKind::Redirect;
    }
    if !granted || fields.error.is_some() {
        return Err(MintFailure::Refused(Box::new(refusal)));
    }
    let Some(token) = fields.access_token else {
        refusal.kind = RefusalKind::Unreadable;
        return Err(MintFailure::Refused(Box::new(refusal)));
    };
    if !is_bearer(fields.token_type.as_deref(), &token) {
        refusal.kind = RefusalKind::Unusable;
        return Err(MintFailure::Refused(Box::new(refusal)));
    }
    let beside = object::<Map<String, Value>>(&answer.body).unwrap_or_default();
    Ok(Granted {
        refresh_token: fields.refresh_token.as_ref().and_then(refresh_token),
        issued_token_type: fields.issued_token_type.as_ref().map(text_of),
        minted: Minted {
            claims: Claims::of(&token, &beside),
            access_token: SecretString::from(token),
            lifetime: life,
            scopes: fields.scope.as_ref().and_then(scopes),
        },
    })
}

/// As long as a secret file may be, so that it can be kept in one.
fn refresh_token(given: &Value) -> Option<SecretString> {
    let text = given.as_str()?;
    let plain = !text.is_empty()
        && text.len() <= TOKEN_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| SecretString::from(text))
}

/// By how much this host's clock is ahead of the server's.
fn clock_ahead_s(answer: &RawAnswer) -> Option<i64> {
    let theirs = http_date(answer.date.as_deref()?)?;
    Some(
        answer
            .arrived
            .0
            .div_euclid(1000)
            .saturating_sub(theirs.as_second()),
    )
}

/// A lifetime that is no number at all must not cost the token: it is then read a second time without it.
fn parse(body: &[u8]) -> Option<(Fields<Value>, Duration)> {
    if let Some(fields) = object::<Fields<Value>>(body) {
        let life = refresh::lifetime(fields.expires_in.as_ref());
        return Some((fields, life));
    }
    let fields = object::<Fields<IgnoredAny>>(body)?;
    let fields = Fields {
        access_token: fields.access_token,
        refresh_token: fields.refresh_token,
        issued_token_type: fields.issued_token_type,
        token_type: fields.token_type,
        expires_in: None,
        scope: fields.scope,
        error: fields.error,
        error_description: fields.error_description,
        description: fields.description,
    };
    Some((fields, refresh::lifetime(None)))
}

/// Only an object: a sequence would be read as fields in order.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn unparsed_kind(answer: &RawAnswer) -> RefusalKind {
    let html = answer
        .content_type
        .as_deref()
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("html"))
        || answer.body.trim_ascii_start().first() == Some(&b'<');
    match answer.status {
        300..400 => RefusalKind::Redirect,
        _ if answer.cut => RefusalKind::TooLarge,
        _ if html => RefusalKind::Html,
        200..300 => RefusalKind::Unreadable,
        _ => RefusalKind::Error,
    }
}

/// RFC 6750 section 2.1: what can stand in an `Authorization: Bearer` header.
pub fn is_bearer(kind: Option<&str>, token: &str) -> bool {
    kind.is_none_or(|kind| kind.trim().eq_ignore_ascii_case("bearer"))
        && !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX
        && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Space-separated (RFC 6749 section 3.3); some servers send a list.
fn scopes(stated: &Value) -> Option<Vec<String>> {
    let name = |text: &str| printable(text, &[], TEXT_CHARS_MAX);
    let names: Vec<String> = match stated {
        Value::String(text) => text.split_ascii_whitespace().map(name).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(name).collect(),
        _ => return None,
    };
    Some(names.into_iter().take(SCOPES_MAX).collect())
}

/// `Retry-After` in seconds or as a date, as a span from the answer.
fn hint(answer: &RawAnswer) -> Option<Duration> {
    let text = answer.retry_after.as_deref()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(HINT_MAX));
    }
    let then = http_date(text)?;
    let now = http_date(answer.date.as_deref()?)?;
    let seconds = then.as_second().saturating_sub(now.as_second());
    u64::try_from(seconds)
        .ok()
        .map(|seconds| Duration::from_secs(seconds).min(HINT_MAX))
}

fn http_date(text: &str) -> Option<jiff::Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}

/// Hides what was sent after it took out what does not print, so that a secret with a control character in its middle is not
/// made whole; and before it cuts, so that no half of one is left at the end.
fn printable(text: &str, sent: &[&str], limit: usize) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    for secret in sent.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret) {
            text = text.replace(secret, "[secret]");
        }
    }
    text.chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn answer(status: u16, body: &str) -> RawAnswer {
        RawAnswer {
            status,
            body: body.as_bytes().to_vec(),
            ..RawAnswer::default()
        }
    }

    fn refusal(answer: &RawAnswer) -> Refusal {
        match read(answer, &["hunter2"], Proof::Nothing).unwrap_err() {
            MintFailure::Refused(refusal) => *refusal,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn token(body: &str) -> Minted {
        let granted = read(&answer(200, body), &[], Proof::Nothing);
        granted.unwrap_or_else(|_| panic!("{body}")).minted
    }

    #[test]
    fn a_secret_with_a_control_character_in_it_is_not_made_whole() {
        let echo = refusal(&answer(400, "it was hun\u{5}ter2"));
        assert_eq!(echo.body, "it was [secret]");
    }

    #[test]
    fn a_token_is_read_with_its_life_and_scopes() {
        let body =
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":"3600","scope":"a b"}"#;
        let minted = token(body);
        assert_eq!(minted.access_token.expose_secret(), "abc");
        assert_eq!(minted.lifetime, Duration::from_secs(3600));
        assert_eq!(minted.scopes.unwrap(), ["a", "b"]);
        let minted = token(r#"{"access_token":"abc"}"#);
        assert_eq!(minted.lifetime, refresh::DEFAULT_LIFETIME);
        assert_eq!(minted.scopes, None);
    }

    #[test]
    fn no_lifetime_costs_the_token() {
        for life in ["1e999", "0", "-1", "[]", "{}", "null", "\"soon\"", "1e-999"] {
            let body = format!(r#"{{"access_token":"abc","expires_in":{life}}}"#);
            let minted = token(&body);
            assert!(minted.lifetime >= refresh::SHORTEST_LIFETIME, "{life}");
        }
    }

    #[test]
    fn a_refresh_token_and_the_kind_of_a_token_are_read_where_they_can_be_used() {
        let with = |more: &str| {
            let body = format!(r#"{{"access_token":"abc"{more}}}"#);
            read(&answer(200, &body), &[], Proof::Nothing).unwrap()
        };
        let granted = with(r#","refresh_token":"r1","issued_token_type":"urn:x""#);
        assert_eq!(granted.refresh_token.unwrap().expose_secret(), "r1");
        assert_eq!(granted.issued_token_type.as_deref(), Some("urn:x"));
        for odd in ["\"\"", "7", "null", "{}", "\"a b\"", "\"a\\nb\""] {
            let granted = with(&format!(r#","refresh_token":{odd}"#));
            assert!(granted.refresh_token.is_none(), "{odd}");
        }
    }

    #[test]
    fn the_distance_of_the_clocks_is_read_from_the_answer() {
        let mut raw = answer(400, "{}");
        raw.date = Some("Sun, 01 Mar 2026 09:00:00 GMT".into());
        for (arrived_s, ahead) in [
            (1_772_355_600, 0),
            (1_772_356_020, 420),
            (1_772_355_540, -60),
        ] {
            raw.arrived = Timestamp(arrived_s * 1000 + 999);
            assert_eq!(refusal(&raw).clock_ahead_s, Some(ahead));
        }
        raw.date = Some("noon".into());
        assert_eq!(refusal(&raw).clock_ahead_s, None);
    }

    #[test]
    fn a_refusal_keeps_what_the_server_said() {
        let mut raw = answer(
            401,
            r#"{"error":"invalid_client","description":"client not found","error_description":"client not found"}"#,
        );
        raw.retry_after = Some("17".into());
        let refusal = refusal(&raw);
        assert_eq!(refusal.error.as_deref(), Some("invalid_client"));
        assert_eq!(refusal.description.as_deref(), Some("client not found"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(17)));
        assert!(refusal.body.contains("client not found"));
    }

    #[test]
    fn a_200_with_an_error_is_a_refusal_and_none_of_its_body_is_kept() {
        let body = r#"{"error":"invalid_scope","description":"no","access_token":"canary"}"#;
        let refusal = refusal(&answer(200, body));
        assert_eq!(refusal.error.as_deref(), Some("invalid_scope"));
        assert!(!format!("{refusal:?}").contains("canary"));
    }

    #[test]
    fn an_answer_without_a_token_says_what_it_is_made_of() {
        let cases = [
            (200, "<!doctype html><p>Sign in", RefusalKind::Html),
            (502, "<html>bad gateway", RefusalKind::Html),
            (302, "", RefusalKind::Redirect),
            (302, "{}", RefusalKind::Redirect),
            (200, "", RefusalKind::Unreadable),
            (200, "{}", RefusalKind::Unreadable),
            (200, "[\"canary\"]", RefusalKind::Unreadable),
            (200, r#"{"access_token":7}"#, RefusalKind::Unreadable),
            (200, r#"{"access_token":""}"#, RefusalKind::Unusable),
            (200, r#"{"access_token":"a\r\nb"}"#, RefusalKind::Unusable),
            (
                200,
                r#"{"access_token":"a","token_type":"mac"}"#,
                RefusalKind::Unusable,
            ),
            (500, "oops", RefusalKind::Error),
            (401, "", RefusalKind::Error),
        ];
        for (status, body, want) in cases {
            assert_eq!(refusal(&answer(status, body)).kind, want, "{status} {body}");
        }
        let mut cut = answer(200, r#"{"access_token":"a"}"#);
        cut.cut = true;
        assert_eq!(refusal(&cut).kind, RefusalKind::TooLarge);
    }

    #[test]
    fn a_date_to_come_back_at_is_measured_on_the_servers_clock() {
        let mut raw = answer(429, "{}");
        raw.date = Some("Sun, 01 Mar 2026 09:00:00 GMT".into());
        raw.retry_after = Some("Sun, 01 Mar 2026 09:01:30 GMT".into());
        assert_eq!(refusal(&raw).retry_after, Some(Duration::from_secs(90)));
        raw.retry_after = Some("Sun, 01 Mar 2026 08:00:00 GMT".into());
        assert_eq!(refusal(&raw).retry_after, None);
        for odd in ["soon", "-5", "1e9", ""] {
            raw.retry_after = Some(odd.into());
            assert_eq!(refusal(&raw).retry_after, None, "{odd}");
        }
        raw.retry_after = Some("99999999".into());
        assert_eq!(refusal(&raw).retry_after, Some(HINT_MAX));
    }

    #[test]
    fn a_secret_that_the_server_echoes_is_hidden_even_where_the_text_is_cut() {
        let body = format!(
            r#"{{"error":"invalid_client hunter2","error_description":"{}hunter2"}}"#,
            "x".repeat(TEXT_CHARS_MAX - 3)
        );
        let refusal = refusal(&answer(401, &body));
        assert!(!format!("{refusal:?}").contains("hun"), "{refusal:?}");
    }

    #[test]
    fn what_a_server_says_is_bounded_and_cannot_break_a_line() {
        let long = "x\\n\\u001b[31m".repeat(5_000);
        let body = format!(r#"{{"error":"invalid_request","error_description":"{long}"}}"#);
        let refusal = refusal(&answer(400, &body));
        let said = refusal.description.unwrap();
        assert!(said.chars().count() <= TEXT_CHARS_MAX);
        assert!(!said.contains('\n') && !said.contains('\u{1b}'));
        assert!(refusal.body.chars().count() <= BODY_CHARS_MAX);
    }
}
