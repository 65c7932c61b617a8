//! The json endpoint and the ledger.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Options, Rig, body, body_of, sha256};

/// A correct body with one member changed, and the idempotency key of the unchanged one.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = body(7, &[b"frame"]);
    change(&mut body);
    body
}

#[tokio::test]
async fn a_request_of_the_wrong_shape_is_refused_and_named() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let cases: Vec<(&str, Value)> = vec![
        ("host", with(|b| b["host"] = json!("a/b"))),
        (
            "host",
            with(|b| drop(b.as_object_mut().unwrap().shift_remove("host"))),
        ),
        ("session", with(|b| b["session"] = json!("../s"))),
        ("session", with(|b| b["session"] = json!(7))),
        ("sequence", with(|b| b["sequence"] = json!(8))),
        ("sequence", with(|b| b["sequence"] = json!(-1))),
        (
            "startTime",
            with(|b| b["startTime"] = json!("2026-03-01T00:01:10Z")),
        ),
        (
            "startTime",
            with(|b| b["startTime"] = json!("2026-03-01T00:00:10.000Z")),
        ),
        (
            "endTime",
            with(|b| b["endTime"] = json!("2026-03-01T00:00:10.000Z")),
        ),
        ("intervalSeconds", with(|b| b["intervalSeconds"] = json!(0))),
        (
            "intervalSeconds",
            with(|b| b["intervalSeconds"] = json!(11)),
        ),
        ("mediaType", with(|b| b["mediaType"] = json!("video"))),
        ("last", with(|b| b["last"] = json!("false"))),
        ("late", with(|b| b["late"] = json!(null))),
        ("gaps", with(|b| b["gaps"] = json!({}))),
        (
            "gaps[0].last",
            with(|b| b["gaps"] = json!([{"first": 6, "last": 7, "reason": "dead"}])),
        ),
        (
            "gaps[0].reason",
            with(|b| b["gaps"] = json!([{"first": 6, "last": 6, "reason": "lost"}])),
        ),
        ("parts", with(|b| b["parts"] = json!([]))),
        (
            "parts[0].bytes",
            with(|b| b["parts"][0]["bytes"] = json!(0)),
        ),
        (
            "parts[0].digest",
            with(|b| b["parts"][0]["digest"] = json!("blake3:00")),
        ),
        (
            "parts[0].idempotencyKey",
            with(|b| b["parts"][0]["idempotencyKey"] = json!("a".repeat(64))),
        ),
        (
            "parts[0].extra",
            with(|b| b["parts"][0]["extra"] = json!(1)),
        ),
        ("extra", with(|b| b["extra"] = json!(1))),
        ("payload", with(|b| b["payload"] = json!("ZnJhbWU"))),
        (
            "payload",
            with(|b| {
                let map = b.as_object_mut().unwrap();
                let gaps = map.shift_remove("gaps").unwrap();
                map.insert("gaps".to_owned(), gaps);
            }),
        ),
    ];
    for (field, body) in cases {
        let seen = rig.deliver(&token, &body).await;
        assert_eq!(seen.status, 400, "{field}: {}", seen.text);
        assert_eq!(seen.field(), field, "{}", seen.text);
    }
    let ledger = rig.ledger().await;
    assert_eq!(ledger["tenants"]["acme"]["sessions"], json!({}));
    assert_eq!(ledger["delivered"], 0);
}

#[tokio::test]
async fn parts_that_do_not_follow_one_another_are_refused() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let mut hole = body(7, &[b"a", b"b"]);
    hole["parts"][1]["sequence"] = json!(9);
    assert_eq!(
        rig.deliver(&token, &hole).await.field(),
        "parts[1].sequence"
    );
    let mut late = body(7, &[b"a", b"b"]);
    late["late"] = json!(true);
    assert_eq!(rig.deliver(&token, &late).await.field(), "late");
}

#[tokio::test]
async fn other_bytes_than_the_digest_names_are_refused() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let mut swapped = body(0, &[b"one", b"two"]);
    swapped["payload"] = body(0, &[b"two", b"one"])["payload"].clone();
    let seen = rig.deliver(&token, &swapped).await;
    assert_eq!(seen.said(), (422, "digest.mismatch"));
    assert_eq!(seen.field(), "parts[0].digest");
    let mut short = body(0, &[b"one"]);
    short["parts"][0]["bytes"] = json!(4);
    assert_eq!(
        rig.deliver(&token, &short).await.said(),
        (422, "length.mismatch")
    );
    assert_eq!(rig.ledger().await["delivered"], 0);
}

#[tokio::test]
async fn a_head_without_type_length_or_key_is_refused() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let request = || rig.upload(&token, &body(0, &[b"one"]));
    let typed = request().header("Content-Type", "text/plain");
    let mut headers = typed.build().unwrap();
    headers
        .headers_mut()
        .insert("Content-Type", "text/plain".parse().unwrap());
    let seen = rig.http.execute(headers).await.unwrap();
    assert_eq!(seen.status(), 415);
    for key in ["unquoted", "\"\"", "\"0000\""] {
        let mut request = request().build().unwrap();
        request
            .headers_mut()
            .insert("Idempotency-Key", key.parse().unwrap());
        assert_eq!(
            rig.http.execute(request).await.unwrap().status(),
            400,
            "{key}"
        );
    }
    let chunks =
        futures_util::stream::iter([Ok::<_, std::io::Error>(body(0, &[b"one"]).to_string())]);
    let chunked = request().body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(
        rig.send(chunked).await.unwrap().said(),
        (411, "length.required")
    );
    assert_eq!(rig.ledger().await["delivered"], 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let rig = Rig::with(Options {
        body_bytes_max: 1000,
        ..Options::default()
    })
    .await;
    let token = rig.token("acme").await;
    let seen = rig.deliver(&token, &body(0, &[&[7; 1000]])).await;
    assert_eq!(seen.said(), (413, "request.too.large"));
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_stored() {
    let rig = Rig::with(Options {
        stored_bytes_max: 4,
        ..Options::default()
    })
    .await;
    let token = rig.token("acme").await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"12345"])).await.status, 507);
    assert_eq!(rig.deliver(&token, &body(0, &[b"1234"])).await.status, 201);
    assert_eq!(
        rig.ledger().await["tenants"]["acme"]["sessions"]["s1"]["bytes"],
        4
    );
}

#[tokio::test]
async fn an_unknown_path_or_method_is_refused_with_the_platforms_body() {
    let rig = Rig::new().await;
    let seen = rig.get("/api/v2/recordings").await;
    assert_eq!(seen.said(), (404, "not.found"));
    assert_eq!(seen.header("inin-correlation-id"), seen.body["contextId"]);
    assert_eq!(
        rig.get(super::UPLOADS).await.said(),
        (405, "method.not.allowed")
    );
}

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
async fn a_spent_quota_answers_429_in_its_dialect_and_counts_who_comes_back_too_early() {
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
    // Longer than an answer needs to reach a sender's other connections.
    tokio::time::sleep(2 * super::super::tenant::TELLING).await;
    rig.deliver(&token, &body(1, &[b"b"])).await;
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["throttled"], &ledger["inside_forbidden_window"]),
        (&json!(2), &json!(1))
    );
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
