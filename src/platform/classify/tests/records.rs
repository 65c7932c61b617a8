//! What an answer leaves behind: records, hints and limits.

use super::*;

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

#[test]
fn a_throttle_tells_when_to_come_back() {
    let secs = |seconds| Some(Duration::from_secs(seconds));
    let exhausted = [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "42")];
    let left = [("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "42")];
    let rows: &[(u16, Lines, &str, FailureClass, Option<Duration>)] = &[
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
