//! Every fault of the script, as a sender meets it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Rig, body, body_of};

#[tokio::test]
async fn a_script_with_one_mistake_is_refused_whole() {
    let rig = Rig::new().await;
    for (bad, field) in [
        (json!({}), "rules"),
        (json!([{"action": "explode"}]), "rules[0].action"),
        (json!([{"action": {"stall_ms": "1"}}]), "rules[0].action"),
        (
            json!([{"action": {"status": 99}}]),
            "rules[0].action.status",
        ),
        (
            json!([{"action": {"status": 503, "headers": {"a b": "c"}}}]),
            "rules[0].action.headers",
        ),
        (
            json!([{"action": "hold"}, {"action": "hold", "when": 1}]),
            "rules[1].when",
        ),
        (
            json!([{"action": "hold", "route": "store"}]),
            "rules[0].route",
        ),
        (
            json!([{"action": "hold", "times": "often"}]),
            "rules[0].times",
        ),
        (json!([{"action": "hold", "early": true}]), "rules[0].early"),
        (
            json!([{"action": "reset_mid_body", "session": "s1"}]),
            "rules[0].action",
        ),
        (
            json!([{"action": "revoke_token", "session": "s1"}]),
            "rules[0].action",
        ),
        (
            json!([{"action": "expire_mid_body", "route": "token"}]),
            "rules[0].action",
        ),
        (
            json!([{"action": "hold", "route": "token", "sequence": 1}]),
            "rules[0].route",
        ),
    ] {
        let seen = rig
            .send(rig.http.post(rig.url("/_sandbox/faults")).json(&bad))
            .await
            .unwrap();
        assert_eq!((seen.status, seen.field()), (400, field), "{bad}");
    }
    assert_eq!(rig.get("/_sandbox/faults").await.body, json!({"rules": []}));
}

#[tokio::test]
async fn a_status_comes_with_its_headers_and_body_at_its_count_and_no_more() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let action =
        json!({"status": 503, "headers": {"Retry-After": 7, "X-Note": "n"}, "body": "gone"});
    rig.fault(json!([{"after": 1, "times": 2, "action": action}]))
        .await;
    let mut statuses = Vec::new();
    for sequence in 0..4 {
        let seen = rig.deliver(&token, &body(sequence, &[b"a"])).await;
        if seen.status == 503 {
            assert_eq!(
                (
                    seen.text.as_str(),
                    seen.header("x-note"),
                    seen.header("retry-after")
                ),
                ("gone", "n", "7")
            );
        }
        statuses.push(seen.status);
    }
    assert_eq!(statuses, [201, 503, 503, 201]);
    let rules = rig.get("/_sandbox/faults").await.body;
    assert_eq!(
        (&rules["rules"][0]["asked"], &rules["rules"][0]["fired"]),
        (&json!(4), &json!(2))
    );
    assert_eq!(rig.ledger().await["faults"], 2);
}

#[tokio::test]
async fn a_status_without_a_body_says_what_the_platform_says() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    for (status, code) in [
        (400, "bad.request"),
        (404, "not.found"),
        (500, "internal.server.error"),
        (504, "request.timeout"),
    ] {
        rig.fault(json!([{"action": {"status": status}}])).await;
        assert_eq!(
            rig.deliver(&token, &body(0, &[b"a"])).await.said(),
            (status, code)
        );
    }
    let purview = json!({"code": "invalid.value", "details": [{"fieldName": "purview"}]});
    rig.fault(json!([{"action": {"status": 422, "body": purview}}]))
        .await;
    assert_eq!(
        rig.deliver(&token, &body(0, &[b"a"])).await.field(),
        "purview"
    );
}

#[tokio::test]
async fn a_rule_meets_only_what_it_names() {
    let rig = Rig::new().await;
    let (acme, globex) = (rig.token("acme").await, rig.token("globex").await);
    rig.fault(json!([
        {"tenant": "globex", "times": "forever", "action": {"status": 500}},
        {"session": "s2", "sequence": 1, "times": "forever", "action": {"status": 502}},
    ]))
    .await;
    let at = async |token: &str, tenant: &str, session: &str, sequence: u64| {
        rig.deliver(token, &body_of(tenant, session, sequence, &[b"a"]))
            .await
            .status
    };
    assert_eq!(at(&globex, "globex", "s1", 0).await, 500);
    assert_eq!(at(&globex, "globex", "s1", 0).await, 500);
    assert_eq!(at(&acme, "acme", "s1", 1).await, 201);
    assert_eq!(at(&acme, "acme", "s2", 0).await, 201);
    assert_eq!(at(&acme, "acme", "s2", 1).await, 502);
    let cleared = rig
        .send(rig.http.delete(rig.url("/_sandbox/faults")))
        .await
        .unwrap();
    assert_eq!(cleared.status, 200);
    assert_eq!(at(&acme, "acme", "s2", 1).await, 201);
}

#[tokio::test]
async fn a_rule_with_a_time_waits_for_it() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([
        {"at_ms": 3_600_000, "action": {"status": 500}},
        {"at_ms": 0, "action": {"status": 502}},
    ]))
    .await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 502);
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
}

#[tokio::test]
async fn a_reset_in_mid_body_stores_nothing() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "reset_mid_body"}])).await;
    let large = vec![7; 4 * 1024 * 1024];
    assert!(
        rig.upload(&token, &body(0, &[&large]))
            .send()
            .await
            .is_err()
    );
    assert_eq!(rig.ledger().await["delivered"], 0);
    assert_eq!(rig.deliver(&token, &body(0, &[&large])).await.status, 201);
}

#[tokio::test]
async fn a_lost_reply_leaves_the_chunk_stored_and_its_repetition_is_suppressed() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "lose_reply"}])).await;
    assert!(rig.upload(&token, &body(0, &[b"a"])).send().await.is_err());
    assert_eq!(rig.ledger().await["delivered"], 1);
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 208);
    assert_eq!(rig.ledger().await["duplicates_suppressed"], 1);
}

#[tokio::test]
async fn a_stalled_answer_comes_after_its_time() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": {"stall_ms": 300}}])).await;
    let begun = Instant::now();
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_slow_answer_is_the_right_one_byte_by_byte() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": {"slow_loris_ms": 1}}])).await;
    let mut response = rig.upload(&token, &body(0, &[b"a"])).send().await.unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        pieces.push(piece);
    }
    assert!(pieces.len() > 10, "{} pieces", pieces.len());
    let receipt: Value = serde_json::from_slice(&pieces.concat()).unwrap();
    assert_eq!(receipt["parts"][0]["status"], "stored");
}

#[tokio::test]
async fn garbage_is_no_http() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "garbage"}])).await;
    assert!(rig.upload(&token, &body(0, &[b"a"])).send().await.is_err());
    assert_eq!(rig.ledger().await["delivered"], 0);
}

#[tokio::test]
async fn an_interceptor_answers_with_a_page_or_sends_away() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "html_200"}, {"action": "redirect_302"}]))
        .await;
    let page = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html")
    );
    let away = rig.deliver(&token, &body(0, &[b"a"])).await;
    assert_eq!(
        (away.status, away.header("location")),
        (302, "http://127.0.0.1:9/sign-in")
    );
    assert_eq!(rig.ledger().await["delivered"], 0);
}

#[tokio::test]
async fn a_held_request_stores_before_or_after_its_release() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    for (action, sequence, stored_while_held) in [("hold", 0_u64, 0), ("hold_reply", 1, 2)] {
        rig.fault(json!([{"action": action}])).await;
        let held = tokio::spawn(rig.upload(&token, &body(sequence, &[b"a"])).send());
        let waiting = rig
            .get("/_sandbox/held?at_least=1&within_ms=10000")
            .await
            .body;
        assert_eq!(waiting["held"], 1);
        assert_eq!(rig.ledger().await["delivered"], stored_while_held);
        rig.control("/_sandbox/release", json!({})).await;
        assert_eq!(held.await.unwrap().unwrap().status(), 201);
    }
    assert_eq!(rig.get("/_sandbox/held").await.body["held"], 0);
}

#[tokio::test]
async fn a_sender_that_dies_while_held_is_forgotten() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "hold"}])).await;
    let held = tokio::spawn(rig.upload(&token, &body(0, &[b"a"])).send());
    rig.get("/_sandbox/held?at_least=1&within_ms=10000").await;
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    let gone = async {
        while rig.get("/_sandbox/held").await.body["held"] != 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 201);
    assert_eq!(rig.ledger().await["delivered"], 1);
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body_is_read() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"early": true, "action": {"status": 503}}]))
        .await;
    // A body that never ends within the test: only an early answer can come.
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = rig
        .upload(&token, &body(0, &[b"a"]))
        .body(reqwest::Body::wrap_stream(endless));
    assert_eq!(
        rig.send(request).await.unwrap().said(),
        (503, "service.unavailable")
    );
}

#[tokio::test]
async fn the_token_endpoint_has_faults_of_its_own() {
    let rig = Rig::new().await;
    rig.fault(json!([
        {"route": "token", "tenant": "acme", "action": {"status": 503, "headers": {"Retry-After": "1"}}},
        {"route": "token", "action": "lose_reply"},
        {"route": "token", "action": "garbage"},
        {"route": "token", "action": "html_200"},
    ]))
    .await;
    let token = rig.token("globex");
    assert_eq!(rig.ask_token("acme").await.unwrap().status, 503);
    assert!(rig.ask_token("acme").await.is_err());
    assert!(rig.ask_token("acme").await.is_err());
    assert_eq!(
        rig.ask_token("acme").await.unwrap().header("content-type"),
        "text/html"
    );
    token.await;
    let ledger = rig.ledger().await;
    assert_eq!(
        ledger["tenants"]["acme"]["tokens_issued"], 1,
        "the lost reply held a token"
    );
    assert_eq!(ledger["tenants"]["acme"]["token_requests"], 4);
}

#[tokio::test]
async fn the_documented_script_is_one() {
    let rig = Rig::new().await;
    let page = include_str!("../../../docs/SANDBOX.md");
    let script = page
        .split("```json")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    rig.fault(serde_json::from_str(script).unwrap()).await;
}

#[tokio::test]
async fn a_token_can_be_revoked_by_a_request_or_end_in_its_middle() {
    let rig = Rig::new().await;
    for (action, code, expired) in [
        ("revoke_token", "bad.credentials", 0),
        ("expire_mid_body", "credentials.expired", 1),
    ] {
        let token = rig.token("acme").await;
        rig.fault(json!([{"after": 1, "action": action}])).await;
        let chunks: Vec<Value> = (0..3).map(|number| body(number, &[b"bytes"])).collect();
        let before = rig.deliver(&token, &chunks[0]).await;
        assert!(before.status < 300, "{before:?}");
        // Once, and the token stays dead.
        for chunk in &chunks[1..] {
            assert_eq!(rig.deliver(&token, chunk).await.said(), (401, code));
        }
        assert_eq!(rig.ledger().await["expired_mid_body"], expired);
        let fresh = rig.token("acme").await;
        assert!(rig.deliver(&fresh, &chunks[1]).await.status < 300);
    }
    assert_eq!(rig.ledger().await["unauthorized"], 4);
}
