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

/// A grant that proves itself with something, and its endpoint's refusal of that.
fn of_proof(grant: &'static str, proof: Proof, ahead_s: i64, status: u16, body: &str) -> Diagnosis {
    let arrived = Timestamp((1_772_355_600 + ahead_s) * 1000);
    let raw = RawAnswer {
        status,
        date: Some("Sun, 01 Mar 2026 09:00:00 GMT".to_owned()),
        arrived,
        body: body.as_bytes().to_vec(),
        ..RawAnswer::default()
    };
    let failure = answer::read(&raw, &[], proof).expect_err("no token");
    let about = About {
        grant,
        secret_file: String::new(),
        proof_file: "acme.proof".to_owned(),
        audience: "org-acme".to_owned(),
        user: "u@acme".to_owned(),
        ..about()
    };
    Diagnosis::of_mint(&failure, &about, arrived)
}

#[test]
fn every_refusal_of_a_proof_says_what_of_it_is_wrong() {
    let grant = |why: &str| format!(r#"{{"error":"invalid_grant","error_description":"{why}"}}"#);
    let request =
        |why: &str| format!(r#"{{"error":"invalid_request","error_description":"{why}"}}"#);
    let jwt = ("jwt_bearer", Proof::Assertion);
    let refresh = ("refresh_token", Proof::RefreshToken);
    let exchange = ("token_exchange", Proof::SubjectToken);
    let clock = "Set this host's clock";
    let all = "Check issuer, user, audience and acme.proof";
    let subject = "Check [auth.subject], and that its client may exchange for audience org-acme";
    let renew = "Write a new refresh token into acme.proof";
    let used = "the refresh token of client 5b1c9e was used before, was revoked or has expired";
    type Row = (
        (&'static str, Proof),
        i64,
        String,
        &'static str,
        &'static str,
    );
    let rows: [Row; 17] = [
        (
            jwt,
            420,
            grant("expired"),
            "token endpoint URL refuses the assertion of client 5b1c9e, and this host's clock is 7 min ahead of the token endpoint's",
            clock,
        ),
        (
            jwt,
            -90,
            grant("not yet valid"),
            "token endpoint URL refuses the assertion of client 5b1c9e, and this host's clock is 1 min behind the token endpoint's",
            clock,
        ),
        // A clock that is off explains more than what the endpoint noticed of it.
        (
            jwt,
            7200,
            grant("bad signature"),
            "token endpoint URL refuses the assertion of client 5b1c9e, and this host's clock is 2 h ahead of the token endpoint's",
            clock,
        ),
        (
            jwt,
            29,
            grant("expired"),
            "token endpoint URL refuses the assertion of client 5b1c9e for u@acme",
            all,
        ),
        (
            jwt,
            0,
            grant("Invalid JWT signature"),
            "token endpoint URL does not know the key in acme.proof",
            "Register the public half of acme.proof for client 5b1c9e, or set key_id",
        ),
        (
            jwt,
            0,
            grant("wrong audience"),
            "token endpoint URL is not the audience org-acme of the assertion",
            "Set audience to what the token endpoint calls itself",
        ),
        (
            jwt,
            0,
            grant("user hasn't approved this consumer"),
            "token endpoint URL does not let client 5b1c9e act for u@acme",
            "Check user, and that client 5b1c9e may act for it",
        ),
        (
            jwt,
            0,
            grant(""),
            "token endpoint URL refuses the assertion of client 5b1c9e for u@acme",
            all,
        ),
        (
            jwt,
            0,
            request("the assertion is no JWT"),
            "token endpoint URL refuses the assertion of client 5b1c9e for u@acme",
            all,
        ),
        (
            jwt,
            600,
            request("grant_type is missing"),
            "token endpoint URL refuses client 5b1c9e",
            "Check token_url and client 5b1c9e",
        ),
        (refresh, 0, grant("reuse detected"), used, renew),
        (refresh, 9000, grant("expired"), used, renew),
        (
            refresh,
            0,
            request("refresh_token is malformed"),
            used,
            renew,
        ),
        (
            exchange,
            0,
            grant("no"),
            "token endpoint URL does not exchange the subject's token for audience org-acme",
            subject,
        ),
        (
            exchange,
            0,
            request("the subject_token has expired"),
            "token endpoint URL does not exchange the subject's token for audience org-acme",
            subject,
        ),
        (
            exchange,
            0,
            r#"{"error":"invalid_token"}"#.to_owned(),
            "token endpoint URL does not exchange the subject's token for audience org-acme",
            subject,
        ),
        (
            exchange,
            0,
            r#"{"error":"invalid_target"}"#.to_owned(),
            "token endpoint URL knows no audience org-acme",
            "Check audience and resource",
        ),
    ];
    for ((grant, proof), ahead_s, body, reason, remedy) in rows {
        let diagnosis = of_proof(grant, proof, ahead_s, 400, &body);
        let said = diagnosis.reason(Duration::ZERO).replace(URL, "URL");
        let (what, _) = said.split_once(" (400").unwrap_or((&said, ""));
        assert_eq!(what, reason, "{grant} {body}");
        assert_eq!(diagnosis.remedy, remedy, "{grant} {body}");
        assert_eq!(diagnosis.kind, Blocked);
    }
}

#[test]
fn a_throttle_stays_a_throttle_whatever_was_to_be_proven() {
    let body = r#"{"error":"invalid_request","error_description":"rate limit exceeded; subject_token refresh_token assertion"}"#;
    for (grant, proof) in [
        ("jwt_bearer", Proof::Assertion),
        ("refresh_token", Proof::RefreshToken),
        ("token_exchange", Proof::SubjectToken),
    ] {
        assert_eq!(
            of_proof(grant, proof, 0, 400, body).kind,
            Throttled,
            "{grant}"
        );
        assert_eq!(of_proof(grant, proof, 0, 503, "").kind, Outage, "{grant}");
        let client = of_proof(grant, proof, 0, 401, r#"{"error":"invalid_client"}"#);
        let said = client.reason(Duration::ZERO).replace(URL, "URL");
        assert_eq!(
            said,
            "token endpoint URL does not accept client 5b1c9e without a secret (401 invalid_client)"
        );
        assert_eq!(
            client.remedy,
            "Set client_secret_file, or have client 5b1c9e allowed without one"
        );
    }
}

#[test]
fn a_token_from_a_file_is_named_by_its_file_and_by_its_own_end_where_it_claims_one() {
    let about = About {
        grant: "static",
        proof_file: "acme.token".to_owned(),
        ..About::default()
    };
    let hour = Duration::from_secs(3600);
    let now_s = 1_700_000_000;
    let words = "(401 bad.credentials: Invalid login credentials)";
    for (seen, expires_at_s, reason) in [
        (
            Circumstance::Fresh,
            None,
            format!("the platform refuses the token in acme.token {words}"),
        ),
        (
            Circumstance::Ended { age: hour },
            None,
            format!("the platform refuses the token in acme.token {words} after 1 h of use"),
        ),
        (
            Circumstance::Fresh,
            Some(now_s - 7200),
            format!("the token in acme.token expired 2 h ago by its own claim {words}"),
        ),
        (
            Circumstance::Ended { age: hour },
            Some(now_s),
            format!("the token in acme.token expired 0 s ago by its own claim {words}"),
        ),
        // Refused before the end that it claims: that claim explains nothing.
        (
            Circumstance::Ended { age: hour },
            Some(now_s + 60),
            format!("the platform refuses the token in acme.token {words} after 1 h of use"),
        ),
        (
            Circumstance::Fresh,
            Some(i64::MIN),
            format!(
                "the token in acme.token expired 106751991167300 d ago by its own claim {words}"
            ),
        ),
        (
            Circumstance::Fresh,
            Some(i64::MAX),
            format!("the platform refuses the token in acme.token {words}"),
        ),
    ] {
        let refused = Refused {
            expires_at_s,
            ..token(seen)
        };
        let diagnosis = Diagnosis::of_rejection(&refusal_words(), refused, &about);
        assert_eq!(diagnosis.reason(Duration::ZERO), reason, "{expires_at_s:?}");
        assert_eq!(diagnosis.remedy, "Write a newer token into acme.token");
    }
}

fn refusal_words() -> FailureRecord {
    refused(Some("bad.credentials"), None)
}

#[test]
fn a_platform_that_names_the_audience_or_wants_a_user_is_understood() {
    let said = |message: &str| {
        let record = FailureRecord {
            message: message.to_owned(),
            ..refusal_words()
        };
        let about = About {
            audience: "org-acme".to_owned(),
            ..about()
        };
        let diagnosis = Diagnosis::of_rejection(&record, token(Circumstance::Fresh), &about);
        (
            diagnosis.reason(Duration::ZERO).replace(URL, "URL"),
            diagnosis.remedy,
        )
    };
    let (reason, remedy) = said("The audience of the token is invalid");
    assert_eq!(
        reason,
        "the platform is not whom tokens from URL are meant for (401 bad.credentials: The audience of the token is invalid)"
    );
    assert_eq!(
        remedy,
        "Check audience (org-acme), and that token_url and api_url belong to one region"
    );
    let (reason, remedy) = said("This request requires a user context.");
    assert!(reason.starts_with("the platform wants a token that acts for a user, and that of client 5b1c9e is a service token"), "{reason}");
    let grants = "Configure grant = \"jwt_bearer\" or \"refresh_token\"";
    assert_eq!(remedy, grants, "a fallback is for no upload");
}

#[test]
fn a_token_of_another_organisation_says_both_and_how_to_state_the_other() {
    let about = About {
        audience: "org-b".to_owned(),
        ..about()
    };
    let diagnosis = Diagnosis::of_organization("org-b", "org-a", true, &about);
    assert_eq!(
        diagnosis.reason(Duration::ZERO),
        "its token belongs to organisation org-b, not org-a; nothing was sent"
    );
    assert_eq!(
        diagnosis.remedy,
        "Check client 5b1c9e and audience org-b; if org-b is right, set organization = \"org-b\""
    );
}

#[test]
fn a_token_of_another_type_or_a_key_that_cannot_sign_says_so() {
    let failure = MintFailure::Key(crate::auth::KeyError::Encrypted {
        file: "acme.pem".to_owned(),
    });
    let diagnosis = Diagnosis::of_mint(&failure, &about(), Timestamp(0));
    assert_eq!(diagnosis.kind, Blocked);
    assert_eq!(
        diagnosis.reason(Duration::ZERO),
        "acme.pem holds an encrypted private key: store it without a passphrase, mode 0600"
    );
}

#[test]
fn a_subjects_outage_says_how_long_it_lasts_only_once() {
    let hold = crate::auth::CredentialHold {
        kind: Outage,
        reason: "token endpoint S unreachable for 3 min (connection refused)".to_owned(),
        remedy: String::new(),
        since: Timestamp(0),
        until: crate::clock::Instant(Duration::ZERO),
        probes_failed: 4,
        last: None,
    };
    let failure = MintFailure::Subject(Box::new(hold));
    let diagnosis = Diagnosis::of_mint(&failure, &about(), Timestamp(0));
    assert_eq!(diagnosis.kind, Outage);
    assert_eq!(
        diagnosis.reason(Duration::from_secs(600)),
        "the token to exchange is not to be had: token endpoint S unreachable for 3 min (connection refused)"
    );
}
