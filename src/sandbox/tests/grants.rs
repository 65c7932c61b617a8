//! The grants from the sender's side: what each takes, and what it refuses in which words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::super::assertion::PublicKey;
use super::super::grants::{EXCHANGE, JWT_BEARER};
use super::super::{Grants, Options};
use super::{Rig, Seen, body, encode};

const TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

impl Rig {
    async fn granting() -> Self {
        Self::with(Options {
            grants: Grants::named("mixed").unwrap(),
            ..Options::default()
        })
        .await
    }

    async fn ask(&self, authorization: Option<&str>, form: &[(&str, &str)]) -> Seen {
        let form: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let request = self
            .http
            .post(self.url("/oauth/token"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.join("&"));
        let request = match authorization {
            Some(header) => request.header("Authorization", header),
            None => request,
        };
        self.send(request).await.unwrap()
    }

    async fn assert_with(&self, assertion: &str) -> Seen {
        self.ask(
            None,
            &[("grant_type", JWT_BEARER), ("assertion", assertion)],
        )
        .await
    }

    async fn exchange(&self, subject: &str, more: &[(&str, &str)]) -> Seen {
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", TYPE),
        ];
        form.extend(more);
        self.ask(Some(&self.basic("acme")), &form).await
    }

    async fn refresh(&self, token: &str) -> Seen {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.ask(Some(&self.basic("acme")), &form).await
    }

    async fn sign_in(&self) -> Value {
        self.control("/_sandbox/tenants/acme/credentials", json!({}))
            .await
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A right assertion of acme's client, but for what `change` changes of its claims.
fn claims(rig: &Rig, change: Value) -> Value {
    let mut claims = json!({
        "iss": "client-acme", "sub": "recorder@acme", "aud": rig.url("/oauth/token"),
        "iat": now_s() - 30, "exp": now_s() + 120, "jti": "n1",
    });
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn rs256(claims: &Value) -> String {
    let pem: String = PublicKey::fixture_pem()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(pem).unwrap()).unwrap();
    let message = message(&json!({"alg": "RS256"}), claims);
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn es256(claims: &Value) -> String {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
    let message = message(&json!({"alg": "ES256"}), claims);
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let rig = Rig::granting().await;
    let assertion = rs256(&claims(&rig, json!({})));
    let seen = rig.assert_with(&assertion).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(seen.body["token_type"], "bearer");
    let again = rig.assert_with(&assertion).await;
    assert_eq!(again.said(), (400, "invalid_grant"));
    assert_eq!(
        again.body["error_description"],
        "the assertion was used before (jti)"
    );
    let ledger = rig.ledger().await;
    assert_eq!(
        ledger["tenants"]["acme"]["token_requests"], 2,
        "it names its client itself"
    );
}

#[tokio::test]
async fn an_assertion_with_any_fault_is_refused_for_that_fault() {
    let rig = Rig::granting().await;
    let now = now_s();
    for (change, why) in [
        (json!({"iss": "nobody"}), "client authentication is missing"),
        (json!({"sub": null}), "the assertion has no sub"),
        (
            json!({"sub": "somebody"}),
            "the user of the assertion is unknown to this client",
        ),
        (
            json!({"aud": "http://127.0.0.1:1/oauth/token"}),
            "the aud of the assertion is not this token endpoint",
        ),
        (
            json!({"aud": null}),
            "the aud of the assertion is not this token endpoint",
        ),
        (json!({"exp": now - 60}), "the assertion has expired"),
        (json!({"exp": null}), "the assertion has no exp"),
        (
            json!({"exp": now + 7200}),
            "the assertion expires too far in the future",
        ),
        (
            json!({"iat": now + 60}),
            "the assertion was issued in the future",
        ),
        (json!({"nbf": now + 60}), "the assertion is not valid yet"),
        (json!({"jti": null}), "the assertion has no jti"),
    ] {
        let seen = rig.assert_with(&rs256(&claims(&rig, change.clone()))).await;
        assert_eq!(seen.body["error_description"], why, "{change}");
    }
    let good = claims(&rig, json!({}));
    let unsigned = format!("{}.", message(&json!({"alg": "none"}), &good));
    let (head, _) = rs256(&good)
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let forged = format!("{head}.{}", URL_SAFE_NO_PAD.encode([7; 256]));
    for bad in [unsigned, forged, es256(&good)] {
        let seen = rig.assert_with(&bad).await;
        assert_eq!(seen.said(), (400, "invalid_grant"));
        assert_eq!(
            seen.body["error_description"],
            "the signature of the assertion does not verify with the client's key"
        );
    }
    assert_eq!(rig.assert_with("no.jwt").await.status, 401);
    let list = json!({"aud": ["elsewhere", rig.url("/oauth/token")]});
    assert_eq!(
        rig.assert_with(&rs256(&claims(&rig, list))).await.status,
        200
    );
}

#[tokio::test]
async fn an_assertion_is_judged_by_the_endpoints_own_clock_which_its_answer_tells() {
    let rig = Rig::granting().await;
    rig.change("acme", json!({"clock_offset_s": 600})).await;
    let seen = rig.assert_with(&rs256(&claims(&rig, json!({})))).await;
    assert_eq!(seen.body["error_description"], "the assertion has expired");
    let told = jiff::fmt::rfc2822::parse(seen.header("date")).unwrap();
    let ahead = told.timestamp().as_second() - now_s();
    assert!((595..=605).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn a_service_token_buys_a_tenants_which_ends_with_it() {
    let rig = Rig::granting().await;
    rig.change("partner", json!({"token_life_ms": 1000})).await;
    let service = rig.token("partner").await;
    let seen = rig.exchange(&service, &[("audience", "org-acme")]).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(seen.body["issued_token_type"], TYPE);
    let token = seen.body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
    // A service's own token opens nothing.
    assert_eq!(rig.deliver(&service, &body(1, &[b"b"])).await.status, 403);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(
        rig.deliver(&token, &body(1, &[b"b"])).await.said(),
        (401, "credentials.expired")
    );
    let late = rig.exchange(&service, &[]).await;
    assert_eq!(
        late.body["error_description"],
        "the subject_token has expired"
    );
}

#[tokio::test]
async fn an_exchange_of_the_wrong_thing_is_refused_for_it() {
    let rig = Rig::granting().await;
    let (service, other) = (rig.token("partner").await, rig.token("globex").await);
    for (subject, more, error, why) in [
        (
            "made-up",
            &[][..],
            "invalid_request",
            "the subject_token is invalid",
        ),
        (
            &*other,
            &[],
            "invalid_request",
            "the subject_token is invalid",
        ),
        (
            &*service,
            &[("audience", "org-globex")],
            "invalid_target",
            "the audience is no organisation of this client",
        ),
        (
            &*service,
            &[(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:saml2",
            )],
            "invalid_request",
            "requested_token_type is not supported",
        ),
        (
            &*service,
            &[("requested_token_type", "access_token")],
            "invalid_request",
            "requested_token_type is not supported",
        ),
        (
            &*service,
            &[("actor_token", "x")],
            "invalid_request",
            "actor_token is not supported",
        ),
    ] {
        let seen = rig.exchange(subject, more).await;
        assert_eq!(seen.said(), (400, error), "{more:?}");
        assert_eq!(seen.body["error_description"], why);
    }
    rig.change("partner", json!({"revoke": true})).await;
    assert_eq!(
        rig.exchange(&service, &[]).await.said(),
        (400, "invalid_request")
    );
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", service.as_str()),
    ];
    let seen = rig.ask(Some(&rig.basic("acme")), &form).await;
    assert_eq!(
        seen.body["error_description"],
        "subject_token_type is missing"
    );
}

#[tokio::test]
async fn a_refresh_token_rotates_and_one_that_comes_twice_takes_its_family_with_it() {
    let rig = Rig::granting().await;
    let first = rig.sign_in().await;
    let first = first["refresh_token"].as_str().unwrap();
    let second = rig.refresh(first).await;
    let (token, next) = (
        second.body["access_token"].as_str().unwrap(),
        second.body["refresh_token"].as_str().unwrap(),
    );
    assert_ne!(first, next);
    assert_eq!(rig.deliver(token, &body(0, &[b"a"])).await.status, 201);
    let stolen = rig.refresh(first).await;
    assert_eq!(stolen.said(), (400, "invalid_grant"));
    assert!(
        stolen.body["error_description"]
            .as_str()
            .unwrap()
            .contains("used before")
    );
    assert_eq!(
        rig.refresh(next).await.said(),
        (400, "invalid_grant"),
        "the whole family"
    );
    assert_eq!(
        rig.deliver(token, &body(1, &[b"b"])).await.status,
        401,
        "and its tokens"
    );
    let again = rig.sign_in().await;
    rig.change("acme", json!({"rotate_refresh": false})).await;
    for _ in 0..2 {
        let seen = rig.refresh(again["refresh_token"].as_str().unwrap()).await;
        assert_eq!(seen.status, 200);
        assert_eq!(seen.body["refresh_token"], Value::Null);
    }
}

#[tokio::test]
async fn a_client_without_its_secret_is_let_in_only_where_that_is_allowed() {
    let rig = Rig::granting().await;
    let given = rig.sign_in().await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "client-acme"),
        ("refresh_token", given["refresh_token"].as_str().unwrap()),
    ];
    assert_eq!(rig.ask(None, &form).await.said(), (401, "invalid_client"));
    rig.change("acme", json!({"public_client": true})).await;
    assert_eq!(rig.ask(None, &form).await.status, 200);
    rig.change("acme", json!({"grants": ["client_credentials"]}))
        .await;
    assert_eq!(
        rig.ask(None, &form).await.said(),
        (400, "unauthorized_client")
    );
}

#[tokio::test]
async fn a_token_that_idles_is_revoked_and_one_that_is_used_is_not() {
    let rig = Rig::granting().await;
    rig.change("acme", json!({"idle_timeout_ms": 1500})).await;
    let (used, idle) = (rig.token("acme").await, rig.token("acme").await);
    for sequence in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let seen = rig.deliver(&used, &body(sequence, &[b"a"])).await;
        assert_eq!(seen.status, 201, "{}", seen.text);
    }
    assert_eq!(
        rig.deliver(&idle, &body(3, &[b"b"])).await.said(),
        (401, "bad.credentials")
    );
}

#[tokio::test]
async fn a_permission_and_a_user_are_asked_for_beside_the_scope() {
    let rig = Rig::granting().await;
    let service = rig.token("acme").await;
    rig.change("acme", json!({"permissions": ["read:screen_recording"]}))
        .await;
    let seen = rig.deliver(&service, &body(0, &[b"a"])).await;
    assert_eq!(seen.said(), (403, "missing.permissions"));
    assert!(
        seen.text.contains("admin:screen_recording"),
        "{}",
        seen.text
    );
    rig.change(
        "acme",
        json!({"permissions": ["admin:screen_recording"], "needs_user": true}),
    )
    .await;
    let seen = rig.deliver(&service, &body(0, &[b"a"])).await;
    assert_eq!(seen.said(), (400, "bad.request"));
    assert!(
        seen.text.contains("requires a user context"),
        "{}",
        seen.text
    );
    let user = rig.assert_with(&rs256(&claims(&rig, json!({})))).await;
    let user = user.body["access_token"].as_str().unwrap();
    assert_eq!(rig.deliver(user, &body(0, &[b"a"])).await.status, 201);
}

#[tokio::test]
async fn a_token_shows_whose_it_is_where_it_is_told_to() {
    let rig = Rig::granting().await;
    let show = async |claims: &str| {
        rig.change("acme", json!({"claims": claims})).await;
        rig.ask_token("acme").await.unwrap().body
    };
    assert_eq!(show("nowhere").await["organization"], Value::Null);
    assert_eq!(show("answer").await["organization"], "org-acme");
    rig.change(
        "acme",
        json!({"purview_lag_ms": 700, "purviews": ["p1", "p2"]}),
    )
    .await;
    let read = |answer: &Value| -> Value {
        let token = answer["access_token"].as_str().unwrap();
        assert!(token.contains(".canary-token-acme-"), "{token}");
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let early = read(&show("jwt").await);
    assert_eq!(
        (&early["organization"], &early["purviews"]),
        (&json!("org-acme"), &Value::Null)
    );
    tokio::time::sleep(Duration::from_millis(800)).await;
    let late = read(&show("jwt").await);
    assert_eq!(
        (&late["purview_id"], &late["purviews"]),
        (&json!("p1"), &json!(["p1", "p2"]))
    );
}
