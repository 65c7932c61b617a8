//! Every way in which a payload can fail while it is sent.

use std::io;

use reqwest::header::HeaderMap;

use super::faults::{MIB, Tap, record, tapped};
use super::*;
use crate::model::Route;
use crate::platform::body::PayloadFault;
use crate::platform::classify::{Asked, Ending, Sent};
use crate::platform::exchange::{Reply, judge};
use crate::platform::receipt::Expected;
use FailureClass::*;

#[tokio::test]
async fn a_damaged_payload_is_never_completed_and_never_delivered() {
    let damaged = Some(io::ErrorKind::InvalidData);
    for bytes in [10, 3 * MIB] {
        let server = Server::playing(vec![Step::ReadToEnd]).await;
        let delivery = tapped(&server.url, bytes, Tap::of(bytes, damaged));
        let record = record(Timeouts::default(), delivery).await;
        assert_eq!((record.class, record.status), (Damaged, None));
        assert!(
            record
                .message
                .starts_with("the payload of sequence 7 is damaged")
        );
        let seen = server.seen().await;
        assert!(!seen.has_head() || seen.body().len() < seen.announced());
    }
}

#[test]
fn a_damaged_payload_is_damaged_even_if_the_server_says_stored() {
    let payloads = vec![noise(10)];
    let fault = || PayloadFault::Damaged {
        sequence: 7,
        source: io::ErrorKind::InvalidData.into(),
    };
    let reply = |status| Reply {
        sent: Sent::All,
        status,
        headers: HeaderMap::new(),
        body: receipt(&payloads, "stored").into_bytes(),
        ending: Ending::Whole,
    };
    let expected = Expected {
        session: "s1".parse().unwrap(),
        parts: vec![(7, Digest::of(&payloads[0]))],
    };
    let token = Token::new(SECRET.into(), Generation(3));
    let asked = Asked {
        route: Route::Deliver,
        receipt: ReceiptPolicy::Body,
        expected: &expected,
        sent: Sent::All,
        at: Timestamp(0),
        attempt: 1,
        token: &token,
        secret: token.expose(),
    };
    assert_eq!(judge(&asked, Ok(reply(200)), None).verdict, DELIVERED);
    for status in [200, 208, 401, 429] {
        let answer = judge(&asked, Ok(reply(status)), Some(fault()));
        assert_eq!(failure(answer).record.class, Damaged, "{status}");
    }
}

#[tokio::test]
async fn a_payload_of_another_length_is_damaged() {
    for held in [2 * MIB - 1, 2 * MIB + 1] {
        let server = Server::playing(vec![Step::ReadToEnd]).await;
        let delivery = tapped(&server.url, 2 * MIB, Tap::of(held, None));
        assert_eq!(record(Timeouts::default(), delivery).await.class, Damaged);
        let seen = server.seen().await;
        assert!(seen.body().len() < seen.announced());
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_transient_and_not_the_networks_fault() {
    let server = Server::playing(vec![Step::ReadToEnd]).await;
    let tap = Tap::of(MIB, Some(io::ErrorKind::HostUnreachable));
    let record = record(Timeouts::default(), tapped(&server.url, 2 * MIB, tap)).await;
    assert_eq!(record.class, Transient);
    assert!(
        record
            .message
            .starts_with("reading the payload of sequence 7"),
        "{}",
        record.message
    );
}
