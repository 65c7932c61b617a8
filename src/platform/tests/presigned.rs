//! The presigned transport byte for byte: who is told what, and what nobody is told.

use super::server::{Seen, Server, Step};
use super::*;
use crate::platform::md5::Md5;

const HEADERS: &str = r#"{"Content-Type": "video/mp4", "content-md5": "canary-md5=="}"#;

fn etag(payload: &[u8]) -> String {
    let mut md5 = Md5::default();
    md5.update(payload);
    let hex: String = md5.finish().iter().map(|b| format!("{b:02x}")).collect();
    http("200 OK", &[&format!("ETag: \"{hex}\"")], "")
}

fn one(answer: String) -> Vec<Step> {
    vec![Step::ReadAll, Step::Write(answer.into())]
}

async fn deliver(url: &str, payloads: &[Vec<u8>]) -> Verdict {
    let platform = PresignedPlatform::new(Timeouts::default(), Reach::default());
    platform.deliver(delivery(url, payloads)).await.verdict
}

/// The names of the headers that were sent, without those that any client adds.
fn names(seen: &Seen) -> Vec<String> {
    let head = seen.head();
    let names = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut names: Vec<String> = names
        .map(|(name, _)| name.to_lowercase())
        .filter(|name| !["host", "accept", "user-agent"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_platform_sees_the_token_and_the_storage_host_exactly_its_headers() {
    let payloads = vec![noise(200_000)];
    let storage = Server::answering(etag(&payloads[0])).await;
    let url = format!("{}/b/k?X-Amz-Signature=canary", storage.url);
    let platform = Server::answering(ticket(&url, HEADERS)).await;
    assert_eq!(deliver(&platform.url, &payloads).await, DELIVERED);

    let asked = platform.seen().await;
    let bearer = asked.header("authorization").unwrap();
    assert_eq!(bearer, format!("Bearer {SECRET}"));
    let wish = asked.json();
    let key = part_key(&meta(7, &payloads[0]));
    assert_eq!(wish["fileName"], format!("{key}.mp4"));
    assert_eq!(wish["contentLength"], 200_000);
    assert_eq!(wish["signedUrlTimeoutSeconds"], 600);
    assert_eq!(wish["recording"]["parts"][0]["sequence"], 7);
    assert!(wish["recording"].get("payload").is_none());

    let put = storage.seen().await;
    assert!(
        put.head()
            .starts_with("PUT /b/k?X-Amz-Signature=canary HTTP/1.1\r\n")
    );
    assert_eq!(
        names(&put),
        ["content-length", "content-md5", "content-type"]
    );
    assert_eq!(put.header("content-md5").unwrap(), "canary-md5==");
    assert!(put.body() == payloads[0]);
}

#[tokio::test]
async fn the_parts_of_a_group_go_one_after_another_and_what_is_stored_is_not_sent() {
    let payloads = vec![noise(10), noise(20), noise(30)];
    let storage =
        Server::playing_each(vec![one(etag(&payloads[0])), one(etag(&payloads[2]))]).await;
    let close = |answer: String| one(answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
    let give = || close(ticket(&storage.url, "{}"));
    let known = {
        let digest = Digest::of(&payloads[1]);
        format!(
            r#"{{"session":"s1","parts":[{{"sequence":8,"digest":"{digest}","status":"duplicate"}}]}}"#
        )
    };
    let known = close(http("208 Already Reported", &[], &known));
    let platform = Server::playing_each(vec![give(), known, give()]).await;
    let verdict = deliver(&platform.url, &payloads).await;
    assert_eq!(verdict, Verdict::Delivered { duplicate: true });
    let sequences: Vec<_> = platform.all_seen().await.iter().map(Seen::json).collect();
    let sequences = sequences.iter().map(|wish| &wish["recording"]["sequence"]);
    assert!(sequences.eq([7, 8, 9].map(serde_json::Value::from).iter()));
}

#[tokio::test]
async fn a_payload_that_is_damaged_is_not_even_asked_for() {
    let server = Server::playing(vec![Step::Stall]).await;
    let mut delivery = delivery(&server.url, &[noise(10)]);
    delivery.parts[0].payload = Box::new(std::io::Cursor::new(noise(9)));
    let platform = PresignedPlatform::new(Timeouts::default(), Reach::default());
    let failure = failure(platform.deliver(delivery).await);
    assert_eq!(failure.record.class, FailureClass::Damaged);
    assert!(!server.is_done());
}

#[tokio::test]
async fn a_url_that_ran_out_is_told_apart_and_leaves_no_trace() {
    let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message>\
                <Echo>X-Amz-Signature=canary-0123456789</Echo></Error>";
    let storage = Server::answering(http("403 Forbidden", &[], body)).await;
    let url = format!("{}/b/k?X-Amz-Signature=canary-0123456789", storage.url);
    let platform = Server::answering(ticket(&url, "{}")).await;
    let Verdict::Failed(failure) = deliver(&platform.url, &[noise(10)]).await else {
        panic!("delivered");
    };
    assert_eq!(failure.record.class, FailureClass::UrlExpired);
    assert_eq!(failure.route, Route::StoreHost);
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
}

#[tokio::test]
async fn an_api_with_a_path_of_its_own_keeps_it() {
    let payloads = vec![noise(10)];
    let server = Server::answering(stored(&payloads)).await;
    let mut delivery = delivery(&server.url, &payloads);
    let target = Arc::get_mut(&mut delivery.target).unwrap();
    target.api_url.push_str("/gateway/api");
    let platform = BinaryPlatform::new(Timeouts::default(), Reach::default());
    assert_eq!(platform.deliver(delivery).await.verdict, DELIVERED);
    let seen = server.seen().await;
    let line = "POST /gateway/api/api/v2/analytics/screenrecordings HTTP/1.1";
    assert_eq!(seen.head().lines().next(), Some(line));
    assert!(seen.body() == payloads[0]);
    let parts = seen.header("recording-parts").unwrap();
    assert!(parts.starts_with("7;bytes=10;digest=\"blake3:"), "{parts}");
}
