//! Recordings as the emulator gives them back.

use serde_json::{Value, json};

use super::{Rig, Seen, body};

const RECORDINGS: &str = "/api/v2/screenshare/recordings";

impl Rig {
    async fn recording(&self, token: &str, id: &str) -> Seen {
        let request = self.http.get(self.url(&format!("{RECORDINGS}/{id}")));
        self.send(request.bearer_auth(token)).await.unwrap()
    }

    async fn list(&self, token: &str, query: &str) -> Seen {
        let request = self.http.get(self.url(&format!("{RECORDINGS}?{query}")));
        self.send(request.bearer_auth(token)).await.unwrap()
    }

    async fn old(&self, more: Value) {
        let mut change = json!({"add": [{"id": "old-1", "age_ms": 90_000_000}]});
        for (name, value) in more.as_object().unwrap() {
            change[name] = value.clone();
        }
        self.change("acme", json!({"recordings": change})).await;
    }
}

#[tokio::test]
async fn who_may_not_read_is_told_which_right_is_missing() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.get(&format!("{RECORDINGS}/r-1")).await.said(),
        (401, "authentication.required")
    );
    rig.change(
        "acme",
        json!({"scopes": ["analytics:screenrecordings:write"]}),
    )
    .await;
    let token = rig.token("acme").await;
    let seen = rig.recording(&token, "r-1").await;
    assert_eq!(seen.said(), (403, "not.authorized"));
    assert!(
        seen.header("www-authenticate")
            .contains("scope=\"screenshare:read\"")
    );
    rig.change("acme", json!({"refusal": "missing.permissions"}))
        .await;
    let seen = rig.recording(&token, "r-1").await;
    assert!(
        seen.text
            .contains("read:screen_recording, admin:screen_recording"),
        "{}",
        seen.text
    );
}

#[tokio::test]
async fn an_old_recording_is_422_for_its_purview_until_what_history_needs_is_there() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.old(json!({"history": "refused"})).await;
    let seen = rig.recording(&token, "old-1").await;
    assert_eq!(seen.said(), (422, "purview.mismatch"));
    assert_eq!(seen.field(), "purview");
    for (history, status) in [("scope", 200), ("user", 422), ("open", 200)] {
        rig.old(json!({"history": history})).await;
        assert_eq!(
            rig.recording(&token, "old-1").await.status,
            status,
            "{history}"
        );
    }
    rig.old(json!({"history": "user", "user_bound": true}))
        .await;
    assert_eq!(rig.recording(&token, "old-1").await.status, 200);
    rig.change("acme", json!({"scopes": ["screenshare:read"]}))
        .await;
    let narrow = rig.token("acme").await;
    rig.old(json!({"history": "scope"})).await;
    assert_eq!(rig.recording(&narrow, "old-1").await.status, 422);
    rig.change("acme", json!({"recordings": {"old_after_ms": 100_000_000}}))
        .await;
    assert_eq!(
        rig.recording(&narrow, "old-1").await.status,
        200,
        "it is not that old"
    );
    let refused = rig.ledger().await["tenants"]["acme"]["purview_refusals"].clone();
    assert_eq!(refused, 3);
}

#[tokio::test]
async fn a_purview_opens_some_time_after_it_was_first_asked_for() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.old(json!({"history": "refused", "purview_delay_ms": 1}))
        .await;
    assert_eq!(rig.recording(&token, "old-1").await.status, 422);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(rig.recording(&token, "old-1").await.status, 200);
}

#[tokio::test]
async fn a_recording_is_what_was_stored_of_its_session() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let receipt = rig.deliver(&token, &body(3, &[b"three", b"four"])).await;
    let id = receipt.body["recordingId"].as_str().unwrap().to_owned();
    let again = rig.deliver(&token, &body(3, &[b"three", b"four"])).await;
    assert_eq!(
        (again.status, &again.body["recordingId"]),
        (208, &json!(id))
    );
    rig.deliver(&token, &body(7, &[b"seven"])).await;
    let seen = rig.recording(&token, &id).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(
        (&seen.body["chunks"], &seen.body["bytes"]),
        (&json!(3), &json!(14))
    );
    assert_eq!(seen.body["gaps"], json!([{"first": 5, "last": 6}]));
    let mut sum = [0_u8; 32];
    for (sequence, payload) in [(3_u64, &b"three"[..]), (4, b"four"), (7, b"seven")] {
        let mut text = sequence.to_le_bytes().to_vec();
        text.extend_from_slice(blake3::hash(payload).as_bytes());
        let part = blake3::hash(&text);
        sum.iter_mut()
            .zip(part.as_bytes())
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.body["digest"], format!("blake3:{hex}"));
    assert_eq!(
        rig.recording(&rig.token("globex").await, &id).await.status,
        404
    );
}

#[tokio::test]
async fn a_recording_is_not_there_before_its_delay() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let add = json!([{"id": "new-1", "age_ms": 1000}]);
    rig.change(
        "acme",
        json!({"recordings": {"delay_ms": 3_600_000, "add": add}}),
    )
    .await;
    assert_eq!(
        rig.recording(&token, "new-1").await.said(),
        (404, "not.found")
    );
    rig.change("acme", json!({"recordings": {"delay_ms": 0}}))
        .await;
    assert_eq!(rig.recording(&token, "new-1").await.status, 200);
}

#[tokio::test]
async fn a_list_is_given_in_pages_and_asked_for_exactly() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let add: Vec<Value> = (0..5)
        .map(|n| json!({"id": format!("r-{n}"), "age_ms": 1000 * n}))
        .collect();
    rig.change("acme", json!({"recordings": {"add": add}}))
        .await;
    let since = "since=2020-01-01T00:00:00.000Z";
    let first = rig.list(&token, &format!("{since}&pageSize=3")).await;
    assert_eq!(first.body["entities"].as_array().unwrap().len(), 3);
    assert_eq!(first.body["nextCursor"], "r-2");
    let last = rig
        .list(&token, &format!("{since}&pageSize=3&cursor=r-2"))
        .await;
    assert_eq!(last.body["entities"].as_array().unwrap().len(), 2);
    assert_eq!(last.body["nextCursor"], Value::Null);
    for (query, field) in [
        ("pageSize=3", "since"),
        ("since=2020-01-01&pageSize=3", "since"),
        (since, "pageSize"),
        ("since=2020-01-01T00:00:00.000Z&pageSize=3&page=2", "page"),
    ] {
        assert_eq!(rig.list(&token, query).await.field(), field, "{query}");
    }
}

#[tokio::test]
async fn a_change_with_one_mistake_changes_nothing() {
    let rig = Rig::new().await;
    for (recordings, field) in [
        (json!({"history": "shut"}), "recordings.history"),
        (
            json!({"add": [{"id": "a/b", "age_ms": 1}]}),
            "recordings.add[0].id",
        ),
        (json!({"add": [{"id": "a"}]}), "recordings.add[0].age_ms"),
        (json!({"more": 1}), "recordings.more"),
    ] {
        let change = json!({"organization": "changed", "recordings": recordings});
        let request = self::post(&rig, change);
        let seen = rig.send(request).await.unwrap();
        assert_eq!((seen.status, seen.field()), (400, field));
    }
    let token = rig.token("acme").await;
    let me = rig
        .http
        .get(rig.url("/api/v2/tokens/me"))
        .bearer_auth(token);
    let me = rig.send(me).await.unwrap();
    assert_eq!(me.body["organization"]["id"], "org-acme");
}

fn post(rig: &Rig, change: Value) -> reqwest::RequestBuilder {
    rig.http
        .post(rig.url("/_sandbox/tenants/acme"))
        .json(&change)
}
