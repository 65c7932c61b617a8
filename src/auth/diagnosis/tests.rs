//! Golden sentences, from bodies that real endpoints send (through `answer`, as in life).

use super::*;
use crate::auth::answer::{self, RawAnswer};
use crate::auth::grant::Proof;
use crate::auth::secret::SecretError;
use crate::model::Missing;
use CredentialHoldKind::{Blocked, Outage, Throttled};

const URL: &str = "https://login.example/oauth/token";

fn about() -> About {
    About {
        endpoint: URL.to_owned(),
        client_id: "5b1c9e".to_owned(),
        grant: "client_credentials",
        scopes: vec!["a:write".to_owned(), "b".to_owned()],
        secret_file: "acme.secret".to_owned(),
        ..About::default()
    }
}

fn of_answer(status: u16, retry_after: Option<&str>, body: &str) -> Diagnosis {
    let raw = RawAnswer {
        status,
        retry_after: retry_after.map(str::to_owned),
        body: body.as_bytes().to_vec(),
        ..RawAnswer::default()
    };
    let failure = answer::read(&raw, &[], Proof::Nothing).expect_err("no token");
    Diagnosis::of_mint(&failure, &about(), Timestamp(0))
}

fn refused(code: Option<&str>, missing: Option<Missing>) -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class: FailureClass::Unauthorized,
        status: Some(401),
        code: code.map(str::to_owned),
        correlation_id: None,
        fields: Vec::new(),
        missing,
        message: "Invalid login credentials.".to_owned(),
        body: String::new(),
        token_generation: Some(3),
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}

fn token(seen: Circumstance) -> Refused<'static> {
    Refused {
        seen,
        retry_on_401: true,
        granted: None,
        expires_at_s: None,
        at: Timestamp(1_700_000_000_000),
    }
}

#[test]
fn every_answer_of_a_token_endpoint_has_a_reason_and_a_remedy() {
    let secret = "Put the secret of client 5b1c9e into acme.secret";
    let either = "Check token_url and client 5b1c9e";
    let proxy = "Check token_url and any proxy between";
    let rows = [
        (
            401,
            r#"{"error":"invalid_client","description":"client not found","error_description":"client not found"}"#,
            Blocked,
            "token endpoint URL does not accept client 5b1c9e with its secret (401 invalid_client: client not found)",
            secret,
        ),
        (
            400,
            r#"{"error":"invalid_client"}"#,
            Blocked,
            "token endpoint URL does not accept client 5b1c9e with its secret (400 invalid_client)",
            secret,
        ),
        (
            401,
            "",
            Blocked,
            "token endpoint URL does not accept client 5b1c9e with its secret (401)",
            secret,
        ),
        (
            400,
            r#"{"error":"invalid_client","error_description":"client is disabled"}"#,
            Blocked,
            "client 5b1c9e is disabled (400 invalid_client: client is disabled)",
            "Have client 5b1c9e activated where it was made",
        ),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            Blocked,
            "client 5b1c9e may not use the grant client_credentials (400 unauthorized_client)",
            "Allow it for client 5b1c9e, or configure another grant",
        ),
        (
            400,
            r#"{"error":"invalid_scope"}"#,
            Blocked,
            "token endpoint URL refuses the scopes asked for: a:write b (400 invalid_scope)",
            "Grant them to client 5b1c9e, or take them out of scopes",
        ),
        (
            200,
            r#"{"error":"invalid_grant","description":"no"}"#,
            Blocked,
            "token endpoint URL refuses client 5b1c9e (200 invalid_grant: no)",
            either,
        ),
        (
            404,
            "gone fishing",
            Blocked,
            "there is no token endpoint at URL (404)",
            "Check token_url",
        ),
        (
            400,
            r#"{"error":"invalid_request","description":"rate limit exceeded; try again in 12 seconds"}"#,
            Throttled,
            "token endpoint URL throttles (400 invalid_request: rate limit exceeded; try again in 12 seconds)",
            "",
        ),
        (
            400,
            r#"{"error":"invalid_request","description":"missing grant_type"}"#,
            Blocked,
            "token endpoint URL refuses client 5b1c9e (400 invalid_request: missing grant_type)",
            either,
        ),
        (
            429,
            "{}",
            Throttled,
            "token endpoint URL throttles (429)",
            "",
        ),
        (
            503,
            "busy",
            Outage,
            "token endpoint URL unavailable (503)",
            "",
        ),
        (
            500,
            r#"{"error":"server_error"}"#,
            Outage,
            "token endpoint URL unavailable (500 server_error)",
            "",
        ),
        (
            200,
            "<html>Sign in to the guest network",
            Outage,
            "token endpoint URL answers with a web page instead of a token (200)",
            proxy,
        ),
        (
            302,
            "",
            Outage,
            "token endpoint URL redirects, which is not followed (302)",
            proxy,
        ),
        (
            200,
            "{}",
            Outage,
            "token endpoint URL answers with something that is no token (200)",
            "Check token_url",
        ),
        (
            200,
            r#"{"access_token":"canary","token_type":"mac"}"#,
            Blocked,
            "token endpoint URL gives a token that is no bearer token (200)",
            "Have client 5b1c9e issue bearer tokens",
        ),
    ];
    for (status, body, kind, reason, remedy) in rows {
        let diagnosis = of_answer(status, None, body);
        assert_eq!(diagnosis.kind, kind, "{status} {body}");
        let said = diagnosis.reason(Duration::ZERO).replace(URL, "URL");
        assert_eq!(said, reason, "{status} {body}");
        assert_eq!(diagnosis.remedy, remedy, "{status} {body}");
        assert!(!format!("{diagnosis:?}").contains("canary"));
        let record = diagnosis.record.expect("an answer came");
        assert_eq!(record.status, Some(status));
    }
}

#[test]
fn an_endpoint_that_is_down_says_for_how_long_and_why() {
    let failure = MintFailure::Unreachable {
        cause: "connection refused".to_owned(),
    };
    let diagnosis = Diagnosis::of_mint(&failure, &about(), Timestamp(0));
    assert_eq!(diagnosis.kind, Outage);
    assert_eq!(diagnosis.record, None);
    assert_eq!(
        diagnosis.reason(Duration::ZERO),
        "token endpoint https://login.example/oauth/token unreachable (connection refused)"
    );
    assert_eq!(
        diagnosis.reason(Duration::from_secs(12 * 60 + 40)),
        "token endpoint https://login.example/oauth/token unreachable for 12 min (connection refused)"
    );
}

#[test]
fn a_throttles_hint_is_kept() {
    let diagnosis = of_answer(429, Some("3600"), "{}");
    assert_eq!(diagnosis.hint, Some(Duration::from_secs(3600)));
    let diagnosis = of_answer(503, Some("5"), "");
    assert_eq!(diagnosis.kind, Throttled);
}

#[test]
fn an_unusable_secret_file_is_its_own_reason() {
    let failure = MintFailure::Secret(SecretError::Readable {
        name: "acme.secret".to_owned(),
        mode: 0o644,
    });
    let diagnosis = Diagnosis::of_mint(&failure, &about(), Timestamp(0));
    assert_eq!(diagnosis.kind, Blocked);
    assert_eq!(
        diagnosis.reason(Duration::from_secs(60)),
        "acme.secret is readable by others (0644): chmod 600 acme.secret"
    );
    let failure = MintFailure::Secret(SecretError::Io {
        path: "/etc/reelay/acme.secret".into(),
        source: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
    });
    let diagnosis = Diagnosis::of_mint(&failure, &about(), Timestamp(0));
    assert_eq!(
        diagnosis.reason(Duration::ZERO),
        "secret file /etc/reelay/acme.secret: permission denied"
    );
}

#[test]
fn refused_tokens_are_explained_by_what_the_platform_and_the_token_say() {
    let granted = ["screenshare:read".to_owned()];
    let all = ["a:write".to_owned(), "b".to_owned()];
    let fresh = "tokens fresh from https://login.example/oauth/token";
    let words = "(401 bad.credentials: Invalid login credentials)";
    let region = "Check that token_url and api_url belong to one region and organisation, and that client 5b1c9e is active";
    let add = "Add it to client 5b1c9e";
    let named = Some(Missing::Scope("c:write".to_owned()));
    let rows: [(_, _, Option<&[String]>, String, &str); 6] = [
        (
            Some("bad.credentials"),
            None,
            None,
            format!("the platform refuses {fresh} {words}"),
            region,
        ),
        (
            Some("bad.credentials"),
            None,
            Some(&all),
            format!("the platform refuses {fresh} {words}"),
            region,
        ),
        (
            Some("bad.credentials"),
            None,
            Some(&granted),
            "its token lacks the scope a:write (granted: screenshare:read)".to_owned(),
            add,
        ),
        (
            Some("bad.credentials"),
            named.clone(),
            Some(&all),
            "its token lacks the scope c:write (granted: a:write b)".to_owned(),
            add,
        ),
        (
            None,
            named,
            None,
            "its token lacks the scope c:write".to_owned(),
            add,
        ),
        (
            Some("credentials.expired"),
            None,
            None,
            format!(
                "the platform calls {fresh} expired (401 credentials.expired: Invalid login credentials)"
            ),
            "Compare the clocks of the token endpoint and the platform",
        ),
    ];
    for (code, missing, granted, reason, remedy) in rows {
        let record = refused(code, missing);
        let seen = Circumstance::Fresh;
        let refused = Refused {
            granted,
            ..token(seen)
        };
        let diagnosis = Diagnosis::of_rejection(&record, refused, &about());
        assert_eq!(diagnosis.kind, Blocked);
        assert_eq!(diagnosis.reason(Duration::from_secs(60)), reason);
        assert_eq!(diagnosis.remedy, remedy);
        assert_eq!(diagnosis.record, Some(record));
    }
}

#[test]
fn with_retry_on_401_off_the_end_of_a_token_is_the_reason() {
    let record = refused(Some("credentials.expired"), None);
    let refused = Refused {
        retry_on_401: false,
        ..token(Circumstance::Expired)
    };
    let diagnosis = Diagnosis::of_rejection(&record, refused, &about());
    assert_eq!(
        diagnosis.reason(Duration::ZERO),
        "its token expired (401 credentials.expired: Invalid login credentials) and retry_on_401 is false"
    );
}
