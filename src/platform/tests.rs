//! The HTTP transports against a raw TCP server that reads and writes what a script says, byte for
//! byte.

mod faults;
mod hostile;
mod payload;
mod presigned;
pub mod server;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use server::{Server, Step};

use super::*;
use crate::http::Reach;
use crate::model::{ChunkKey, Digest, FailureClass, GapReason, Generation};

const SECRET: &str = "canary-token-0123456789abcdef";

fn meta(sequence: u64, payload: &[u8]) -> ChunkMeta {
    ChunkMeta {
        key: ChunkKey {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
            sequence,
        },
        host: "rec-017".parse().unwrap(),
        started_at: Timestamp(1_772_355_600_000 + i64::try_from(sequence).unwrap() * 30_000),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        bytes: payload.len() as u64,
        digest: Digest::of(payload),
    }
}

/// Payloads of consecutive sequences from 7 on.
fn delivery(url: &str, payloads: &[Vec<u8>]) -> Delivery {
    let parts = (7..).zip(payloads).map(|(sequence, payload)| Part {
        meta: meta(sequence, payload),
        payload: Box::new(Cursor::new(payload.clone())),
    });
    Delivery {
        target: Arc::new(Target {
            tenant: "acme".parse().unwrap(),
            api_url: url.to_owned(),
            path: "/api/v2/analytics/screenrecordings".into(),
            receipt: ReceiptPolicy::Body,
        }),
        token: Token::new(SECRET.into(), Generation(3)),
        parts: parts.collect(),
        gaps: Vec::new(),
        late: false,
        attempt: 2,
        at: Timestamp(1_772_356_000_000),
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(bytes as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
}

fn http(status: &str, headers: &[&str], body: &str) -> String {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn receipt(payloads: &[Vec<u8>], status: &str) -> String {
    let parts: Vec<String> = (7..)
        .zip(payloads)
        .map(|(sequence, payload)| {
            let digest = Digest::of(payload);
            format!(r#"{{"sequence":{sequence},"digest":"{digest}","status":"{status}"}}"#)
        })
        .collect();
    format!(r#"{{"session":"s1","parts":[{}]}}"#, parts.join(","))
}

fn stored(payloads: &[Vec<u8>]) -> String {
    http(
        "200 OK",
        &["Content-Type: application/json"],
        &receipt(payloads, "stored"),
    )
}

/// The platform's answer with an upload URL.
fn ticket(url: &str, headers: &str) -> String {
    let body = format!(r#"{{"url": "{url}", "uploadKey": "k", "headers": {headers}}}"#);
    http("200 OK", &["Content-Type: application/json"], &body)
}

async fn deliver(delivery: Delivery) -> Answer {
    JsonPlatform::new(Timeouts::default(), Reach::default())
        .deliver(delivery)
        .await
}

fn failure(answer: Answer) -> Failure {
    match answer.verdict {
        Verdict::Failed(failure) => failure,
        Verdict::Delivered { .. } => panic!("delivered"),
    }
}

fn decoded(json: &serde_json::Value) -> Vec<u8> {
    STANDARD.decode(json["payload"].as_str().unwrap()).unwrap()
}

const DELIVERED: Verdict = Verdict::Delivered { duplicate: false };

#[tokio::test]
async fn a_chunk_arrives_byte_for_byte_and_its_receipt_is_believed() {
    let payloads = vec![noise(200_000)];
    let server = Server::answering(stored(&payloads)).await;
    let answer = deliver(delivery(&server.url, &payloads)).await;
    assert_eq!(answer.verdict, DELIVERED);

    let seen = server.seen().await;
    let line = "POST /api/v2/analytics/screenrecordings HTTP/1.1\r\n";
    assert!(seen.head().starts_with(line), "{}", seen.head());
    let header = |name| seen.header(name).unwrap_or_default();
    assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(header("content-type"), "application/json");
    let key = part_key(&meta(7, &payloads[0]));
    assert_eq!(header("idempotency-key"), format!("\"{key}\""));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.body().len(), seen.announced());
    assert!(decoded(&seen.json()) == payloads[0]);
}

#[tokio::test]
async fn the_parts_of_a_request_share_one_payload_and_need_one_receipt() {
    let payloads = vec![noise(65_537), noise(1), Vec::new(), noise(131_072)];
    let server = Server::answering(stored(&payloads)).await;
    let mut delivery = delivery(&server.url, &payloads);
    delivery.late = true;
    delivery.gaps = vec![Gap {
        first: 5,
        last: 6,
        reason: GapReason::Missing,
    }];
    assert_eq!(deliver(delivery).await.verdict, DELIVERED);

    let seen = server.seen().await;
    assert_eq!(seen.body().len(), seen.announced());
    let json = seen.json();
    assert_eq!(
        json.as_object().unwrap().keys().next_back().unwrap(),
        "payload"
    );
    assert!(decoded(&json) == payloads.concat());
    assert_eq!(json["gaps"][0]["reason"], "missing");
    assert_eq!(json["late"], true);
    let sequences: Vec<u64> = json["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, [7, 8, 9, 10]);
}

#[tokio::test]
async fn a_receipt_that_lacks_a_part_delivers_none() {
    let payloads = vec![noise(10), noise(20)];
    let server = Server::answering(stored(&payloads[..1])).await;
    let failure = failure(deliver(delivery(&server.url, &payloads)).await);
    assert_eq!(failure.record.class, FailureClass::Unrecognised);
}

#[tokio::test]
async fn what_was_stored_before_is_a_duplicate() {
    let payloads = vec![noise(10)];
    let answer = http("409 Conflict", &[], &receipt(&payloads, "duplicate"));
    let server = Server::answering(answer).await;
    let verdict = deliver(delivery(&server.url, &payloads)).await.verdict;
    assert_eq!(verdict, Verdict::Delivered { duplicate: true });
}

#[tokio::test]
async fn the_limits_of_a_successful_answer_are_reported() {
    let payloads = vec![noise(10)];
    let lines = [
        "inin-ratelimit-count: 299",
        "inin-ratelimit-allowed: 300",
        "inin-ratelimit-reset: 17",
    ];
    let answer = http("200 OK", &lines, &receipt(&payloads, "stored"));
    let server = Server::answering(answer).await;
    let limits = deliver(delivery(&server.url, &payloads)).await.limits;
    assert_eq!(limits.remaining, Some(1));
    assert_eq!(limits.reset_in, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn a_lane_uses_its_connection_again() {
    let payloads = vec![noise(100_000)];
    let one = || [Step::ReadAll, Step::Write(stored(&payloads).into())];
    let script = one().into_iter().chain([Step::NextRequest]).chain(one());
    let server = Server::playing(script.collect()).await;
    let platform = JsonPlatform::new(Timeouts::default(), Reach::default());
    for _ in 0..2 {
        let answer = platform.deliver(delivery(&server.url, &payloads)).await;
        assert_eq!(answer.verdict, DELIVERED);
    }
    let bodies: Vec<_> = server.all_seen().await;
    assert!(bodies[0].body() == bodies[1].body());
}

#[tokio::test]
async fn tenants_share_no_connection() {
    let payloads = vec![noise(100)];
    // Whatever follows on the same connection is swallowed.
    let script = || {
        let answer = Step::Write(stored(&payloads).into());
        vec![Step::ReadAll, answer, Step::ReadToEnd]
    };
    let server = Server::playing_each(vec![script(), script()]).await;
    let platform = JsonPlatform::new(faults::impatient(), Reach::default());
    for tenant in ["acme", "globex"] {
        let mut delivery = delivery(&server.url, &payloads);
        let target = Arc::get_mut(&mut delivery.target).unwrap();
        target.tenant = tenant.parse().unwrap();
        let answer = platform.deliver(delivery).await;
        assert_eq!(answer.verdict, DELIVERED, "{tenant}");
    }
}
