//! Deliveries that the json endpoint does not take.

use serde_json::{Value, json};

use super::{Options, Rig, body, body_of};

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
    let known = rig.deliver(&token, &body(0, &[b"1234"])).await;
    assert_eq!(known.status, 208, "what is stored needs no space");
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
async fn absurd_numbers_do_not_bring_the_ledger_down() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    for session in ["s1", "s2"] {
        let mut far = body_of("acme", session, u64::MAX, &[b"z"]);
        far["gaps"] = json!([{"first": 0, "last": u64::MAX - 1, "reason": "missing"}]);
        assert_eq!(rig.deliver(&token, &far).await.status, 201);
    }
    assert_eq!(rig.ledger().await["gaps"], u64::MAX);
}
