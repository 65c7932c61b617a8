//! The json transport against a raw TCP server that reads and writes what a script says, byte for byte.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::model::{ChunkKey, Digest, Generation};

const SECRET: &str = "canary-token-0123456789abcdef";

/// Short, and still far longer than anything here takes.
fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(400),
        headers: Duration::from_millis(400),
        answer: Duration::from_millis(400),
    }
}

/// A step of a connection's script.
enum Step {
    /// Read the whole request, as long as its Content-Length says.
    ReadAll,
    /// Read the head and at least this much of the body.
    ReadSome(usize),
    Write(Vec<u8>),
    /// Write this again and again until the client has gone.
    WriteForever(&'static [u8]),
    /// Read nothing and write nothing until the client has gone or the test ends.
    Stall,
    /// Break the connection with RST.
    Reset,
}

/// What the server received on one connection.
#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
}

impl Seen {
    fn head_length(&self) -> Option<usize> {
        let end = self.bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        Some(end + 4)
    }

    fn head(&self) -> String {
        String::from_utf8(self.bytes[..self.head_length().unwrap()].to_vec()).unwrap()
    }

    fn header(&self, name: &str) -> Option<String> {
        self.head().lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head_length().unwrap()..]
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.body()).unwrap()
    }

    fn is_complete(&self) -> bool {
        self.head_length().is_some()
            && self.body().len()
                == self
                    .header("content-length")
                    .unwrap()
                    .parse::<usize>()
                    .unwrap()
    }

    async fn read_more(&mut self, stream: &mut TcpStream) {
        let count = stream.read_buf(&mut self.bytes).await.unwrap();
        assert_ne!(count, 0, "the client ended the request early");
    }
}

/// Serves one connection a script, one after another.
struct Server {
    url: String,
    task: JoinHandle<Vec<Seen>>,
}

impl Server {
    async fn playing(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                seen.push(play(stream, script).await);
            }
            seen
        });
        Self { url, task }
    }

    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::playing(vec![vec![Step::ReadAll, Step::Write(answer.into())]]).await
    }

    async fn seen(self) -> Seen {
        self.task.await.unwrap().pop().unwrap()
    }
}

async fn play(mut stream: TcpStream, script: Vec<Step>) -> Seen {
    let mut seen = Seen::default();
    for step in script {
        match step {
            Step::ReadAll => {
                while !seen.is_complete() {
                    seen.read_more(&mut stream).await;
                }
            }
            Step::ReadSome(bytes) => {
                while seen.head_length().is_none() || seen.body().len() < bytes {
                    seen.read_more(&mut stream).await;
                }
            }
            Step::Write(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::WriteForever(bytes) => while stream.write_all(bytes).await.is_ok() {},
            Step::Stall => std::future::pending().await,
            Step::Reset => stream.set_zero_linger().unwrap(),
        }
    }
    seen
}

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

async fn deliver(delivery: Delivery) -> Answer {
    JsonPlatform::new(timeouts()).deliver(delivery).await
}

fn failure(answer: Answer) -> Failure {
    match answer.verdict {
        Verdict::Failed(failure) => failure,
        Verdict::Delivered { .. } => panic!("delivered"),
    }
}

const DELIVERED: Verdict = Verdict::Delivered { duplicate: false };

#[tokio::test]
async fn a_chunk_arrives_byte_for_byte_and_its_receipt_is_believed() {
    let payloads = vec![noise(200_000)];
    let server = Server::answering(stored(&payloads)).await;
    let answer = deliver(delivery(&server.url, &payloads)).await;
    assert_eq!(answer.verdict, DELIVERED);

    let seen = server.seen().await;
    assert!(
        seen.head()
            .starts_with("POST /api/v2/analytics/screenrecordings HTTP/1.1\r\n")
    );
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Bearer {SECRET}"))
    );
    assert_eq!(
        seen.header("content-type").as_deref(),
        Some("application/json")
    );
    assert_eq!(seen.header("transfer-encoding"), None);
    let key = part_key(&meta(7, &payloads[0]));
    assert_eq!(seen.header("idempotency-key"), Some(format!("\"{key}\"")));
    let json = seen.json();
    let payload = json["payload"].as_str().unwrap();
    assert!(STANDARD.decode(payload).unwrap() == payloads[0]);
}
