//! The socket's endpoint is strict: what docs/PROTOCOL.md does not allow ends the socket, what it does is answered in its
//! words. The client here is written from the page, frame by frame.

use futures_util::{SinkExt, StreamExt};
use reqwest::Upgraded;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const STREAM: &str = "/api/v2/analytics/screenrecordings/stream";

struct Client {
    ws: WebSocketStream<Upgraded>,
}

async fn handshake(rig: &Rig, token: &str, protocol: &str) -> reqwest::Response {
    let url = format!("{}{STREAM}", rig.sandbox.base_url());
    let request = rig.http.get(url).bearer_auth(token);
    request
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Protocol", protocol)
        .send()
        .await
        .unwrap()
}

impl Client {
    async fn of(rig: &Rig) -> Self {
        let token = rig.token("acme").await;
        let response = handshake(rig, &token, "other, reelay.v1").await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "reelay.v1");
        let upgraded = response.upgrade().await.unwrap();
        let ws = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        Self { ws }
    }

    async fn say(&mut self, message: Value) {
        self.ws
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn pay(&mut self, channel: u32, payload: &[u8]) {
        let frame = [&channel.to_be_bytes(), payload].concat();
        self.ws.send(Message::binary(frame)).await.unwrap();
    }

    async fn open(&mut self, channel: u32, session: &str) -> Value {
        self.say(json!({"type": "open", "channel": channel, "host": "rec-1", "session": session, "first": 0, "last": 9}))
            .await;
        self.hear().await
    }

    /// The next message; a close as `{"closed": code, "reason"}`.
    async fn hear(&mut self) -> Value {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(text.as_str()).unwrap();
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return json!({"closed": u16::from(frame.code), "reason": frame.reason.as_str()});
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn chunk(channel: u32, session: &str, sequence: u64, payload: &[u8]) -> Value {
    let digest = blake3::hash(payload);
    let origin = Origin {
        tenant: "acme",
        host: "rec-1",
        session,
    };
    let key = keys::part_key(origin, sequence, digest.as_bytes());
    let (start, end) = ("2026-03-01T09:00:00.000Z", "2026-03-01T09:00:30.000Z");
    json!({"type": "chunk", "channel": channel, "idempotencyKey": key, "host": "rec-1", "session": session,
        "sequence": sequence, "startTime": start, "endTime": end, "intervalSeconds": 30, "mediaType": "video/mp4",
        "last": false, "late": false, "gaps": [],
        "parts": [{"sequence": sequence, "bytes": payload.len(), "digest": format!("blake3:{}", digest.to_hex()),
            "idempotencyKey": key, "startTime": start, "endTime": end}]})
}

#[tokio::test]
async fn a_chunk_in_frames_is_stored_and_acknowledged() {
    let rig = Rig::new().await;
    let mut client = Client::of(&rig).await;
    let opened = client.open(1, "s1").await;
    assert_eq!(
        opened,
        json!({"type": "opened", "channel": 1, "session": "s1", "digests": [], "persisted": []})
    );
    client.say(chunk(1, "s1", 3, b"hello world")).await;
    client.pay(1, b"hello ").await;
    client.pay(1, b"world").await;
    let ack = client.hear().await;
    assert_eq!(
        (&ack["type"], &ack["channel"], &ack["session"]),
        (&json!("ack"), &json!(1), &json!("s1"))
    );
    assert_eq!(ack["parts"][0]["status"], "stored");
    let opened = client.open(2, "s1").await;
    assert_eq!(opened["persisted"], json!([{"first": 3, "last": 3}]));
    assert_eq!(
        opened["digests"][0],
        json!({"sequence": 3, "digest": ack["parts"][0]["digest"]})
    );
}

#[tokio::test]
async fn what_is_stored_already_is_acknowledged_before_its_payload_and_counted() {
    let rig = Rig::new().await;
    let mut client = Client::of(&rig).await;
    client.open(1, "s1").await;
    client.say(chunk(1, "s1", 0, b"zero")).await;
    client.pay(1, b"zero").await;
    client.hear().await;
    client.say(chunk(1, "s1", 0, b"zero")).await;
    let ack = client.hear().await;
    assert_eq!(ack["parts"][0]["status"], "duplicate");
    // The channel has ended: what was under way for it is passed over.
    client.pay(1, b"zero").await;
    client.say(json!({"type": "close", "channel": 1})).await;
    client.open(2, "s1").await;
    client.say(chunk(2, "s1", 0, b"other")).await;
    let error = client.hear().await;
    assert_eq!(
        (&error["type"], &error["status"], &error["code"]),
        (&json!("error"), &json!(409), &json!("conflict.digest"))
    );
    let ledger = rig.sandbox.ledger().unwrap();
    assert_eq!(
        (&ledger["duplicates_suppressed"], &ledger["conflicts"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn bytes_that_are_not_what_the_chunk_names_are_refused() {
    let rig = Rig::new().await;
    let mut client = Client::of(&rig).await;
    client.open(1, "s1").await;
    client.say(chunk(1, "s1", 0, b"zero")).await;
    client.pay(1, b"zer0").await;
    let error = client.hear().await;
    assert_eq!(
        (&error["status"], &error["code"]),
        (&json!(422), &json!("digest.mismatch"))
    );
    assert!(error["contextId"].is_string());
}

#[tokio::test]
async fn a_session_has_one_unpersisted_chunk() {
    let rig = Rig::new().await;
    let mut first = Client::of(&rig).await;
    first.open(1, "s1").await;
    first.open(2, "s1").await;
    first.say(chunk(1, "s1", 0, b"zero")).await;
    first.pay(1, b"ze").await;
    first.say(chunk(2, "s1", 0, b"zero")).await;
    assert_eq!(first.hear().await["code"], "request.in.progress");
    let mut second = Client::of(&rig).await;
    assert_eq!(second.open(1, "s1").await["code"], "request.in.progress");
    // Forgotten with its channel.
    first.say(json!({"type": "close", "channel": 1})).await;
    first.open(3, "s2").await;
    assert_eq!(second.open(2, "s1").await["type"], "opened");
}

#[tokio::test]
async fn whoever_keeps_to_another_protocol_is_closed_with_1002() {
    type Breach<'a> = (&'a str, Vec<Value>, Vec<(u32, &'a [u8])>);
    let wrong: [Breach; 10] = [
        ("no type", vec![json!({"channel": 1})], vec![]),
        ("an unknown type", vec![json!({"type": "weather"})], vec![]),
        (
            "a member too many",
            vec![json!({"type": "close", "channel": 1, "more": 1})],
            vec![],
        ),
        (
            "channel 0",
            vec![json!({"type": "close", "channel": 0})],
            vec![],
        ),
        (
            "a channel twice",
            vec![
                json!({"type": "open", "channel": 1, "host": "h", "session": "s", "first": 0, "last": 0}),
            ],
            vec![],
        ),
        (
            "a chunk for no channel",
            vec![chunk(9, "s1", 0, b"zero")],
            vec![],
        ),
        (
            "a chunk for a channel that has ended",
            vec![
                json!({"type": "close", "channel": 1}),
                chunk(1, "s1", 0, b"zero"),
            ],
            vec![],
        ),
        ("payload for no channel", vec![], vec![(9, b"zero")]),
        ("payload without a chunk", vec![], vec![(1, b"zero")]),
        (
            "too much payload",
            vec![chunk(1, "s1", 0, b"zero")],
            vec![(1, b"zero and more")],
        ),
    ];
    for (what, messages, frames) in wrong {
        let rig = Rig::new().await;
        let mut client = Client::of(&rig).await;
        client.open(1, "s1").await;
        for message in messages {
            client.say(message).await;
        }
        for (channel, payload) in frames {
            client.pay(channel, payload).await;
        }
        assert_eq!(client.hear().await["closed"], 1002, "{what}");
    }
}

#[tokio::test]
async fn a_frame_has_at_most_64_kib_and_at_least_one_byte_of_payload() {
    for bytes in [0, 65_533] {
        let rig = Rig::new().await;
        let mut client = Client::of(&rig).await;
        client.open(1, "s1").await;
        client.say(chunk(1, "s1", 0, &[7; 70_000])).await;
        client.pay(1, &vec![7; bytes]).await;
        assert_eq!(client.hear().await["closed"], 1002, "{bytes}");
    }
}

#[tokio::test]
async fn a_token_in_band_has_to_be_good_and_of_the_same_tenant() {
    let rig = Rig::new().await;
    let mut client = Client::of(&rig).await;
    let (other, own) = (rig.token("globex").await, rig.token("acme").await);
    for (token, accepted) in [("canary-nonsense", false), (&other, false), (&own, true)] {
        client.say(json!({"type": "reauth", "token": token})).await;
        assert_eq!(
            client.hear().await,
            json!({"type": "reauthed", "accepted": accepted})
        );
    }
}

#[tokio::test]
async fn a_handshake_needs_a_token_and_the_subprotocol() {
    let rig = Rig::new().await;
    assert_eq!(
        handshake(&rig, "canary-nonsense", "reelay.v1")
            .await
            .status(),
        401
    );
    let token = rig.token("acme").await;
    assert_eq!(handshake(&rig, &token, "reelay.v0").await.status(), 400);
    let url = format!("{}{STREAM}", rig.sandbox.base_url());
    let plain = rig.http.get(url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(plain.status(), 426);
}

#[tokio::test]
async fn a_trouble_belongs_to_a_socket_and_everything_else_does_not() {
    let rig = Rig::new().await;
    for (rule, field) in [
        (json!({"action": {"socket": "cut"}}), "rules[0].action"),
        (
            json!({"route": "socket", "action": "lose_reply"}),
            "rules[0].action",
        ),
        (
            json!({"route": "socket", "action": {"socket": "melt"}}),
            "rules[0].action.socket",
        ),
        (
            json!({"route": "socket", "action": {"socket": "close", "code": 7}}),
            "rules[0].action.code",
        ),
        (
            json!({"route": "socket", "session": "s1", "action": {"socket": "cut"}}),
            "rules[0].action",
        ),
    ] {
        let request = rig.http.post(rig.url("/_sandbox/faults"));
        let body = json!([rule]).to_string();
        let seen = rig.send(request.body(body)).await.unwrap();
        assert_eq!((seen.status, seen.field()), (400, field), "{rule}");
    }
}

#[tokio::test]
async fn a_sockets_token_can_be_revoked_by_a_chunk_or_end_in_its_middle() {
    let rig = Rig::new().await;
    let mut client = Client::of(&rig).await;
    client.open(1, "s1").await;
    rig.fault(json!([{"action": "revoke_token"}, {"action": "expire_mid_body"}]))
        .await;
    client.say(chunk(1, "s1", 0, b"zero")).await;
    let error = client.hear().await;
    assert_eq!(
        (&error["status"], &error["code"]),
        (&json!(401), &json!("bad.credentials"))
    );
    let mut client = Client::of(&rig).await;
    client.open(1, "s1").await;
    client.say(chunk(1, "s1", 0, b"zero")).await;
    client.pay(1, b"zer").await;
    assert_eq!(client.hear().await["closed"], 4401);
    let ledger = rig.ledger().await;
    assert_eq!(ledger["expired_mid_body"], 1);
    assert_eq!(ledger["unauthorized"], 2);
    assert_eq!(ledger["delivered"], 0);
}
