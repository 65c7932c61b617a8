//! The classification table, row by row, with the bodies that platforms, storage hosts and proxies really send.

use reqwest::header::{HeaderName, HeaderValue};

use super::*;
use crate::model::{Digest, Generation, Missing};
use crate::platform::Limits;
use FailureClass::*;

const SECRET: &str = "canary-token-0123456789abcdef";

const BAD_CREDENTIALS: &str = r#"{"message":"Invalid login credentials.","code":"bad.credentials",
    "status":401,"contextId":"9d0c0f8e-0a3c-4a52-8d5e-1f0f2b1c7e11","details":[],"errors":[]}"#;
const EXPIRED: &str = r#"{"message":"The supplied credentials have expired.","code":"credentials.expired","status":401}"#;
const NO_TOKEN: &str = r#"{"message":"No authentication bearer token specified in authorization header.",
    "code":"authentication.required","status":401,"contextId":"c-2"}"#;
const MISSING: &str = r#"{"message":"Unable to perform the requested action. You are missing the following permission(s): recording:recording:upload",
    "code":"missing.permissions","status":403,"messageParams":{"permissions":"recording:recording:upload"},"contextId":"c-3"}"#;
const MISSING_LIST: &str = r#"{"message":"Unable to perform the requested action. You are missing the following permission(s): [recording:recording:upload, recording:screenRecording:view]",
    "code":"missing.permissions","status":403}"#;
const MISSING_ANY: &str = r#"{"message":"Unable to perform the requested action. You must have at least one of the following permissions assigned: [] in at least one of the following division(s): [dbdb51ee-0000]",
    "code":"missing.any.permissions","status":403}"#;
const NOT_AUTHORIZED: &str = r#"{"message":"You are not authorized to perform the requested action.","code":"not.authorized","status":403}"#;
const NOT_FOUND: &str =
    r#"{"message":"The requested resource was not found.","code":"not.found","status":404}"#;
const TOO_MANY: &str = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [58] seconds","code":"too.many.requests","status":429}"#;
const AUTH_TIMEOUT: &str = r#"{"message":"Authentication request timed out.","code":"authentication.request.timeout","status":504}"#;
const UNAVAILABLE: &str =
    r#"{"message":"The server is unavailable.","code":"service.unavailable","status":503}"#;
const INTERNAL: &str = r#"{"message":"The server encountered an unexpected condition which prevented it from fulfilling the request.","code":"internal.server.error","status":500}"#;
const INVALID_DATE: &str = r#"{"message":"Dates must be specified as ISO-8601 strings. For example: yyyy-MM-ddTHH:mm:ss.SSSZ","code":"invalid.date","status":400,
    "details":[{"errorCode":"invalid.date","fieldName":"startTime"}]}"#;
const TOO_LARGE: &str = r#"{"message":"Request too large. Maximum bytes: 33554432","code":"request.too.large","status":413}"#;
const MEDIA_TYPE: &str =
    r#"{"message":"Unsupported media type.","code":"unsupported.media.type","status":415}"#;
const PURVIEW: &str = r#"{"message":"Validation failed: the provided purview ID does not match the token's scope","code":"validation.error","status":422,
    "details":[{"errorCode":"invalid.value","fieldName":"purview"}]}"#;
const PURVIEW_NESTED: &str = r#"{"message":"Unprocessable","code":"unprocessable","status":422,
    "errors":[{"message":"no match","details":[{"fieldName":"purviewId"}]}]}"#;
const VALIDATION: &str = r#"{"message":"intervalSeconds must be at most 900","code":"validation.error","status":422,
    "details":[{"errorCode":"out.of.range","fieldName":"intervalSeconds"}]}"#;
const CONFLICT: &str = r#"{"message":"sequence 7 of session s1 is stored with another digest","code":"conflict.digest","status":409}"#;
const IN_PROGRESS: &str = r#"{"message":"a request with this key is being worked on","code":"request.in.progress","status":409}"#;
const OUTSTANDING: &str = r#"{"type":"https://example.com/idempotency","title":"A request is outstanding for this Idempotency-Key","detail":"Retry later"}"#;
const MISMATCH: &str =
    r#"{"message":"payload does not match its digest","code":"digest.mismatch","status":422}"#;
const S3_BAD_DIGEST: &str = "<?xml version=\"1.0\"?><Error><Code>BadDigest</Code><Message>The Content-MD5 you specified did not match what we received.</Message></Error>";
const S3_URL_EXPIRED: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message><Expires>2026-03-01T09:00:00Z</Expires></Error>";
const S3_TOKEN_EXPIRED: &str = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
const S3_SIGNATURE: &str =
    "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code></Error>";
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in to HotelWiFi</title></head><body>Welcome</body></html>";
const NGINX: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><hr><center>nginx</center></body></html>";

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

fn map(lines: &[(&str, &str)]) -> HeaderMap {
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
    fn answer(self, status: u16, lines: &[(&str, &str)], body: &str) -> Answer {
        let (expected, token) = (expected(), Token::new(SECRET.into(), Generation(3)));
        let asked = Asked {
            route: self.route,
            receipt: self.policy,
            expected: &expected,
            sent: self.sent,
            at: Timestamp(1_772_355_600_000),
            attempt: 2,
            token: &token,
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

    fn failure(self, status: u16, lines: &[(&str, &str)], body: &str) -> Failure {
        match self.answer(status, lines, body).verdict {
            Verdict::Failed(failure) => failure,
            Verdict::Delivered { .. } => panic!("{status} {body} counts as delivered"),
        }
    }
}

fn failure(status: u16, lines: &[(&str, &str)], body: &str) -> Failure {
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
fn only_a_receipt_is_delivered_whatever_the_status() {
    let mine = receipt(b"seven", "stored");
    let before = receipt(b"seven", "duplicate");
    for (status, body, duplicate) in [
        (200, &mine, false),
        (201, &mine, false),
        (208, &mine, true),
        (200, &before, true),
        (409, &before, true),
        (409, &mine, true),
    ] {
        let verdict = USUAL.answer(status, &[], body).verdict;
        assert_eq!(verdict, Verdict::Delivered { duplicate }, "{status} {body}");
    }
    for status in [202, 204, 301, 400, 401, 403, 404, 422, 429, 500, 503] {
        failure(status, &[], &mine);
    }
}

#[test]
fn a_receipt_for_something_else_says_what_is_wrong_with_it() {
    let other_session = receipt(b"seven", "stored").replace("s1", "s2");
    for (body, message) in [
        (
            receipt(b"other", "stored"),
            "the receipt has another digest for sequence 7",
        ),
        (
            receipt(b"seven", "queued"),
            "the receipt does not say that sequence 7 is stored",
        ),
        (other_session, "the receipt is for another session"),
    ] {
        let record = failure(200, &[], &body).record;
        assert_eq!(
            (record.class, record.message.as_str()),
            (Unrecognised, message)
        );
    }
    let html = failure(200, &[("Content-Type", "text/html; charset=utf-8")], HTML).record;
    assert_eq!(html.message, "status 200 with text/html is no receipt");
    assert!(
        html.body
            .starts_with("<!DOCTYPE html> <html><head><title>Sign in"),
        "{}",
        html.body
    );
}

#[test]
fn with_receipts_waived_three_statuses_count_and_no_other() {
    let waived = Case {
        policy: ReceiptPolicy::Status,
        ..USUAL
    };
    for (status, duplicate) in [(200, false), (201, false), (208, true)] {
        let verdict = waived.answer(status, &[], "").verdict;
        assert_eq!(verdict, Verdict::Delivered { duplicate });
    }
    for status in [202, 204, 302, 409] {
        waived.failure(status, &[], "");
    }
    let early = Case {
        sent: Sent::Part,
        ..waived
    };
    assert_eq!(early.failure(200, &[], "").record.class, Unrecognised);
}

#[test]
fn an_answer_before_the_payload_was_sent_can_only_name_what_was_there_before() {
    let early = Case {
        sent: Sent::Part,
        ..USUAL
    };
    let refused = early.failure(200, &[], &receipt(b"seven", "stored")).record;
    assert_eq!(refused.class, Unrecognised);
    assert_eq!(
        refused.message,
        "status 200 came before the payload was sent"
    );
    let known = early.answer(208, &[], &receipt(b"seven", "duplicate"));
    assert_eq!(known.verdict, Verdict::Delivered { duplicate: true });
}

#[test]
fn another_digest_under_our_sequence_is_a_conflict() {
    let other = receipt(b"other", "stored");
    for (status, body) in [
        (409, CONFLICT),
        (422, CONFLICT),
        (409, &other),
        (422, &other),
    ] {
        let failure = failure(status, &[], body);
        assert!(failure.conflict, "{status} {body}");
        assert_eq!(failure.record.class, Rejected);
    }
    for (status, body) in [
        (422, VALIDATION),
        (400, INVALID_DATE),
        (413, TOO_LARGE),
        (409, ""),
    ] {
        assert!(!failure(status, &[], body).conflict, "{status} {body}");
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
    let rows: &[(u16, &[(&str, &str)], &str, Option<Missing>)] = &[
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
fn a_throttle_tells_when_to_come_back() {
    let secs = |seconds| Some(Duration::from_secs(seconds));
    let exhausted = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "42")];
    let left = [("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "42")];
    let rows: &[(u16, &[(&str, &str)], &str, FailureClass, Option<Duration>)] = &[
        (429, &[("Retry-After", "3")], TOO_MANY, Throttled, secs(3)),
        (429, &[], TOO_MANY, Throttled, secs(58)),
        (429, &exhausted, "", Throttled, secs(42)),
        (429, &left, "", Throttled, None),
        (
            429,
            &[("inin-ratelimit-reset", "61")],
            "",
            Throttled,
            secs(61),
        ),
        (429, &[("Retry-After", "soon")], "", Throttled, None),
        (
            503,
            &[("Retry-After", "120")],
            UNAVAILABLE,
            Throttled,
            secs(120),
        ),
        (
            503,
            &[("Retry-After", "soon")],
            UNAVAILABLE,
            Transient,
            None,
        ),
        (500, &[("Retry-After", "9")], INTERNAL, Transient, secs(9)),
        // A success that exhausts the budget is no throttle, and neither is another refusal.
        (404, &exhausted, NOT_FOUND, Endpoint, None),
    ];
    for (status, lines, body, class, retry_after) in rows {
        let failure = failure(*status, lines, body);
        let found = (failure.record.class, failure.retry_after);
        assert_eq!(found, (*class, *retry_after), "{status} {lines:?}");
    }
}

#[test]
fn limits_are_read_from_every_answer() {
    let lines = [
        ("inin-ratelimit-count", "1"),
        ("inin-ratelimit-allowed", "180"),
        ("inin-ratelimit-reset", "61"),
    ];
    let limits = Limits {
        allowed: Some(180),
        remaining: Some(179),
        reset_in: Some(Duration::from_secs(61)),
    };
    let delivered = USUAL.answer(200, &lines, &receipt(b"seven", "stored"));
    assert_eq!(delivered.limits, limits);
    assert_eq!(USUAL.answer(401, &lines, "").limits, limits);
}

#[test]
fn an_expired_url_is_no_refusal_and_only_a_storage_host_has_one() {
    let storage = Case {
        route: Route::StoreHost,
        ..USUAL
    };
    for (status, body, class) in [
        (403, S3_URL_EXPIRED, UrlExpired),
        (400, S3_TOKEN_EXPIRED, UrlExpired),
        (403, S3_SIGNATURE, Forbidden),
    ] {
        assert_eq!(
            storage.failure(status, &[], body).record.class,
            class,
            "{body}"
        );
    }
    assert_eq!(failure(403, &[], S3_URL_EXPIRED).record.class, Forbidden);
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
        };
        let failure = broken(&asked, trouble, &format!("reset by peer, {SECRET}"));
        assert_eq!(failure.record.class, class, "{trouble:?} {sent:?}");
        assert_eq!(failure.record.message, "reset by peer, [redacted]");
        assert_eq!((failure.retry_after, failure.conflict), (None, false));
    }
}

#[test]
fn a_record_keeps_what_an_operator_needs_to_ask_about_it() {
    let record = failure(422, &[("inin-correlation-id", "corr-1")], VALIDATION).record;
    assert_eq!(record.at, Timestamp(1_772_355_600_000));
    assert_eq!(record.status, Some(422));
    assert_eq!(record.code.as_deref(), Some("validation.error"));
    assert_eq!(record.correlation_id.as_deref(), Some("corr-1"));
    assert_eq!(record.fields, ["intervalSeconds"]);
    assert_eq!(record.message, "intervalSeconds must be at most 900");
    assert_eq!(record.token_generation, Some(3));
    let token = Token::new(SECRET.into(), Generation(3));
    assert_eq!(record.token_fingerprint, Some(token.fingerprint()));
    assert_eq!((record.attempt, record.next_try_at), (2, None));
    assert!(record.body.contains("out.of.range"));

    let from_body = failure(401, &[], BAD_CREDENTIALS).record;
    let context = "9d0c0f8e-0a3c-4a52-8d5e-1f0f2b1c7e11";
    assert_eq!(from_body.correlation_id.as_deref(), Some(context));
    let any_case = failure(401, &[("ININ-Correlation-ID", "corr-2")], BAD_CREDENTIALS).record;
    assert_eq!(any_case.correlation_id.as_deref(), Some("corr-2"));
    let nested = failure(422, &[], PURVIEW_NESTED).record;
    assert_eq!(nested.fields, ["purviewId"]);
}

#[test]
fn a_record_is_bounded_and_never_holds_the_token() {
    let long = "x".repeat(5000);
    let body = format!(
        r#"{{"message":"Bearer {SECRET} is expired {long}","code":"{SECRET}","contextId":"{SECRET}",
        "details":[{}]}}"#,
        vec![format!(r#"{{"fieldName":"{SECRET}{long}"}}"#); 200].join(",")
    );
    let lines = [
        ("ININ-Correlation-Id", SECRET),
        (
            "WWW-Authenticate",
            &format!(r#"Bearer error="insufficient_scope", scope="{SECRET}{long}""#),
        ),
    ];
    for status in [200, 302, 401, 403, 422, 500] {
        let record = failure(status, &lines, &body).record;
        let printed = serde_json::to_string(&record).unwrap();
        assert!(!printed.contains("canary"), "{status}: {printed}");
        assert!(
            printed.len() < 8 * 1024,
            "{status}: {} bytes",
            printed.len()
        );
        assert!(record.body.len() <= 1024);
    }
}
