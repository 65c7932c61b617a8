//! The json endpoint and the ledger.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, body, body_of, sha256};

#[tokio::test]
async fn a_part_is_stored_once_whatever_request_it_comes_in() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let first = rig.deliver(&token, &body(0, &[b"one", b"two"])).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(first.body["parts"][1]["status"], "stored");
    let again = rig.deliver(&token, &body(1, &[b"two"])).await;
    assert_eq!(again.status, 208);
    assert_eq!(again.body["parts"][0]["status"], "duplicate");
    let mixed = rig.deliver(&token, &body(1, &[b"two", b"three"])).await;
    assert_eq!(mixed.status, 201);
    assert_eq!(mixed.body["session"], "s1");
    assert_eq!(mixed.body["parts"][0]["status"], "duplicate");
    assert_eq!(mixed.body["parts"][1]["status"], "stored");

    let ledger = rig.ledger().await;
    let session = &ledger["tenants"]["acme"]["sessions"]["s1"];
    assert_eq!(session["sequences"], json!([0, 1, 2]));
    assert_eq!(session["bytes"], 11);
    assert_eq!(session["sha256"], sha256(b"onetwothree"));
    assert_eq!(ledger["duplicates_suppressed"], 2);
    assert_eq!(ledger["tenants"]["acme"]["delivered"], 3);
    assert_eq!(ledger["order_inversions"], 0);
    assert_eq!(rig.sandbox.ledger().unwrap(), ledger);
    rig.deliver(&token, &body(3, &[b"four"])).await;
    let session = &rig.ledger().await["tenants"]["acme"]["sessions"]["s1"];
    assert_eq!(session["sha256"], sha256(b"onetwothreefour"));
}

#[tokio::test]
async fn other_bytes_under_a_stored_sequence_conflict_and_store_nothing_of_their_request() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.deliver(&token, &body(1, &[b"two"])).await;
    let seen = rig.deliver(&token, &body(1, &[b"2", b"three"])).await;
    assert_eq!(seen.said(), (409, "conflict.digest"));
    let ledger = rig.ledger().await;
    assert_eq!(
        ledger["tenants"]["acme"]["sessions"]["s1"]["sequences"],
        json!([1])
    );
    assert_eq!(ledger["conflicts"], 1);
}

#[tokio::test]
async fn a_lower_sequence_is_an_inversion_unless_it_says_that_it_is_late() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.deliver(&token, &body(2, &[b"c"])).await;
    rig.deliver(&token, &body(0, &[b"a"])).await;
    let mut late = body(1, &[b"b"]);
    late["late"] = json!(true);
    assert_eq!(rig.deliver(&token, &late).await.status, 201);
    let ledger = rig.ledger().await;
    assert_eq!(ledger["order_inversions"], 1);
    assert_eq!(ledger["late"], 1);
    let session = &ledger["tenants"]["acme"]["sessions"]["s1"];
    assert_eq!(session["sha256"], sha256(b"abc"));
    assert_eq!(session["sequences"], json!([0, 1, 2]));
    assert_eq!(rig.get("/_sandbox/sessions/acme/s1").await.text, "abc");
}

#[tokio::test]
async fn a_hole_counts_as_undeclared_unless_it_is_declared() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.deliver(&token, &body(3, &[b"d"])).await;
    let mut declared = body(7, &[b"h"]);
    declared["gaps"] = json!([{"first": 4, "last": 5, "reason": "missing"}, {"first": 6, "last": 6, "reason": "dead"}]);
    rig.deliver(&token, &declared).await;
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["undeclared_gaps"], &ledger["gaps"]),
        (&json!(0), &json!(3))
    );
    let mut half = body(10, &[b"k"]);
    half["gaps"] = json!([{"first": 9, "last": 9, "reason": "purged"}]);
    rig.deliver(&token, &half).await;
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["undeclared_gaps"], &ledger["gaps"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(ledger["tenants"]["acme"]["gaps"], 4);
}

#[tokio::test]
async fn a_chunk_behind_the_last_one_is_noticed() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let mut last = body(0, &[b"a"]);
    last["last"] = json!(true);
    rig.deliver(&token, &last).await;
    rig.deliver(&token, &body(1, &[b"b"])).await;
    assert_eq!(rig.ledger().await["after_last"], 1);
}

#[tokio::test]
async fn sessions_of_two_hosts_under_one_name_stay_apart() {
    let rig = Rig::new().await;
    rig.change("acme", json!({"check_keys": false})).await;
    let token = rig.token("acme").await;
    rig.deliver(&token, &body(0, &[b"one"])).await;
    let mut other = body(0, &[b"two"]);
    other["host"] = json!("rec-2");
    assert_eq!(rig.deliver(&token, &other).await.status, 201);
    let ledger = rig.ledger().await;
    let sessions = &ledger["tenants"]["acme"]["sessions"];
    assert_eq!(sessions["rec-1/s1"]["sha256"], sha256(b"one"));
    assert_eq!(sessions["rec-2/s1"]["sha256"], sha256(b"two"));
    assert_eq!(rig.get("/_sandbox/sessions/acme/s1").await.status, 404);
    assert_eq!(
        rig.get("/_sandbox/sessions/acme/s1?host=rec-2").await.text,
        "two"
    );
}

#[tokio::test]
async fn tenants_do_not_see_each_others_sessions() {
    let rig = Rig::new().await;
    for tenant in ["acme", "globex"] {
        let token = rig.token(tenant).await;
        let body = body_of(tenant, "s1", 0, &[tenant.as_bytes()]);
        assert_eq!(rig.deliver(&token, &body).await.status, 201);
    }
    let ledger = rig.ledger().await;
    for tenant in ["acme", "globex"] {
        assert_eq!(
            ledger["tenants"][tenant]["sessions"]["s1"]["sha256"],
            sha256(tenant.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_spent_quota_answers_429_in_its_dialect_until_it_is_lifted() {
    let rig = Rig::new().await;
    rig.change(
        "acme",
        json!({"quota": {"requests": 1, "window_ms": 600_000}}),
    )
    .await;
    let token = rig.token("acme").await;
    let first = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(
        (first.status, first.header("inin-ratelimit-count")),
        (201, "1")
    );
    let refused = rig.deliver(&token, &body(1, &[b"b"])).await;
    assert_eq!(refused.said(), (429, "too.many.requests"));
    assert_eq!(
        refused.header("retry-after"),
        refused.header("inin-ratelimit-reset")
    );
    assert_eq!(rig.ledger().await["inside_forbidden_window"], 0);
    assert_eq!(rig.ledger().await["throttled"], 1);
    rig.change("acme", json!({"quota": null})).await;
    assert_eq!(rig.deliver(&token, &body(1, &[b"b"])).await.status, 201);
}

#[tokio::test]
async fn a_request_for_a_right_that_is_missing_is_refused_until_it_is_there() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.change("acme", json!({"scopes": ["screenshare:read"]}))
        .await;
    let seen = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(seen.said(), (403, "not.authorized"));
    assert_eq!(
        seen.header("www-authenticate"),
        format!(
            "Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"{}\"",
            super::SCOPE
        )
    );
    let narrow = rig.ask_token("acme").await.unwrap();
    assert_eq!(narrow.body["scope"], "screenshare:read");
    rig.change("acme", json!({"refusal": "missing.permissions"}))
        .await;
    let seen = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(seen.said(), (403, "missing.permissions"));
    assert_eq!(seen.header("www-authenticate"), "");
    rig.change("acme", json!({"scopes": [super::SCOPE]})).await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
    let narrow = narrow.body["access_token"].as_str().unwrap();
    assert_eq!(rig.deliver(narrow, &body(1, &[b"b"])).await.status, 403);
    assert_eq!(rig.ledger().await["forbidden"], 3);
}

#[tokio::test]
async fn each_path_asks_for_its_own_right() {
    let rig = Rig::new().await;
    rig.change("acme", json!({"scopes": ["screenshare:write"]}))
        .await;
    let token = rig.token("acme").await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 403);
    let mut request = rig.upload(&token, &body(0, &[b"a"])).build().unwrap();
    *request.url_mut() = rig.url("/api/v2/screenshare/recordings").parse().unwrap();
    assert_eq!(rig.http.execute(request).await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_second_request_under_a_key_that_is_being_worked_on_is_told_so() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "hold"}])).await;
    let held = tokio::spawn(rig.upload(&token, &body(0, &[b"a"])).send());
    let waiting = rig
        .get("/_sandbox/held?at_least=1&within_ms=10000")
        .await
        .body;
    assert_eq!(
        waiting["requests"][0],
        json!({"tenant": "acme", "session": "s1", "sequence": 0})
    );
    let second = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(second.said(), (409, "request.in.progress"));
    assert_eq!(
        rig.control("/_sandbox/release", json!({})).await["released"],
        1
    );
    let first = tokio::time::timeout(Duration::from_secs(10), held)
        .await
        .unwrap();
    assert_eq!(first.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn the_ledger_tells_each_tenants_bytes_and_how_evenly_they_fell() {
    let rig = Rig::new().await;
    assert_eq!(rig.ledger().await["fairness"], Value::Null);
    let acme = rig.token("acme").await;
    rig.deliver(&acme, &body(0, &[b"abc", b"def"])).await;
    // A part that was there before adds nothing.
    rig.deliver(&acme, &body(0, &[b"abc"])).await;
    let ledger = rig.ledger().await;
    assert_eq!(ledger["tenants"]["acme"]["bytes"], 6);
    assert_eq!(ledger["fairness"], 1.0);
    // Whoever asked for a token and got nothing through counts as much.
    let globex = rig.token("globex").await;
    assert_eq!(rig.ledger().await["fairness"], 0.5);
    let theirs = body_of("globex", "s1", 0, &[b"abcdef"]);
    rig.deliver(&globex, &theirs).await;
    let ledger = rig.ledger().await;
    assert_eq!(ledger["bytes"], 12);
    assert_eq!(ledger["fairness"], 1.0);
}

#[tokio::test]
async fn a_request_before_its_retry_after_is_over_is_counted_by_tenant() {
    let rig = Rig::new().await;
    rig.change(
        "acme",
        json!({"quota": {"requests": 1, "window_ms": 600_000}}),
    )
    .await;
    let token = rig.token("acme").await;
    rig.deliver(&token, &body(0, &[b"a"])).await;
    // From the first refusal on; those of the first 100 ms were under way.
    let mut asked = 0;
    let inside = loop {
        let seen = rig.deliver(&token, &body(1, &[b"b"])).await;
        assert_eq!(seen.status, 429);
        asked += 1;
        assert!(asked < 5000, "none is counted");
        let ledger = rig.ledger().await;
        let inside = ledger["tenants"]["acme"]["inside_forbidden_window"].as_u64();
        if let Some(inside) = inside.filter(|inside| *inside > 0) {
            assert_eq!(ledger["tenants"]["globex"]["inside_forbidden_window"], 0);
            break inside;
        }
    };
    assert_eq!(inside, 1, "after {asked}");
}
