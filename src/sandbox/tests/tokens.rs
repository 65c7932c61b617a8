//! The token endpoint, and what becomes of the tokens it handed out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Options, Rig, body};

const GRANT: &str = "grant_type=client_credentials";

#[tokio::test]
async fn a_client_that_is_not_authenticated_is_refused() {
    let rig = Rig::new().await;
    let (id, _) = rig.sandbox.credentials("acme").unwrap();
    let wrong = super::basic_of(&format!("{id}:canary-wrong"));
    let nobody = super::basic_of("nobody:canary-wrong");
    for (authorization, why) in [
        (String::new(), "client authentication is not HTTP Basic"),
        (
            "Bearer x".to_owned(),
            "client authentication is not HTTP Basic",
        ),
        (nobody, "client not found"),
        (wrong, "client authentication failed"),
    ] {
        let seen = rig
            .send(rig.token_request(&authorization, GRANT))
            .await
            .unwrap();
        assert_eq!(seen.said(), (401, "invalid_client"), "{authorization}");
        assert_eq!(seen.body["error_description"], why);
        assert_eq!(seen.body["description"], why);
        assert!(seen.header("www-authenticate").starts_with("Basic"));
    }
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["token_requests"], &ledger["token_refusals"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(ledger["tenants"]["acme"]["token_refusals"], 1);
}

#[tokio::test]
async fn a_token_request_of_the_wrong_shape_is_refused() {
    let rig = Rig::new().await;
    let basic = rig.basic("acme");
    for (form, error) in [
        ("", "invalid_request"),
        (
            "grant_type=client_credentials&grant_type=client_credentials",
            "invalid_request",
        ),
        ("grant_type=%zz", "invalid_request"),
        (
            "grant_type=password&username=u&password=p",
            "unsupported_grant_type",
        ),
    ] {
        let seen = rig.send(rig.token_request(&basic, form)).await.unwrap();
        assert_eq!(seen.said(), (400, error), "{form}");
    }
    let json = rig
        .http
        .post(rig.url("/oauth/token"))
        .header("Authorization", &basic)
        .json(&json!({"grant_type": "client_credentials"}));
    assert_eq!(
        rig.send(json).await.unwrap().said(),
        (400, "invalid_request")
    );
}

#[tokio::test]
async fn a_disabled_client_gets_no_token_and_its_tokens_die() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.change("acme", json!({"disabled": true})).await;
    assert_eq!(
        rig.ask_token("acme").await.unwrap().said(),
        (400, "unauthorized_client")
    );
    assert_eq!(
        rig.deliver(&token, &body(0, &[b"a"])).await.said(),
        (401, "bad.credentials")
    );
    rig.change("acme", json!({"disabled": false})).await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
}

#[tokio::test]
async fn a_throttled_or_absent_token_endpoint_concerns_its_tenant_only() {
    let rig = Rig::new().await;
    rig.change("acme", json!({"token_endpoint": "throttled"}))
        .await;
    rig.change("globex", json!({"token_endpoint": "down"}))
        .await;
    let seen = rig.ask_token("acme").await.unwrap();
    assert_eq!(seen.said(), (400, "invalid_request"));
    assert!(
        seen.body["error_description"]
            .as_str()
            .unwrap()
            .starts_with("rate limit exceeded;")
    );
    assert!(rig.ask_token("globex").await.is_err());
    rig.token("initech").await;
    let ledger = rig.ledger().await;
    assert_eq!(ledger["throttled"], 1);
    assert_eq!(ledger["tenants"]["globex"]["token_requests"], 1);
    rig.change("globex", json!({"token_endpoint": "up"})).await;
    rig.token("globex").await;
}

#[tokio::test]
async fn a_scope_that_the_client_lacks_is_left_out_or_refused() {
    let rig = Rig::new().await;
    let ask =
        |scope: &str| rig.token_request(&rig.basic("acme"), &format!("{GRANT}&scope={scope}"));
    let both = format!("{}+admin", super::SCOPE);
    let seen = rig.send(ask(&both)).await.unwrap();
    assert_eq!(seen.body["scope"], super::SCOPE);
    rig.change("acme", json!({"scope_policy": "strict"})).await;
    assert_eq!(
        rig.send(ask(&both)).await.unwrap().said(),
        (400, "invalid_scope")
    );
    rig.change("acme", json!({"scope_policy": "narrow", "scopes": []}))
        .await;
    let none = rig.send(ask(super::SCOPE)).await.unwrap();
    assert_eq!((none.status, &none.body["scope"]), (200, &json!("")));
}

#[tokio::test]
async fn every_401_says_what_is_wrong_with_the_token() {
    let rig = Rig::with(Options {
        token_life_of: BTreeMap::from([("globex".to_owned(), Duration::ZERO)]),
        ..Options::default()
    })
    .await;
    let short = rig.token("globex").await;
    let revoked = rig.token("acme").await;
    rig.change("acme", json!({"revoke": true})).await;
    for (token, code) in [
        (short.as_str(), "credentials.expired"),
        (&revoked, "bad.credentials"),
        ("canary-made-up", "bad.credentials"),
    ] {
        let seen = rig.deliver(token, &body(0, &[b"a"])).await;
        assert_eq!(seen.said(), (401, code));
        assert!(
            seen.header("www-authenticate")
                .contains("error=\"invalid_token\"")
        );
        assert_eq!(seen.header("inin-correlation-id"), seen.body["contextId"]);
    }
    let mut bare = rig.upload("x", &body(0, &[b"a"])).build().unwrap();
    bare.headers_mut().remove("Authorization");
    let seen: Value = rig.http.execute(bare).await.unwrap().json().await.unwrap();
    assert_eq!(seen["code"], "authentication.required");
    let ledger = rig.ledger().await;
    assert_eq!(ledger["unauthorized"], 4);
    assert_eq!(ledger["tenants"]["acme"]["unauthorized"], 1);
    assert_eq!(ledger["tenants"]["globex"]["unauthorized"], 1);
}

#[tokio::test]
async fn a_token_counts_as_expired_once_and_only_after_a_sign_of_life() {
    let rig = Rig::new().await;
    rig.change("acme", json!({"token_life_ms": 0})).await;
    rig.token("acme").await;
    assert_eq!(rig.ledger().await["expired_tokens"], 0);
    let second = rig.token("acme").await;
    assert_eq!(rig.ledger().await["expired_tokens"], 1);
    rig.deliver(&second, &body(0, &[b"a"])).await;
    rig.deliver(&second, &body(0, &[b"a"])).await;
    assert_eq!(rig.ledger().await["tenants"]["acme"]["expired_tokens"], 2);
}

#[tokio::test]
async fn a_token_response_can_lie_about_its_life() {
    let rig = Rig::new().await;
    for (claim, shown) in [
        (json!("5"), json!("5")),
        (json!(-1), json!(-1)),
        (json!(null), Value::Null),
        (json!(1e30), json!(1e30)),
    ] {
        rig.change("acme", json!({"expires_in": claim})).await;
        assert_eq!(
            rig.ask_token("acme").await.unwrap().body["expires_in"],
            shown
        );
    }
}

#[tokio::test]
async fn a_changed_secret_may_hold_any_character() {
    let rig = Rig::new().await;
    let old = rig.basic("acme");
    rig.change("acme", json!({"secret": "canary +%/:ü&="}))
        .await;
    assert_eq!(
        rig.send(rig.token_request(&old, GRANT))
            .await
            .unwrap()
            .status,
        401
    );
    let token = rig.token("acme").await;
    assert!(token.contains("canary"));
}

#[tokio::test]
async fn the_same_seed_mints_the_same_secrets() {
    let secret = async |seed| {
        let rig = Rig::with(Options {
            seed,
            ..Options::default()
        })
        .await;
        rig.sandbox.credentials("acme").unwrap().1
    };
    let first = secret(7).await;
    assert!(first.contains("canary"));
    assert_eq!(first, secret(7).await);
    assert_ne!(first, secret(8).await);
}

#[tokio::test]
async fn a_token_tells_its_organisation_to_who_holds_it() {
    let rig = Rig::new().await;
    let me = |token: &str| {
        rig.http
            .get(rig.url("/api/v2/tokens/me"))
            .bearer_auth(token)
    };
    let seen = rig.send(me("canary-made-up")).await.unwrap();
    assert_eq!(seen.said(), (401, "bad.credentials"));
    let token = rig.token("acme").await;
    for organization in ["org-acme", "org-other"] {
        rig.change("acme", json!({"organization": organization}))
            .await;
        let seen = rig.send(me(&token)).await.unwrap();
        assert_eq!(seen.body["organization"]["id"], organization);
    }
}
