//! The decoders of what a token endpoint says, and of what a token says of itself.

use super::answer::{self, RawAnswer};
use super::claims::Claims;
use super::grant::Proof;
use crate::model::Timestamp;

/// A decoder, and what it is called.
type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 2] = [("token_answer", token_answer), ("claims", claims)];

const SENT: &str = "canary-secret-that-was-sent";

/// Status; `Retry-After` up to a line feed; body.
fn token_answer(bytes: &[u8]) {
    let (control, rest) = bytes.split_at(bytes.len().min(2));
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let retry_after = String::from_utf8_lossy(&rest[..at]).into_owned();
    let status = control.first().copied().map_or(200, u16::from);
    let answer = RawAnswer {
        status: 100 + status * 2,
        content_type: Some("application/json".to_owned()),
        retry_after: Some(retry_after),
        date: None,
        correlation_id: None,
        arrived: Timestamp(1_772_359_200_000),
        body: rest[at..].to_vec(),
        cut: control.get(1).is_some_and(|byte| byte % 8 == 7),
    };
    let read = answer::read(&answer, &[SENT], Proof::default());
    if let Err(failure) = read {
        assert!(!format!("{failure:?}").contains(SENT));
    }
}

fn claims(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let beside = serde_json::from_slice(bytes).unwrap_or_default();
    for token in [text.as_ref(), &as_token(bytes)] {
        let read = Claims::of(token, &beside);
        assert!(read.purviews.len() <= 256);
        read.excludes("org");
        read.shown();
    }
}

/// The bytes as the middle of a JWT.
fn as_token(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let middle = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    format!("e30.{middle}.x")
}
