//! Servers that mean no good, at the handshake and on the socket: bounded time, bounded memory, a class that fits and a
//! record that says what was seen. `tests/it/hostile.rs` has what they do to the process and to other tenants.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::WebsocketPlatform;
use super::*;
use crate::http::Reach;
use crate::model::FailureClass::{self, *};
use crate::platform::tests::server::{Seen, Server, Step};
use crate::platform::{
    Delivery, Failure, Part, Platform, ReceiptPolicy, Target, Timeouts, Verdict,
};

const TOKEN: &str = "canary-token-0123456789abcdef";
/// The whole of a delivery; reached only by something that never ends.
const BOUND: Duration = Duration::from_secs(120);
/// Sockets that one delivery can come to.
const SOCKETS: usize = 8;
/// What the network and one message hold of an endless one; the kernel takes a few MiB a connection.
const TAKEN_MAX: u64 = SOCKETS as u64 * (16 << 20);

fn impatient() -> Patience {
    let millis = Duration::from_millis;
    Patience {
        request: Timeouts {
            connect: millis(1000),
            stall: millis(1000),
            headers: millis(1000),
            answer: millis(1000),
        },
        stall: millis(1000),
        ping: millis(500),
        pong: millis(500),
        open: millis(1500),
        reauth: millis(500),
        quiet: millis(500),
        verify: millis(500),
        idle: millis(60_000),
        rest: millis(5),
        rest_max: millis(20),
    }
}

/// A server, and what is to come of a delivery to it.
struct Case {
    name: &'static str,
    script: fn() -> Vec<Step>,
    bytes: u64,
    class: FailureClass,
    /// In the record's message.
    words: &'static str,
}

const fn case(
    name: &'static str,
    script: fn() -> Vec<Step>,
    class: FailureClass,
    words: &'static str,
) -> Case {
    Case {
        name,
        script,
        bytes: 1000,
        class,
        words,
    }
}

fn delivery(url: &str, bytes: u64) -> Delivery {
    let payload = vec![b'x'; usize::try_from(bytes).unwrap()];
    Delivery {
        target: Arc::new(Target {
            tenant: "acme".parse().unwrap(),
            api_url: url.to_owned(),
            path: "/stream".to_owned(),
            receipt: ReceiptPolicy::Body,
        }),
        token: Token::new(TOKEN.to_owned(), Generation(1)),
        parts: vec![Part {
            meta: ChunkMeta {
                digest: Digest::of(&payload),
                ..meta("s1", 0, bytes)
            },
            payload: Box::new(Cursor::new(payload)),
        }],
        gaps: Vec::new(),
        late: false,
        attempt: 1,
        at: Timestamp(1_772_356_000_000),
    }
}

async fn meet(case: &Case) -> (Failure, u64) {
    let scripts = (0..SOCKETS).map(|_| (case.script)()).collect();
    let server = Server::playing_each(scripts).await;
    let platform = WebsocketPlatform::new(impatient(), Reach::default());
    let delivery = delivery(&server.url, case.bytes);
    let answer = tokio::time::timeout(BOUND, platform.deliver(delivery)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{} never ended", case.name));
    match answer.verdict {
        Verdict::Failed(failure) => (failure, server.taken.load(Ordering::Relaxed)),
        Verdict::Delivered { .. } => panic!("{}: delivered", case.name),
    }
}

async fn hold(case: &Case) -> Option<String> {
    let (failure, taken) = meet(case).await;
    let record = &failure.record;
    let fits = record.class == case.class && record.message.contains(case.words);
    let bounded = record.body.len() <= 1024 && record.message.len() <= 512;
    let secret = format!("{failure:?}").contains("canary");
    // A flood of whole messages is read, and thrown away, for as long as it is borne.
    let swallowed = taken <= TAKEN_MAX || case.name.contains("flood");
    let good = fits && bounded && !secret && swallowed;
    (!good).then(|| format!("{}: {taken} bytes taken, {record:#?}", case.name))
}

/// All at once, because each waits for something.
async fn all(cases: &[Case]) {
    let wrong: Vec<String> = join_all(cases.iter().map(hold))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn text(bytes: &str) -> Vec<Step> {
    vec![Step::ReadSome(0), Step::Write(bytes.into())]
}

fn accept(seen: &Seen) -> String {
    let key = seen.header("sec-websocket-key").unwrap();
    upgrade(&derive_accept_key(key.as_bytes()), "reelay.v1")
}

fn upgrade(accept: &str, subprotocol: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

/// A frame as a server has to send it; `head` is FIN, reserved bits and opcode.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match u16::try_from(payload.len()).unwrap() {
        short @ 0..126 => frame.push(u8::try_from(short).unwrap()),
        long => {
            frame.push(126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

/// Opens the socket and says this; then what is said to it is read to its end.
fn says(frames: Vec<Vec<u8>>) -> Vec<Step> {
    let mut script = vec![Step::Answer(accept)];
    script.extend(frames.into_iter().map(Step::WriteWhatIsTaken));
    script.push(Step::ReadToEnd);
    script
}

/// Opens the socket, says this, and then that for ever.
fn floods(first: &[u8], endless: &'static [u8]) -> Vec<Step> {
    vec![
        Step::Answer(accept),
        Step::WriteWhatIsTaken(first.to_vec()),
        Step::WriteForever(endless),
    ]
}

fn message(value: Value) -> Vec<u8> {
    frame(TEXT, value.to_string().as_bytes())
}

fn opened() -> Vec<u8> {
    message(
        json!({"type": "opened", "channel": 1, "session": "s1", "persisted": [], "digests": []}),
    )
}

#[tokio::test]
async fn a_handshake_that_opens_no_socket_is_bounded_and_says_why() {
    all(&[
        case(
            "endless headers",
            || {
                let mut script = text("HTTP/1.1 101 Switching Protocols\r\n");
                script.push(Step::WriteForever(
                    b"X-Filler: 0123456789012345678901234567890123456789\r\n",
                ));
                script
            },
            Transient,
            "opening a socket: ",
        ),
        case(
            "never answered",
            || vec![Step::ReadSome(0), Step::Stall],
            Transient,
            "no answer to the handshake for 2s",
        ),
        case(
            "dripping headers",
            || {
                let mut script = text("HTTP/1.1 101 Switching Protocols\r\nX-Filler: ");
                script.push(Step::Drip(b'z'));
                script
            },
            Transient,
            "no answer to the handshake for 2s",
        ),
        case(
            "no HTTP",
            || text("\u{1}\u{2}\u{3} canary \r\n\r\n"),
            Transient,
            "opening a socket: ",
        ),
        case(
            "another key accepted",
            || text(&upgrade("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "reelay.v1")),
            Unrecognised,
            "101",
        ),
        case(
            "another subprotocol",
            || {
                fn other(seen: &Seen) -> String {
                    accept(seen).replace("reelay.v1", "chat")
                }
                vec![Step::Answer(other)]
            },
            Unrecognised,
            "101",
        ),
        case(
            "a page without end",
            || {
                let mut script = text("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n");
                script.push(Step::WriteForever(&[b'z'; 65_536]));
                script
            },
            Unrecognised,
            "200",
        ),
        case(
            "a refusal that drips",
            || {
                let mut script = text("HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n");
                script.push(Step::Drip(b'z'));
                script
            },
            Transient,
            "503",
        ),
    ])
    .await;
}

#[tokio::test]
async fn no_handshake_is_taken_to_another_host() {
    let elsewhere = Server::playing(vec![Step::ReadToEnd]).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: {}/x\r\nContent-Length: 0\r\n\r\n",
            elsewhere.url
        );
        let server = Server::playing(text(&answer)).await;
        let platform = WebsocketPlatform::new(impatient(), Reach::default());
        let failure = platform.deliver(delivery(&server.url, 1000)).await;
        let Verdict::Failed(failure) = failure.verdict else {
            panic!("delivered");
        };
        assert_eq!(failure.record.class, Unrecognised, "{status}");
    }
    assert!(!elsewhere.is_done(), "something went to another host");
}

#[tokio::test]
async fn what_no_websocket_may_send_ends_it_and_says_so() {
    all(&[
        case(
            "a frame of 10 GiB",
            || floods(&[TEXT, 127, 0, 0, 0, 2, 128, 0, 0, 0], &[b'z'; 65_536]),
            Transient,
            "Space limit exceeded",
        ),
        case(
            "a message of endless fragments",
            || floods(&frame(0x01, &[b'z'; 1000]), &FRAGMENT),
            Transient,
            "Space limit exceeded",
        ),
        case(
            "a flood of empty fragments",
            || floods(&frame(0x01, b""), &[0, 0]),
            Transient,
            "nothing was heard for 1s",
        ),
        case(
            "a masked frame",
            || says(vec![vec![TEXT, 0x82, 1, 2, 3, 4, b'z', b'z']]),
            Transient,
            "masked",
        ),
        case(
            "reserved bits",
            || says(vec![frame(0xf1, b"{}")]),
            Transient,
            "eserved",
        ),
        case(
            "a reserved opcode",
            || says(vec![frame(0x83, b"{}")]),
            Transient,
            "opcode",
        ),
        case(
            "a continuation of nothing",
            || says(vec![frame(0x80, b"{}")]),
            Transient,
            "ontinue",
        ),
        case(
            "no UTF-8",
            || says(vec![frame(TEXT, &[0xff, 0xfe])]),
            Transient,
            "UTF-8",
        ),
        case(
            "a binary message",
            || says(vec![frame(0x82, b"canary")]),
            Transient,
            "a binary message",
        ),
        case(
            "a ping too large",
            || says(vec![frame(0x89, &[b'z'; 200])]),
            Transient,
            "ontrol frame",
        ),
        case(
            "a close with a huge reason",
            || says(vec![frame(CLOSE, &[b'z'; 60_000])]),
            Transient,
            "ontrol frame",
        ),
        case(
            "a close that tells the token",
            || {
                let reason = [
                    &[0x03, 0xf3][..],
                    TOKEN.as_bytes(),
                    TOKEN.as_bytes(),
                    b"\x1b[2J",
                ]
                .concat();
                says(vec![frame(CLOSE, &reason)])
            },
            Transient,
            "1011",
        ),
        case(
            "a close for credentials that tells the token",
            || {
                says(vec![frame(
                    CLOSE,
                    &[&[0x11, 0x31][..], TOKEN.as_bytes()].concat(),
                )])
            },
            Unauthorized,
            "401",
        ),
    ])
    .await;
}

static FRAGMENT: [u8; 60_004] = {
    let mut frame = [b'z'; 60_004];
    frame[0] = 0;
    frame[1] = 126;
    frame[2] = (60_000_u32 >> 8) as u8;
    frame[3] = (60_000_u32 & 0xff) as u8;
    frame
};

#[tokio::test]
async fn messages_that_lie_deliver_nothing() {
    all(&[
        case("garbage", || says(vec![frame(TEXT, b"{\"type\":")]), Transient, "is not of the protocol"),
        case("depth", || says(vec![frame(TEXT, &[b'['; 60_000])]), Transient, "is not of the protocol"),
        case("another shape", || says(vec![message(json!([1, 2]))]), Transient, "is not of the protocol"),
        case(
            "receipts for what was never sent",
            || {
                let receipt = |channel: u64, sequence: u64| {
                    let parts = json!([{"sequence": sequence, "digest": Digest::of(b"x").to_string(), "status": "stored"}]);
                    message(json!({"type": "ack", "channel": channel, "session": "s1", "parts": parts}))
                };
                says(vec![receipt(7, 0), receipt(1, 0), receipt(u64::from(u32::MAX), 1), receipt(1, 9)])
            },
            Transient,
            "",
        ),
        case(
            "another receipt for what was sent",
            || {
                let parts = json!([{"sequence": 0, "digest": Digest::of(b"x").to_string(), "status": "stored"}]);
                let ack = message(json!({"type": "ack", "channel": 1, "session": "s1", "parts": parts}));
                // The chunk's message and its payload.
                vec![
                    Step::Answer(accept),
                    Step::Write(opened()),
                    Step::ReadSome(1300),
                    Step::WriteWhatIsTaken(ack),
                    Step::ReadToEnd,
                ]
            },
            Unrecognised,
            "",
        ),
        case(
            "a channel for another session",
            || {
                let opened = json!({"type": "opened", "channel": 1, "session": "canary", "persisted": [], "digests": []});
                says(vec![message(opened)])
            },
            Transient,
            "another session than was asked for",
        ),
        case(
            "everything persisted",
            || {
                let all = json!([{"first": 0, "last": u64::MAX}, {"first": u64::MAX, "last": 0}]);
                let digests = json!([{"sequence": u64::MAX, "digest": "canary"}, {"sequence": 0, "digest": "canary"}]);
                let opened = json!({"type": "opened", "channel": 1, "session": "s1", "persisted": all, "digests": digests});
                says(vec![message(opened)])
            },
            InDoubt,
            "",
        ),
        case(
            "a throttle for ever",
            || {
                let wait = "PT18446744073709549568S18446744073709549568S";
                says(vec![message(json!({"type": "throttle", "retryAfter": wait}))])
            },
            Throttled,
            "429",
        ),
        case(
            "a disconnect for ever",
            || says(vec![message(json!({"type": "disconnect", "status": 429, "retryAfter": 1.8e19}))]),
            Throttled,
            "429",
        ),
        case(
            "a chunk refused with no status of a refusal",
            || says(vec![message(json!({"type": "error", "channel": 1, "status": 200}))]),
            Transient,
            "is an error without the status of one",
        ),
    ])
    .await;
}

#[tokio::test]
async fn whoever_says_nothing_drips_or_floods_is_left() {
    const PING: &[u8] = &[0x89, 4, b'z', b'z', b'z', b'z'];
    const WORDS: &[u8] = b"\x81\x0f{\"type\":\"else\"}";
    let mut cases = vec![
        case(
            "silence",
            || vec![Step::Answer(accept), Step::Stall],
            Transient,
            "nothing was heard for 1s",
        ),
        case(
            "dripping frame",
            || {
                let head = Step::Write(vec![TEXT, 126, 0xff, 0xff]);
                vec![Step::Answer(accept), head, Step::Drip(b'z')]
            },
            Transient,
            "nothing was heard for 1s",
        ),
        case("a flood of pings", || floods(b"", PING), Transient, ""),
        case("a flood of words", || floods(b"", WORDS), Transient, ""),
        case("opened and silence", || says(vec![opened()]), InDoubt, ""),
        case(
            "opened and takes nothing",
            || vec![Step::Answer(accept), Step::Write(opened()), Step::Stall],
            InDoubt,
            "",
        ),
    ];
    // More than the kernel takes for a connection.
    cases.last_mut().unwrap().bytes = 48 << 20;
    all(&cases).await;
}
