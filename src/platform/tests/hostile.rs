//! Servers that mean no good, against every HTTP transport, against both parties of the presigned one, and against every
//! question: bounded time, bounded memory, a class that fits and a record that says what was seen.

use super::server::{Server, Step};
use super::*;
use crate::platform::fetch::{Archive, Fetch, Fetched, HttpArchive, Source, Wish};
use FailureClass::{InDoubt, Transient, Unrecognised};

/// Who is hostile.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Json,
    Binary,
    /// The platform that is asked for an upload URL.
    Asking,
    /// The storage host that it names.
    Storing,
    /// The platform that is asked for a recording's metadata, for its list of recordings, for an upload report.
    Recording,
    List,
    Report,
}

const DELIVERIES: [Stage; 4] = [Stage::Json, Stage::Binary, Stage::Asking, Stage::Storing];
const QUESTIONS: [Stage; 3] = [Stage::Recording, Stage::List, Stage::Report];

/// The whole of a test; reached only by something that never ends.
const BOUND: Duration = Duration::from_secs(60);

/// What came of a delivery of `payload` to a platform whose hostile part is `server`.
async fn meet(stage: Stage, server: &Server, payload: Vec<u8>) -> FailureRecord {
    let timeouts = faults::impatient();
    let friendly = Server::answering(ticket(&format!("{}/k?sig=canary", server.url), "{}")).await;
    let url = match stage {
        Stage::Storing => &friendly.url,
        _ => &server.url,
    };
    let delivery = delivery(url, &[payload]);
    let platform: Box<dyn Platform> = match stage {
        Stage::Json => Box::new(JsonPlatform::new(timeouts, Reach::default())),
        Stage::Binary => Box::new(BinaryPlatform::new(timeouts, Reach::default())),
        _ => Box::new(PresignedPlatform::new(timeouts, Reach::default())),
    };
    let answer = tokio::time::timeout(BOUND, platform.deliver(delivery)).await;
    let failure = failure(answer.unwrap_or_else(|_| panic!("{stage:?} never ended")));
    let route = match stage {
        Stage::Storing => Route::StoreHost,
        _ => Route::Deliver,
    };
    assert_eq!(failure.route, route);
    failure.record
}

/// What came of a question to `server`.
async fn ask(stage: Stage, server: &Server) -> FailureRecord {
    let asked = async {
        match stage {
            Stage::Report => report(server).await,
            _ => fetch(stage, server).await,
        }
    };
    let asked = tokio::time::timeout(BOUND, asked).await;
    let failure = asked.unwrap_or_else(|_| panic!("{stage:?} never ended"));
    assert_eq!(failure.route, Route::Fetch);
    failure.record
}

async fn report(server: &Server) -> Failure {
    let platform = PresignedPlatform::new(faults::impatient(), Reach::default());
    let delivery = delivery(&server.url, &[noise(10)]);
    let inquiry = Inquiry {
        target: delivery.target,
        token: delivery.token,
        keys: vec!["k".into()],
        at: delivery.at,
    };
    match platform.report(inquiry).await.0 {
        Reported::Failed(failure) => failure,
        Reported::Told(told) => panic!("{told:?}"),
    }
}

async fn fetch(stage: Stage, server: &Server) -> Failure {
    let source = Source {
        tenant: "acme".parse().unwrap(),
        api_url: server.url.clone(),
        path: "/api/v2/screenshare/recordings".into(),
        list_path: None,
    };
    let wish = match stage {
        Stage::List => Wish::Page {
            since: Timestamp(0),
            cursor: None,
        },
        _ => Wish::One("rec-1".parse().unwrap()),
    };
    let fetch = Fetch {
        source: Arc::new(source),
        token: Token::new(SECRET.into(), Generation(3)),
        wish,
        attempt: 1,
        at: Timestamp(1_772_356_000_000),
    };
    let archive = HttpArchive::new(faults::impatient(), Reach::default());
    match archive.fetch(fetch).await.fetched {
        Fetched::Failed(failure) => *failure,
        told => panic!("{told:?}"),
    }
}

/// The classes of the deliveries, in the order of [`DELIVERIES`]; `None` where the case does not apply.
type Classes = [Option<FailureClass>; 4];

/// A case that says nothing of what is uploaded: questions meet it too, and cannot be in doubt.
async fn everyone(name: &str, payload: &[u8], script: impl Fn() -> Vec<Step>, classes: Classes) {
    let class = match classes[0].expect("it applies") {
        InDoubt => Transient,
        class => class,
    };
    let [recording, list, report] = QUESTIONS.map(|stage| {
        let script = script();
        async move {
            let server = Server::playing(script).await;
            judge(name, stage, &ask(stage, &server).await, class);
        }
    });
    // At the same time: most of them wait.
    tokio::join!(
        all(name, payload, &script, classes),
        recording,
        list,
        report
    );
}

fn judge(name: &str, stage: Stage, record: &FailureRecord, class: FailureClass) {
    assert_eq!(record.class, class, "{name} at {stage:?}: {record:?}");
    assert!(!record.message.is_empty(), "{name} at {stage:?}");
    assert!(record.body.len() <= 1024 && record.message.len() <= 512);
    assert!(!format!("{record:?}").contains("canary"), "{name}");
}

async fn all(name: &str, payload: &[u8], script: impl Fn() -> Vec<Step>, classes: Classes) {
    for (stage, class) in DELIVERIES.into_iter().zip(classes) {
        let Some(class) = class else { continue };
        let server = Server::playing(script()).await;
        let record = meet(stage, &server, payload.to_vec()).await;
        judge(name, stage, &record, class);
    }
}

const fn everywhere(class: FailureClass) -> Classes {
    [Some(class); 4]
}

fn answered(answer: impl Into<Vec<u8>>) -> Vec<Step> {
    vec![Step::ReadAll, Step::Write(answer.into())]
}

#[tokio::test]
async fn answers_without_end_are_cut_off() {
    let payload = noise(1000);
    let headers = || {
        let endless = Step::WriteForever(b"X-Filler: 0123456789012345678901234567890123456789\r\n");
        let mut script = answered("HTTP/1.1 200 OK\r\n");
        script.push(endless);
        script
    };
    everyone("headers", &payload, headers, everywhere(InDoubt)).await;
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n280000000\r\n",
    ] {
        let body = || {
            let mut script = answered(head);
            script.push(Step::WriteForever(&[b'z'; 65_536]));
            script
        };
        everyone(head, &payload, body, everywhere(Unrecognised)).await;
    }
}

#[tokio::test]
async fn whoever_drips_or_says_nothing_is_not_waited_for() {
    let payload = noise(1000);
    let dripping = |head: &'static str| {
        move || {
            let mut script = answered(head);
            script.push(Step::Drip(b'z'));
            script
        }
    };
    let silent = || vec![Step::ReadAll, Step::Stall];
    everyone("silence", &payload, silent, everywhere(InDoubt)).await;
    let head = dripping("HTTP/1.1 200 OK\r\nX-Filler: ");
    everyone("dripping headers", &payload, head, everywhere(InDoubt)).await;
    let body = dripping("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    // A storage host's receipt is in its headers, and there is none.
    let classes = [InDoubt, InDoubt, InDoubt, Unrecognised].map(Some);
    everyone("dripping body", &payload, body, classes).await;
    let error = dripping("HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n");
    everyone("dripping error", &payload, error, everywhere(Transient)).await;
}

#[tokio::test]
async fn whoever_takes_nothing_is_given_up() {
    // More than the kernel takes for a connection.
    let payload = vec![b'x'; 48 << 20];
    let classes = [Some(Transient), Some(Transient), None, Some(Transient)];
    all("not reading", &payload, || vec![Step::Stall], classes).await;
}

#[tokio::test]
async fn pages_garbage_and_wrong_receipts_deliver_nothing() {
    let payload = noise(1000);
    let other_session =
        receipt(std::slice::from_ref(&payload), "stored").replace("\"s1\"", "\"s2\"");
    let other_bytes = receipt(&[noise(999)], "stored");
    let wrong_etag = ["ETag: \"900150983cd24fb0d6963f7d28e17f72\""];
    let wrong_sum = ["x-amz-checksum-sha256: AAAA", "Content-Type: text/html"];
    for (status, headers, body, class) in [
        ("200 OK", &[][..], "{\"session\":", Unrecognised),
        ("200 OK", &[], "[[[[[[[[", Unrecognised),
        ("200 OK", &[], "\u{fffd}\0\0", Unrecognised),
        ("200 OK", &wrong_sum, "<html>Sign in</html>", Unrecognised),
        ("200 OK", &wrong_etag, &other_session, Unrecognised),
        ("201 Created", &wrong_etag, &other_bytes, Unrecognised),
        ("204 No Content", &[], "", Unrecognised),
        ("206 Partial", &[], &other_bytes, Unrecognised),
        ("502 Bad Gateway", &[], "<html>nginx</html>", Transient),
    ] {
        let script = || answered(http(status, headers, body));
        everyone(status, &payload, script, everywhere(class)).await;
    }
    let garbage = || answered(noise(5000));
    everyone("no HTTP", &payload, garbage, everywhere(InDoubt)).await;
}

#[tokio::test]
async fn no_one_is_sent_on_to_another_host() {
    let payload = noise(1000);
    let elsewhere = Server::playing(vec![Step::ReadAll]).await;
    for line in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let location = format!("Location: {}/next", elsewhere.url);
        let script = || answered(http(line, &[&location], ""));
        everyone(line, &payload, script, everywhere(Unrecognised)).await;
    }
    assert!(!elsewhere.is_done(), "something went to another host");
}

#[tokio::test]
async fn an_early_yes_is_no_receipt_and_an_early_no_is_heard() {
    let payload = vec![b'x'; 8 << 20];
    let yes = receipt(std::slice::from_ref(&payload), "stored");
    let early = |answer: String| {
        move || {
            let answer = Step::Write(answer.clone().into());
            vec![Step::ReadSome(1000), answer, Step::ReadToEnd]
        }
    };
    let classes = |class| [Some(class), Some(class), None, Some(class)];
    let script = early(http("200 OK", &["ETag: \"x\""], &yes));
    all("early yes", &payload, script, classes(Unrecognised)).await;
    let script = early(http("413 Too Large", &[], "{}"));
    let rejected = FailureClass::Rejected;
    all("early no", &payload, script, classes(rejected)).await;
}

#[tokio::test]
async fn upload_urls_that_lead_astray_are_not_followed() {
    let payload = noise(10);
    let other = Server::playing(vec![Step::ReadAll]).await;
    let plain = other.url.replace("127.0.0.1", "localhost.example.com");
    for (url, headers) in [
        (plain.as_str(), "{}"),
        ("file:///etc/passwd", "{}"),
        ("https://user:canary@127.0.0.1/", "{}"),
        (&other.url, r#"{"Host": "canary.example.com"}"#),
        (&other.url, r#"{"Transfer-Encoding": "chunked"}"#),
        (&other.url, r#"{"Content-Length": "11"}"#),
    ] {
        let script = || answered(ticket(url, headers));
        let classes = [None, None, Some(Unrecognised), None];
        all(url, &payload, script, classes).await;
    }
    assert!(!other.is_done());
}
