//! The whole transport against the emulator, over loopback sockets, with little patience.

use std::io::Cursor;
use std::sync::Arc;

use super::super::WebsocketPlatform;
use super::*;
use crate::http::{self, Reach};
use crate::model::FailureClass::{self, *};
use crate::platform::{
    Delivery, Failure, JsonPlatform, Part, Platform, ReceiptPolicy, Target, Timeouts, Verdict,
};
use crate::sandbox::{self, Options, Running};

pub const PATH: &str = "/api/v2/analytics/screenrecordings/stream";

fn impatient() -> Patience {
    let millis = Duration::from_millis;
    Patience {
        request: Timeouts::default(),
        stall: millis(1000),
        ping: millis(200),
        pong: millis(300),
        open: millis(1500),
        reauth: millis(300),
        quiet: millis(400),
        verify: millis(400),
        idle: millis(5000),
        rest: millis(5),
        rest_max: millis(20),
    }
}

/// An emulator, a platform that talks to it, and a token that it gave.
pub struct Stand {
    pub sandbox: Running,
    pub platform: WebsocketPlatform,
    http: reqwest::Client,
    token: String,
    generation: u64,
    path: &'static str,
}

impl Stand {
    pub async fn new() -> Self {
        let sandbox = sandbox::start(&Options::default()).await.unwrap();
        let settings = http::Settings {
            proxying: http::Proxying::Direct,
            ..http::Settings::default()
        };
        let mut stand = Self {
            sandbox,
            platform: WebsocketPlatform::new(impatient(), Reach::default()),
            http: http::client(&settings).unwrap(),
            token: String::new(),
            generation: 0,
            path: PATH,
        };
        stand.mint().await;
        stand
    }

    /// From now on deliveries come with a new token.
    async fn mint(&mut self) {
        let (id, secret) = self.sandbox.credentials("acme").unwrap();
        let url = format!("{}/oauth/token", self.sandbox.base_url());
        let request = self.http.post(url).basic_auth(id, Some(secret));
        let answer = request
            .form(&[("grant_type", "client_credentials")])
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        self.token = answer["access_token"].as_str().unwrap().to_owned();
        self.generation += 1;
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.sandbox.base_url());
        let body = body.to_string();
        let answer = self.http.post(url).body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    pub async fn fault(&self, rule: Value) {
        self.post("/_sandbox/faults", json!([rule])).await;
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.sandbox.ledger().unwrap()[what].as_u64().unwrap()
    }

    pub fn sequences(&self, session: &str) -> Value {
        let ledger = self.sandbox.ledger().unwrap();
        ledger["tenants"]["acme"]["sessions"][session]["sequences"].clone()
    }

    pub fn delivery(&self, session: &str, sequence: u64, bytes: u64) -> Delivery {
        let payload = payload(session, sequence, bytes);
        let meta = ChunkMeta {
            digest: Digest::of(&payload),
            ..meta(session, sequence, bytes)
        };
        Delivery {
            target: Arc::new(Target {
                tenant: "acme".parse().unwrap(),
                api_url: self.sandbox.base_url(),
                path: self.path.to_owned(),
                receipt: ReceiptPolicy::Body,
            }),
            token: Token::new(self.token.clone(), Generation(self.generation)),
            parts: vec![Part {
                meta,
                payload: Box::new(Cursor::new(payload)),
            }],
            gaps: Vec::new(),
            late: false,
            attempt: 1,
            at: Timestamp(1_772_356_000_000),
        }
    }

    async fn deliver(&self, session: &str, sequence: u64) -> Verdict {
        let delivery = self.delivery(session, sequence, 100_000);
        self.platform.deliver(delivery).await.verdict
    }

    async fn failure(&self, session: &str, sequence: u64) -> Failure {
        match self.deliver(session, sequence).await {
            Verdict::Failed(failure) => failure,
            Verdict::Delivered { .. } => panic!("delivered"),
        }
    }

    async fn class(&self, session: &str, sequence: u64) -> FailureClass {
        self.failure(session, sequence).await.record.class
    }
}

pub const DELIVERED: Verdict = Verdict::Delivered { duplicate: false };
const KNOWN: Verdict = Verdict::Delivered { duplicate: true };

#[tokio::test]
async fn sessions_share_a_socket_and_arrive_byte_for_byte() {
    let stand = Stand::new().await;
    for sequence in 0..3 {
        let sessions = ["s1", "s2", "s3"].map(|session| stand.deliver(session, sequence));
        for verdict in futures_util::future::join_all(sessions).await {
            assert_eq!(verdict, DELIVERED);
        }
    }
    assert_eq!(stand.counted("sockets"), 1);
    assert_eq!(stand.counted("delivered"), 9);
    assert_eq!(stand.counted("order_inversions"), 0);
}

#[tokio::test]
async fn of_a_group_only_what_the_platform_lacks_is_sent() {
    let stand = Stand::new().await;
    assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
    let mut group = stand.delivery("s1", 0, 100_000);
    for sequence in 1..3 {
        let next = stand.delivery("s1", sequence, 100_000);
        group.parts.extend(next.parts);
    }
    // A socket of its own, which has to ask.
    let platform = WebsocketPlatform::new(impatient(), Reach::default());
    assert_eq!(platform.deliver(group).await.verdict, DELIVERED);
    assert_eq!(stand.sequences("s1"), json!([0, 1, 2]));
    assert_eq!(stand.counted("duplicates_suppressed"), 0);
}

#[tokio::test]
async fn what_json_stored_is_known_over_the_socket() {
    let mut stand = Stand::new().await;
    stand.path = "/api/v2/analytics/screenrecordings";
    let json = JsonPlatform::new(Timeouts::default(), Reach::default());
    let stored = json.deliver(stand.delivery("s1", 0, 100_000)).await;
    assert_eq!(stored.verdict, DELIVERED);
    stand.path = PATH;
    assert_eq!(stand.deliver("s1", 0).await, KNOWN);
    // A socket of its own, which has to ask.
    let platform = WebsocketPlatform::new(impatient(), Reach::default());
    let other = platform.deliver(stand.delivery("s1", 0, 99)).await;
    let Verdict::Failed(failure) = other.verdict else {
        panic!("other bytes are not delivered");
    };
    assert_eq!((failure.record.class, failure.conflict), (Rejected, true));
    // Neither was sent.
    assert_eq!(stand.counted("duplicates_suppressed"), 0);
    assert_eq!(stand.counted("conflicts"), 0);
}

#[tokio::test]
async fn chunks_that_are_known_one_after_another_are_all_answered() {
    let mut stand = Stand::new().await;
    stand.path = "/api/v2/analytics/screenrecordings";
    let json = JsonPlatform::new(Timeouts::default(), Reach::default());
    for sequence in 0..32 {
        let stored = json.deliver(stand.delivery("s1", sequence, 10)).await;
        assert_eq!(stored.verdict, DELIVERED);
    }
    stand.path = PATH;
    // So patient that what is not answered is not given up here.
    let platform = WebsocketPlatform::new(Patience::default(), Reach::default());
    let answers = async {
        for sequence in 0..33 {
            let answer = platform.deliver(stand.delivery("s1", sequence, 10)).await;
            let duplicate = sequence < 32;
            assert_eq!(
                answer.verdict,
                Verdict::Delivered { duplicate },
                "{sequence}"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answers)
        .await
        .expect("every chunk is answered");
    assert_eq!(stand.counted("sockets"), 1);
}

#[tokio::test]
async fn a_refused_handshake_means_what_it_means_everywhere() {
    for (answer, class) in [
        (json!({"status": 401}), Unauthorized),
        (json!({"status": 403}), Forbidden),
        (json!({"status": 404}), Endpoint),
        (
            json!({"status": 429, "headers": {"Retry-After": "7"}}),
            Throttled,
        ),
        (json!({"status": 500}), Transient),
        (json!({"status": 503}), Transient),
        (
            json!({"status": 503, "headers": {"Retry-After": "7"}}),
            Throttled,
        ),
        (json!("html_200"), Unrecognised),
        (json!("redirect_302"), Unrecognised),
    ] {
        let stand = Stand::new().await;
        stand
            .fault(json!({"route": "socket", "action": answer}))
            .await;
        let failure = stand.failure("s1", 0).await;
        assert_eq!(failure.record.class, class, "{answer}");
        let hint = (class == Throttled).then_some(7 * SECOND);
        assert_eq!(failure.retry_after, hint);
        assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
    }
}

#[tokio::test]
async fn nobody_there_and_no_such_path_are_told_apart() {
    let mut stand = Stand::new().await;
    stand.path = "/api/v2/nothing";
    assert_eq!(stand.class("s1", 0).await, Endpoint);
    // An upload endpoint is there, and opens no socket.
    stand.path = "/api/v2/analytics/screenrecordings";
    assert_eq!(stand.class("s1", 0).await, Endpoint);
    let mut delivery = stand.delivery("s1", 0, 10);
    Arc::get_mut(&mut delivery.target).unwrap().api_url = "http://127.0.0.1:9".to_owned();
    let Verdict::Failed(failure) = stand.platform.deliver(delivery).await.verdict else {
        panic!("delivered");
    };
    assert_eq!(failure.record.class, Transient);
    assert!(
        failure.record.message.starts_with("connecting: "),
        "{}",
        failure.record.message
    );
}

#[tokio::test]
async fn a_chunk_is_refused_in_band_as_over_http() {
    let stand = Stand::new().await;
    for (answer, class) in [
        (json!({"status": 401}), Unauthorized),
        (json!({"status": 403}), Forbidden),
        (json!({"status": 422}), Rejected),
        (
            json!({"status": 429, "headers": {"Retry-After": "7"}}),
            Throttled,
        ),
        (json!({"status": 500}), Transient),
        (
            json!({"status": 503, "headers": {"Retry-After": "7"}}),
            Throttled,
        ),
    ] {
        stand.fault(json!({"action": answer})).await;
        let failure = stand.failure("s1", 0).await;
        assert_eq!(failure.record.class, class, "{answer}");
        let hint = (class == Throttled).then_some(7 * SECOND);
        assert_eq!(failure.retry_after, hint);
        assert!(failure.record.correlation_id.is_some());
    }
    assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
    assert_eq!(stand.counted("sockets"), 1);
}

#[tokio::test]
async fn an_ack_tells_of_the_quota_and_a_spent_one_throttles() {
    let stand = Stand::new().await;
    let quota = json!({"quota": {"requests": 2, "window_ms": 60_000, "dialect": "inin"}});
    stand.post("/_sandbox/tenants/acme", quota).await;
    let answer = stand.platform.deliver(stand.delivery("s1", 0, 10)).await;
    assert_eq!(answer.verdict, DELIVERED);
    assert_eq!(
        (answer.limits.allowed, answer.limits.remaining),
        (Some(2), Some(1))
    );
    assert_eq!(stand.deliver("s1", 1).await, DELIVERED);
    let failure = stand.failure("s1", 2).await;
    assert_eq!(failure.record.class, Throttled);
    assert!(failure.retry_after.is_some_and(|wait| wait > 50 * SECOND));
}

#[tokio::test]
async fn a_rights_loss_is_named() {
    let stand = Stand::new().await;
    assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
    let change = json!({"scopes": [], "refusal": "missing.permissions"});
    stand.post("/_sandbox/tenants/acme", change).await;
    let failure = stand.failure("s1", 1).await;
    assert_eq!(failure.record.class, Forbidden);
    let missing = format!("{:?}", failure.record.missing);
    assert!(
        missing.contains("analytics:screenrecordings:write"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_newer_token_goes_on_in_band_or_over_a_second_socket() {
    for (trouble, sockets, reauthed) in [
        (None, 1, 1),
        (Some("reauth_refuse"), 2, 1),
        (Some("reauth_ignore"), 2, 1),
        (Some("reauth_drop"), 2, 1),
    ] {
        let mut stand = Stand::new().await;
        if let Some(trouble) = trouble {
            stand
                .fault(json!({"route": "socket", "action": {"socket": trouble}}))
                .await;
        }
        assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
        stand.mint().await;
        let both = [stand.deliver("s1", 1), stand.deliver("s2", 0)];
        for verdict in futures_util::future::join_all(both).await {
            assert_eq!(verdict, DELIVERED, "{trouble:?}");
        }
        let seen = (stand.counted("sockets"), stand.counted("reauthed"));
        assert_eq!(seen, (sockets, reauthed), "{trouble:?}");
        assert_eq!(stand.counted("duplicates_suppressed"), 0);
    }
}

#[tokio::test]
async fn a_revoked_token_is_a_401_and_the_next_one_cures_it() {
    let mut stand = Stand::new().await;
    assert_eq!(stand.deliver("s1", 0).await, DELIVERED);
    stand
        .post("/_sandbox/tenants/acme", json!({"revoke": true}))
        .await;
    assert_eq!(stand.class("s1", 1).await, Unauthorized);
    stand.mint().await;
    assert_eq!(stand.deliver("s1", 1).await, DELIVERED);
    assert_eq!(stand.counted("sockets"), 1);
}

#[tokio::test]
async fn a_close_for_credentials_is_a_401() {
    for code in [3000, 4401] {
        let stand = Stand::new().await;
        let close = json!({"socket": "close", "code": code, "after_messages": 3});
        stand
            .fault(json!({"route": "socket", "action": close}))
            .await;
        assert_eq!(stand.class("s1", 0).await, Unauthorized);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_chunk_and_nobody_elses() {
    let stand = Stand::new().await;
    stand
        .fault(json!({"session": "s1", "action": "hold"}))
        .await;
    {
        let leaving = stand.deliver("s1", 0);
        tokio::pin!(leaving);
        let held = async {
            let url = format!(
                "{}/_sandbox/held?at_least=1&within_ms=5000",
                stand.sandbox.base_url()
            );
            stand.http.get(url).send().await.unwrap()
        };
        tokio::select! {
            _ = &mut leaving => panic!("it is held"),
            _ = held => {}
        }
    }
    assert_eq!(stand.deliver("s2", 0).await, DELIVERED);
    // The platform is still at work on it.
    assert_eq!(stand.class("s1", 0).await, InDoubt);
    stand.post("/_sandbox/release", Value::Null).await;
    let mut verdict = stand.deliver("s1", 0).await;
    while verdict != KNOWN {
        verdict = stand.deliver("s1", 0).await;
    }
    assert_eq!(stand.counted("sockets"), 1);
    assert_eq!(stand.counted("duplicates_suppressed"), 0);
}

#[tokio::test]
async fn a_server_that_goes_silent_is_left_for_another_socket() {
    for (trouble, class) in [
        (json!({"socket": "deaf", "after_messages": 4}), InDoubt),
        (json!({"socket": "no_acks"}), InDoubt),
        (json!({"socket": "garbage", "after_messages": 4}), InDoubt),
        (
            json!({"socket": "huge", "bytes": 2_000_000, "after_messages": 4}),
            InDoubt,
        ),
        (
            json!({"socket": "say", "message": "hello", "after_messages": 4}),
            InDoubt,
        ),
        (
            json!({"socket": "close", "code": 1011, "after_messages": 4}),
            InDoubt,
        ),
        (
            json!({"socket": "disconnect", "reason": "reconnect", "after_messages": 4}),
            InDoubt,
        ),
    ] {
        let stand = Stand::new().await;
        stand
            .fault(json!({"route": "socket", "action": trouble}))
            .await;
        assert_eq!(stand.class("s1", 0).await, class, "{trouble}");
        // Until the server has noticed the end of the first socket it may say that the session is in progress there.
        let delivered =
            async { while !matches!(stand.deliver("s1", 0).await, Verdict::Delivered { .. }) {} };
        tokio::time::timeout(Duration::from_secs(10), delivered)
            .await
            .unwrap_or_else(|_| panic!("{trouble}"));
        assert_eq!(stand.counted("sockets"), 2, "{trouble}");
        assert_eq!(stand.counted("duplicates_suppressed"), 0, "{trouble}");
        assert_eq!(stand.sequences("s1"), json!([0]));
    }
}

#[tokio::test]
async fn a_slow_platform_is_waited_for() {
    let stand = Stand::new().await;
    let slow = json!({"socket": "slow_acks", "ms": 300});
    stand
        .fault(json!({"route": "socket", "action": slow}))
        .await;
    for sequence in 0..3 {
        assert_eq!(stand.deliver("s1", sequence).await, DELIVERED);
    }
    assert_eq!(stand.counted("sockets"), 1);
}

#[tokio::test]
async fn a_throttle_of_the_socket_is_kept_to_without_asking_again() {
    let stand = Stand::new().await;
    let throttle = json!({"socket": "throttle", "retry_after": "PT30S", "after_messages": 1});
    stand
        .fault(json!({"route": "socket", "action": throttle}))
        .await;
    for session in ["s1", "s2", "s1"] {
        let failure = stand.failure(session, 0).await;
        assert_eq!(failure.record.class, Throttled);
        assert!(failure.retry_after.is_some_and(|wait| wait > 25 * SECOND));
    }
    assert_eq!(stand.counted("inside_forbidden_window"), 0);
}
