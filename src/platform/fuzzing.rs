//! The decoders of what a platform says.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::checksum::Checksums;
use super::classify::{Asked, Ending, Heard, Sent, answer, stored};
use super::receipt::{self, Expected, Receipt};
use super::{ReceiptPolicy, Verdict, limits, websocket};
use crate::model::{Digest, Generation, Route, Timestamp, Token};

/// A decoder, and what it is called.
type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 4] = [
    ("limits", limit_headers),
    ("classify", classified),
    ("receipt", receipts),
    ("websocket", messages),
];

const SECRET: &str = "canary-secret-of-the-request";

/// Lines `name: value` up to an empty one; then what follows.
fn headers(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        rest = behind;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

fn limit_headers(bytes: &[u8]) {
    let (headers, _) = headers(bytes);
    let wait = limits::retry_after(&headers);
    assert!(wait.is_none_or(|wait| wait <= limits::LONGEST), "{wait:?}");
    let told = limits::limits(&headers);
    assert!(
        told.reset_in.is_none_or(|span| span <= limits::LONGEST),
        "{told:?}"
    );
}

fn expected() -> Expected {
    Expected {
        session: "s1".parse().expect("a valid name"),
        parts: vec![(7, Digest::of(b"seven")), (8, Digest::of(b"eight"))],
    }
}

/// Status, route and how it ended; headers; body. Whatever is said, no secret of ours is kept of it.
fn classified(bytes: &[u8]) {
    let [control @ .., _] = bytes.first_chunk::<6>().copied().unwrap_or_default();
    let (headers, body) = headers(bytes.get(6..).unwrap_or_default());
    let pick = |at: usize, count: u8| control[at] % count;
    let expected = expected();
    let token = Token::new(SECRET.to_owned(), Generation::default());
    let asked = Asked {
        route: [Route::Deliver, Route::Fetch, Route::StoreHost][usize::from(pick(0, 3))],
        receipt: [ReceiptPolicy::Body, ReceiptPolicy::Status][usize::from(pick(1, 2))],
        expected: &expected,
        sent: [Sent::Nothing, Sent::Part, Sent::All][usize::from(pick(2, 3))],
        at: Timestamp(0),
        attempt: 1,
        token: &token,
        secret: SECRET,
    };
    let heard = Heard {
        status: 100 + u16::from(control[3]) * 2 + u16::from(control[4] & 1),
        headers: &headers,
        body,
        ending: [Ending::Whole, Ending::Cut, Ending::Torn][usize::from(pick(4, 3))],
    };
    let sums = Checksums {
        md5: [7; 16],
        sha256: vec![7; 32],
    };
    for verdict in [
        answer(&asked, &heard).verdict,
        stored(&asked, &heard, &sums),
    ] {
        if let Verdict::Failed(failure) = verdict {
            let kept = serde_json::to_string(&failure.record).expect("plain data is JSON");
            assert!(!kept.contains(SECRET), "{kept}");
            assert!(kept.len() < 64 << 10, "{}", kept.len());
        }
    }
}

fn receipts(body: &[u8]) {
    let expected = expected();
    if let Receipt::Complete { duplicates } = receipt::read(body, &expected) {
        assert!(duplicates <= expected.parts.len());
    }
    receipt::recording(body);
}

fn messages(bytes: &[u8]) {
    websocket::fuzz(&String::from_utf8_lossy(bytes));
}
