//! Every way in which a request can go wrong on the wire.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::*;
use FailureClass::*;

/// For tests in which a wait must run out. Far longer than a loaded machine needs for anything else
/// in them.
pub fn impatient() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(700),
        headers: Duration::from_millis(700),
        answer: Duration::from_millis(700),
    }
}

/// Endless bytes that end as told, and count how many were read.
pub struct Tap {
    left: u64,
    read: Arc<AtomicU64>,
    end: Option<io::ErrorKind>,
    gone: Option<oneshot::Sender<()>>,
}

impl Tap {
    pub fn of(bytes: u64, end: Option<io::ErrorKind>) -> Self {
        Self {
            left: bytes,
            read: Arc::default(),
            end,
            gone: None,
        }
    }
}

impl Read for Tap {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0
            && let Some(kind) = self.end
        {
            return Err(kind.into());
        }
        let count = into.len().min(usize::try_from(self.left).unwrap());
        into[..count].fill(b'x');
        self.left -= count as u64;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Payload for Tap {}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(gone) = self.gone.take() {
            let _ = gone.send(());
        }
    }
}

/// One part that announces `bytes`.
pub fn tapped(url: &str, bytes: u64, tap: Tap) -> Delivery {
    let mut delivery = delivery(url, &[Vec::new()]);
    delivery.parts[0].meta.bytes = bytes;
    delivery.parts[0].payload = Box::new(tap);
    delivery
}

pub async fn record(timeouts: Timeouts, delivery: Delivery) -> FailureRecord {
    let answer = JsonPlatform::new(timeouts, Reach::default())
        .deliver(delivery)
        .await;
    failure(answer).record
}

/// The record of a request for which the server plays `script`.
async fn played(payload_bytes: usize, script: Vec<Step>) -> FailureRecord {
    played_with(Timeouts::default(), payload_bytes, script).await
}

async fn played_with(timeouts: Timeouts, payload_bytes: usize, script: Vec<Step>) -> FailureRecord {
    let server = Server::playing(script).await;
    let delivery = delivery(&server.url, &[noise(payload_bytes)]);
    record(timeouts, delivery).await
}

pub const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn a_refused_connection_is_transient() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let record = record(Timeouts::default(), delivery(&url, &[noise(10)])).await;
    assert_eq!(record.class, Transient);
    assert!(
        record.message.contains("Connection refused"),
        "{}",
        record.message
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_transient() {
    let server = Server::playing(vec![Step::Write(b"HTTP/1.1 400 No\r\n\r\n".into())]).await;
    let url = server.url.replace("http:", "https:");
    let record = record(Timeouts::default(), delivery(&url, &[noise(10)])).await;
    assert_eq!(record.class, Transient);
    assert!(
        record.message.starts_with("connecting: "),
        "{}",
        record.message
    );
}

#[tokio::test]
async fn a_reset_in_the_middle_of_the_body_is_transient() {
    let record = played(8 << 20, vec![Step::ReadSome(100_000), Step::Reset]).await;
    assert_eq!(record.class, Transient);
    assert!(
        record.message.starts_with("sending, after "),
        "{}",
        record.message
    );
}

#[tokio::test]
async fn a_reply_that_is_lost_after_the_last_byte_leaves_the_request_in_doubt() {
    for end in [
        vec![Step::Reset],
        vec![],
        vec![Step::Write(b"HTTP/1.1 20".into())],
    ] {
        let script = [Step::ReadAll].into_iter().chain(end).collect();
        let record = played(200_000, script).await;
        assert_eq!((record.class, record.status), (InDoubt, None));
        let expected = "waiting for the answer: ";
        assert!(record.message.starts_with(expected), "{}", record.message);
    }
}

#[tokio::test]
async fn a_server_that_reads_nothing_makes_the_payload_wait_and_then_gives_up() {
    let server = Server::playing(vec![Step::Stall]).await;
    let tap = Tap::of(1024 * MIB, None);
    let read = Arc::clone(&tap.read);
    let record = record(impatient(), tapped(&server.url, 1024 * MIB, tap)).await;
    assert_eq!(record.class, Transient);
    let expected = "nothing was accepted for 700ms, after ";
    assert!(record.message.starts_with(expected), "{}", record.message);
    // What the kernel takes for a connection, and two blocks.
    let read = read.load(Ordering::Relaxed);
    assert!(read < 32 * MIB, "{read} bytes of the payload were read");
}

#[tokio::test]
async fn a_server_that_never_answers_leaves_the_request_in_doubt() {
    let record = played_with(impatient(), 1000, vec![Step::ReadAll, Step::Stall]).await;
    assert_eq!(record.class, InDoubt);
    assert_eq!(record.message, "no answer for 700ms");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_request_and_frees_its_payload() {
    let server = Server::playing(vec![Step::ReadSome(10_000), Step::Stall]).await;
    let mut tap = Tap::of(1024 * MIB, None);
    let (gone, when_gone) = oneshot::channel();
    tap.gone = Some(gone);
    let read = Arc::clone(&tap.read);
    let platform = JsonPlatform::new(Timeouts::default(), Reach::default());
    let mut delivering = platform.deliver(tapped(&server.url, 1024 * MIB, tap));
    // Far enough in for the body to be under way.
    std::future::poll_fn(|cx| {
        let pending = delivering.as_mut().poll(cx).is_pending();
        assert!(pending);
        if read.load(Ordering::Relaxed) > MIB / 8 {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
    drop(delivering);
    when_gone.await.unwrap();
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_is_heard() {
    for ending in [Step::Stall, Step::ReadToEnd] {
        let record = refused_early(Some(ending)).await;
        assert_eq!((record.class, record.status), (Rejected, Some(413)));
        assert_eq!(record.code.as_deref(), Some("request.too.large"));
    }
}

/// A server that closes with bytes unread breaks the connection behind its answer. The answer is
/// read before every write, so only one that comes within the very write that the break stops is
/// lost (1 in 100 on loopback): then the request is sent again.
#[tokio::test]
async fn an_answer_before_a_reset_is_heard_or_the_request_is_sent_again() {
    for _ in 0..10 {
        let record = refused_early(None).await;
        if record.status.is_some() {
            assert_eq!(record.code.as_deref(), Some("request.too.large"));
            return;
        }
        assert_eq!(record.class, Transient);
    }
    panic!("ten answers in a row were lost");
}

/// The record of a long request that the server refuses as soon as it begins, and what it does
/// then.
async fn refused_early(ending: Option<Step>) -> FailureRecord {
    let refusal = r#"{"message":"Request too large.","code":"request.too.large","status":413}"#;
    let answer = http("413 Payload Too Large", &[], refusal).into();
    let script = [Step::ReadSome(1000), Step::Write(answer)];
    let server = Server::playing(script.into_iter().chain(ending).collect()).await;
    let delivery = tapped(&server.url, 64 * MIB, Tap::of(64 * MIB, None));
    record(Timeouts::default(), delivery).await
}

#[tokio::test]
async fn stored_is_not_believed_of_a_payload_that_was_not_sent() {
    let payload = vec![b'x'; 8 << 20];
    let answer = Step::Write(stored(std::slice::from_ref(&payload)).into());
    let server = Server::playing(vec![Step::ReadSome(1000), answer, Step::ReadToEnd]).await;
    let record = record(Timeouts::default(), delivery(&server.url, &[payload])).await;
    assert_eq!(record.class, Unrecognised);
    assert_eq!(
        record.message,
        "status 200 came before the payload was sent"
    );
}

#[tokio::test]
async fn after_an_early_answer_the_rest_of_the_payload_is_not_sent() {
    let script = vec![
        Step::ReadSome(1000),
        Step::Write(http("401 Unauthorized", &[], "{}").into()),
        Step::ReadToEnd,
    ];
    let server = Server::playing(script).await;
    let delivery = tapped(&server.url, 1024 * MIB, Tap::of(1024 * MIB, None));
    assert_eq!(
        record(Timeouts::default(), delivery).await.class,
        Unauthorized
    );
    let seen = server.seen().await;
    assert!(
        seen.body().len() < seen.announced() / 2,
        "{} bytes",
        seen.body().len()
    );
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let head = Step::Write(b"HTTP/1.1 200 OK\r\n".into());
    let endless = Step::WriteForever(b"X-Filler: 0123456789012345678901234567890123456789\r\n");
    let record = played(1000, vec![Step::ReadAll, head, endless]).await;
    assert_eq!((record.class, record.status), (InDoubt, None));
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_bound() {
    let head = Step::Write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n".into());
    let endless = Step::WriteForever(&[b'z'; 65_536]);
    let script = vec![Step::ReadAll, head, endless];
    let server = Server::playing(script).await;
    let delivery = delivery(&server.url, &[noise(1000)]);
    let record = record(Timeouts::default(), delivery).await;
    assert_eq!((record.class, record.body.len()), (Unrecognised, 1024));
    // It could write no more than was read and what the kernel holds.
    server.all_seen().await;
}

#[tokio::test]
async fn a_receipt_behind_ten_megabytes_is_no_receipt() {
    let payloads = vec![noise(1000)];
    let padding = format!("{{\"padding\":\"{}\",", "z".repeat(10 << 20));
    let padded = receipt(&payloads, "stored").replacen('{', &padding, 1);
    let script = vec![
        Step::ReadAll,
        Step::WriteWhatIsTaken(http("200 OK", &[], &padded).into()),
    ];
    let server = Server::playing(script).await;
    let record = record(Timeouts::default(), delivery(&server.url, &payloads)).await;
    assert_eq!((record.class, record.status), (Unrecognised, Some(200)));
}

#[tokio::test]
async fn an_answer_that_stops_half_way_counts_as_far_as_it_goes() {
    for (line, class) in [
        ("200 OK", InDoubt),
        ("422 Unprocessable", InDoubt),
        ("401 Unauthorized", Unauthorized),
        ("503 Service Unavailable", Transient),
    ] {
        for end in [Step::Stall, Step::Reset] {
            let half = format!("HTTP/1.1 {line}\r\nContent-Length: 500\r\n\r\n{{\"message\":");
            let script = vec![Step::ReadAll, Step::Write(half.into()), end];
            let record = played_with(impatient(), 1000, script).await;
            assert_eq!(record.class, class, "{line}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_receipt() {
    let page = "<html><body>Please accept our terms</body></html>";
    let answer = http("200 OK", &["Content-Type: text/html"], page);
    let record = played(1000, vec![Step::ReadAll, Step::Write(answer.into())]).await;
    assert_eq!(record.class, Unrecognised);
    assert_eq!(record.message, "status 200 with text/html is no receipt");
    assert_eq!(record.body, page);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::playing(vec![Step::ReadAll]).await;
    for line in [
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = format!("Location: {}/login", elsewhere.url);
        let answer = http(line, &[&location], "");
        let record = played(1000, vec![Step::ReadAll, Step::Write(answer.into())]).await;
        assert_eq!(record.class, Unrecognised, "{line}");
    }
    assert!(!elsewhere.is_done(), "the credentials went to another host");
}

#[tokio::test]
async fn a_receipt_for_other_bytes_is_refused() {
    let answer = stored(&[noise(999)]);
    let record = played(1000, vec![Step::ReadAll, Step::Write(answer.into())]).await;
    assert_eq!(record.class, Unrecognised);
    assert_eq!(
        record.message,
        "the receipt has another digest for sequence 7"
    );
}

#[tokio::test]
async fn bytes_that_are_no_http_leave_the_request_in_doubt() {
    let garbage = noise(5000);
    let record = played(1000, vec![Step::ReadAll, Step::Write(garbage)]).await;
    assert_eq!((record.class, record.status), (InDoubt, None));
}

#[tokio::test]
async fn a_token_that_the_server_echoes_is_not_kept() {
    let echo = format!(r#"{{"message":"token {SECRET} is not valid","code":"bad.credentials"}}"#);
    let answer = http("401 Unauthorized", &[], &echo);
    let record = played(1000, vec![Step::ReadAll, Step::Write(answer.into())]).await;
    assert_eq!(record.message, "token [redacted] is not valid");
    assert!(!format!("{record:?}").contains("canary"));
    assert_eq!((record.attempt, record.token_generation), (2, Some(3)));
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_the_tokens_fault() {
    let server = Server::playing(vec![Step::Stall]).await;
    let mut delivery = delivery(&server.url, &[noise(10)]);
    delivery.token = Token::new("two\r\nlines".into(), Generation(1));
    let record = record(Timeouts::default(), delivery).await;
    assert_eq!(record.class, Unauthorized);
    assert!(!format!("{record:?}").contains("lines\""));
}

#[tokio::test]
async fn an_api_url_that_is_none_is_the_endpoints_fault() {
    let delivery = delivery("api.example.com", &[noise(10)]);
    let record = record(Timeouts::default(), delivery).await;
    assert_eq!(record.class, Endpoint);
    assert!(record.message.starts_with("api_url and path make no URL: "));
}
