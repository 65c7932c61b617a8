//! The classification table, row by row.

mod bodies;
mod receipts;
mod records;

use reqwest::header::{HeaderName, HeaderValue};

use super::*;
use crate::model::{Digest, Generation, Missing};
use crate::platform::Limits;
use FailureClass::*;
use bodies::*;

/// Header lines of a row.
type Lines<'a> = &'a [(&'a str, &'a str)];

const SECRET: &str = "canary-token-0123456789abcdef";

fn expected() -> Expected {
    Expected {
        session: "s1".parse().unwrap(),
        parts: vec![(7, Digest::of(b"seven"))],
    }
}

fn receipt(payload: &[u8], status: &str) -> String {
    let digest = Digest::of(payload);
    let part = format!(r#"{{"sequence":7,"digest":"{digest}","status":"{status}"}}"#);
    format!(r#"{{"session":"s1","parts":[{part}]}}"#)
}

fn map(lines: Lines) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// A case: everything but status, headers and body has its usual value.
#[derive(Clone, Copy)]
struct Case {
    route: Route,
    policy: ReceiptPolicy,
    sent: Sent,
    ending: Ending,
}

const USUAL: Case = Case {
    route: Route::Deliver,
    policy: ReceiptPolicy::Body,
    sent: Sent::All,
    ending: Ending::Whole,
};

impl Case {
    fn answer(self, status: u16, lines: Lines, body: &str) -> Answer {
        let (expected, token) = (expected(), Token::new(SECRET.into(), Generation(3)));
        let asked = Asked {
            route: self.route,
            receipt: self.policy,
            expected: &expected,
            sent: self.sent,
            at: Timestamp(1_772_355_600_000),
            attempt: 2,
            token: &token,
            secret: token.expose(),
        };
        let headers = map(lines);
        let heard = Heard {
            status,
            headers: &headers,
            body: body.as_bytes(),
            ending: self.ending,
        };
        answer(&asked, &heard)
    }

    fn failure(self, status: u16, lines: Lines, body: &str) -> Failure {
        match self.answer(status, lines, body).verdict {
            Verdict::Failed(failure) => failure,
            Verdict::Delivered { .. } => panic!("{status} {body} counts as delivered"),
        }
    }
}

fn failure(status: u16, lines: Lines, body: &str) -> Failure {
    USUAL.failure(status, lines, body)
}

#[test]
fn every_row_of_the_table_has_its_class() {
    let rows: &[(u16, &str, FailureClass)] = &[
        (200, HTML, Unrecognised),
        (200, "", Unrecognised),
        (200, r#"{"id":"x","status":"queued"}"#, Unrecognised),
        (202, "", Unrecognised),
        (204, "", Unrecognised),
        (206, "", Unrecognised),
        (301, "", Unrecognised),
        (302, HTML, Unrecognised),
        (304, "", Unrecognised),
        (307, "", Unrecognised),
        (101, "", Unrecognised),
        (999, "", Unrecognised),
        (401, BAD_CREDENTIALS, Unauthorized),
        (401, EXPIRED, Unauthorized),
        (401, NO_TOKEN, Unauthorized),
        (401, HTML, Unauthorized),
        (401, "", Unauthorized),
        (403, MISSING, Forbidden),
        (403, MISSING_LIST, Forbidden),
        (403, MISSING_ANY, Forbidden),
        (403, NOT_AUTHORIZED, Forbidden),
        (403, HTML, Forbidden),
        (403, "", Forbidden),
        (402, "", Endpoint),
        (404, NOT_FOUND, Endpoint),
        (404, HTML, Endpoint),
        (405, "", Endpoint),
        (406, "", Endpoint),
        (407, HTML, Endpoint),
        (410, "", Endpoint),
        (411, "", Endpoint),
        (412, "", Endpoint),
        (418, "", Endpoint),
        (421, "", Endpoint),
        (423, "", Endpoint),
        (426, "", Endpoint),
        (431, "", Endpoint),
        (451, "", Endpoint),
        (499, "", Endpoint),
        (501, "", Endpoint),
        (505, "", Endpoint),
        (507, "", Endpoint),
        (511, HTML, Endpoint),
        (429, TOO_MANY, Throttled),
        (429, "", Throttled),
        (422, PURVIEW, PurviewPending),
        (422, PURVIEW_NESTED, PurviewPending),
        (400, INVALID_DATE, Rejected),
        (400, "", Rejected),
        (400, HTML, Rejected),
        (413, TOO_LARGE, Rejected),
        (413, NGINX, Rejected),
        (414, "", Rejected),
        (415, MEDIA_TYPE, Rejected),
        (422, VALIDATION, Rejected),
        (422, "", Rejected),
        (409, CONFLICT, Rejected),
        (422, CONFLICT, Rejected),
        (409, IN_PROGRESS, InDoubt),
        (409, OUTSTANDING, InDoubt),
        (409, HTML, Endpoint),
        (409, "", Endpoint),
        (422, MISMATCH, DigestMismatch),
        (460, "", DigestMismatch),
        (400, S3_BAD_DIGEST, DigestMismatch),
        (408, "", Transient),
        (425, "", Transient),
        (500, INTERNAL, Transient),
        (502, NGINX, Transient),
        (503, UNAVAILABLE, Transient),
        (504, AUTH_TIMEOUT, Transient),
        (504, "", Transient),
        (520, HTML, Transient),
        (599, "", Transient),
    ];
    for (status, body, class) in rows {
        let failure = failure(*status, &[], body);
        assert_eq!(failure.record.class, *class, "{status} {body}");
        assert_eq!(failure.record.status, Some(*status));
        assert!(!failure.record.message.is_empty(), "{status} {body}");
    }
}

#[test]
fn a_refusal_names_the_right_that_is_missing() {
    let challenge = (
        "WWW-Authenticate",
        r#"Bearer realm="api", error="insufficient_scope", scope="analytics:screenrecordings:write""#,
    );
    let unnamed = ("WWW-Authenticate", r#"Bearer error="insufficient_scope""#);
    let in_body = r#"{"error":"insufficient_scope","error_description":"no","scope":"a:b"}"#;
    let scope = |name: &str| Some(Missing::Scope(name.into()));
    let permission = |name: &str| Some(Missing::Permission(name.into()));
    let rows: &[(u16, Lines, &str, Option<Missing>)] = &[
        (
            403,
            &[challenge],
            "",
            scope("analytics:screenrecordings:write"),
        ),
        (
            403,
            &[challenge],
            MISSING,
            scope("analytics:screenrecordings:write"),
        ),
        (403, &[unnamed], "", Some(Missing::Unnamed)),
        (403, &[], in_body, scope("a:b")),
        (403, &[], MISSING, permission("recording:recording:upload")),
        (
            403,
            &[],
            MISSING_LIST,
            permission("recording:recording:upload, recording:screenRecording:view"),
        ),
        (403, &[], MISSING_ANY, Some(Missing::Unnamed)),
        (403, &[], NOT_AUTHORIZED, Some(Missing::Unnamed)),
        (403, &[], HTML, None),
        // A 401 is about the token first; the claim only chooses the words.
        (
            401,
            &[challenge],
            "",
            scope("analytics:screenrecordings:write"),
        ),
        (
            401,
            &[("WWW-Authenticate", r#"Bearer error="invalid_token""#)],
            BAD_CREDENTIALS,
            None,
        ),
    ];
    for (status, lines, body, missing) in rows {
        assert_eq!(
            failure(*status, lines, body).record.missing,
            *missing,
            "{lines:?} {body}"
        );
    }
}

#[test]
fn an_expired_url_is_no_refusal_and_only_a_storage_host_has_one() {
    for (status, body) in [(403, S3_URL_EXPIRED), (400, S3_TOKEN_EXPIRED)] {
        assert_eq!(storage(status, &[], body).record.class, UrlExpired);
    }
    assert_eq!(failure(403, &[], S3_URL_EXPIRED).record.class, Forbidden);
}

/// What a storage host's answer means for a payload that was sent whole.
fn stored(status: u16, lines: Lines, body: &str) -> Verdict {
    let (expected, token) = (expected(), Token::new(SECRET.into(), Generation(3)));
    let asked = Asked {
        route: Route::StoreHost,
        receipt: ReceiptPolicy::Body,
        expected: &expected,
        sent: Sent::All,
        at: Timestamp(5),
        attempt: 2,
        token: &token,
        secret: "X-Amz-Signature=canary-0123456789abcdef",
    };
    let headers = map(lines);
    let heard = Heard {
        status,
        headers: &headers,
        body: body.as_bytes(),
        ending: Ending::Whole,
    };
    let checksums = Checksums {
        md5: [0xab; 16],
        sha256: vec![0xcd; 32],
    };
    super::stored(&asked, &heard, &checksums)
}

fn storage(status: u16, lines: Lines, body: &str) -> Failure {
    match stored(status, lines, body) {
        Verdict::Failed(failure) => failure,
        Verdict::Delivered { .. } => panic!("{status} is delivered"),
    }
}

#[test]
fn a_storage_hosts_answer_says_nothing_of_the_token() {
    let bad_digest = "<Error><Code>BadDigest</Code></Error>";
    let timeout = "<Error><Code>RequestTimeout</Code></Error>";
    let slow_down = "<Error><Code>SlowDown</Code></Error>";
    let page = "<html>Request has expired</html>";
    for (status, body, class) in [
        (403, S3_SIGNATURE, Endpoint),
        (401, "", Endpoint),
        (403, "", Endpoint),
        (403, page, Endpoint),
        (404, "", Endpoint),
        (400, bad_digest, DigestMismatch),
        (400, timeout, Transient),
        (400, "", Rejected),
        (413, "", Rejected),
        (412, "", Rejected),
        (409, "", Transient),
        (408, "", Transient),
        (500, "", Transient),
        (503, "", Transient),
        (503, slow_down, Throttled),
        (429, "", Throttled),
        (200, "", Unrecognised),
        (202, "", Unrecognised),
        (307, "", Unrecognised),
    ] {
        let failure = storage(status, &[], body);
        assert_eq!(failure.record.class, class, "{status} {body}");
        assert_eq!(failure.route, Route::StoreHost);
        assert_eq!(failure.record.token_fingerprint, None);
    }
    let waiting = storage(503, &[("Retry-After", "7")], "");
    assert_eq!(waiting.record.class, Throttled);
    assert_eq!(waiting.retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn a_storage_hosts_receipt_is_a_checksum() {
    let etag = format!("\"{}\"", "ab".repeat(16));
    assert_eq!(
        stored(200, &[("ETag", &etag)], ""),
        Verdict::Delivered { duplicate: false }
    );
    let other = ("x-amz-checksum-sha256", "AAAA");
    assert_eq!(
        storage(200, &[("ETag", &etag), other], "").record.class,
        Unrecognised
    );
}

#[test]
fn a_signature_that_a_storage_host_echoes_is_not_kept() {
    let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>sent \
                canary-0123456789abcdef</Message></Error>";
    let record = storage(403, &[], body).record;
    assert_eq!(record.code.as_deref(), Some("SignatureDoesNotMatch"));
    assert_eq!(record.message, "sent [redacted]");
    assert!(!format!("{record:?}").contains("canary"));
}

#[test]
fn a_torn_answer_condemns_nothing_that_its_rest_could_have_saved() {
    let torn = |sent| Case {
        sent,
        ending: Ending::Torn,
        ..USUAL
    };
    for status in [200, 201, 208, 400, 409, 422] {
        let class = |sent| torn(sent).failure(status, &[], "{\"mess").record.class;
        assert_eq!(class(Sent::All), InDoubt, "{status}");
        let unsent = class(Sent::Part);
        assert_eq!(unsent, Transient, "{status}");
    }
    for (status, class) in [
        (401, Unauthorized),
        (403, Forbidden),
        (413, Rejected),
        (429, Throttled),
    ] {
        assert_eq!(
            torn(Sent::All).failure(status, &[], "{\"mess").record.class,
            class
        );
    }
    let whole_receipt = torn(Sent::All).answer(200, &[], &receipt(b"seven", "stored"));
    assert_eq!(
        whole_receipt.verdict,
        Verdict::Delivered { duplicate: false }
    );
    let torn_conflict = torn(Sent::All).failure(409, &[], CONFLICT);
    assert!(torn_conflict.conflict);
}

#[test]
fn a_broken_request_is_in_doubt_only_if_the_platform_can_have_it() {
    let (expected, token) = (expected(), Token::new(SECRET.into(), Generation(3)));
    let rows = [
        (Trouble::Connecting, Sent::Nothing, Transient),
        (Trouble::Exchanging, Sent::Nothing, Transient),
        (Trouble::Exchanging, Sent::Part, Transient),
        (Trouble::Exchanging, Sent::All, InDoubt),
        (Trouble::DamagedPayload, Sent::Nothing, Damaged),
        (Trouble::DamagedPayload, Sent::Part, Damaged),
        (Trouble::UnreadablePayload, Sent::Part, Transient),
        (Trouble::UnsendableToken, Sent::Nothing, Unauthorized),
        (Trouble::UnusableUrl, Sent::Nothing, Endpoint),
    ];
    for (trouble, sent, class) in rows {
        let asked = Asked {
            route: Route::Deliver,
            receipt: ReceiptPolicy::Body,
            expected: &expected,
            sent,
            at: Timestamp(5),
            attempt: 2,
            token: &token,
            secret: token.expose(),
        };
        let failure = broken(&asked, trouble, &format!("reset by peer, {SECRET}"));
        assert_eq!(failure.record.class, class, "{trouble:?} {sent:?}");
        assert_eq!(failure.record.message, "reset by peer, [redacted]");
        assert_eq!((failure.retry_after, failure.conflict), (None, false));
    }
}
