//! The messages as docs/PROTOCOL.md writes them.

use super::super::wire::{self, Heard, Interval, Said, Secret};
use super::*;
use crate::model::{Gap, GapReason};
use crate::platform::key::part_key;

#[test]
fn a_chunk_message_is_the_json_request_without_its_payload() {
    let seven = meta("s1", 7, 10);
    let gaps = [Gap {
        first: 5,
        last: 6,
        reason: GapReason::Missing,
    }];
    let text = wire::chunk(3, std::slice::from_ref(&seven), &gaps, false);
    let message: Value = serde_json::from_str(&text).unwrap();
    let key = part_key(&seven);
    let digest = seven.digest.to_string();
    let (start, end) = ("2026-03-01T09:03:30.000Z", "2026-03-01T09:04:00.000Z");
    let part = json!({"sequence": 7, "bytes": 10, "digest": digest, "idempotencyKey": key,
        "startTime": start, "endTime": end});
    let expected = json!({"type": "chunk", "channel": 3, "idempotencyKey": key, "host": "rec-017",
        "session": "s1", "sequence": 7, "startTime": start, "endTime": end, "intervalSeconds": 30,
        "mediaType": "video/mp4", "last": false, "late": false,
        "gaps": [{"first": 5, "last": 6, "reason": "missing"}], "parts": [part]});
    assert_eq!(message, expected);
}

#[test]
fn the_other_messages_read_as_the_protocol_says() {
    let metas: Vec<ChunkMeta> = (7..=8).map(|sequence| meta("s1", sequence, 10)).collect();
    assert_eq!(
        wire::open(1, &metas),
        r#"{"type":"open","channel":1,"host":"rec-017","session":"s1","first":7,"last":8}"#
    );
    assert_eq!(wire::close(1), r#"{"type":"close","channel":1}"#);
    let secret = Secret(Token::new("canary\"\n".into(), Generation(1)));
    assert_eq!(
        secret.message(),
        r#"{"type":"reauth","token":"canary\"\n"}"#
    );
    assert!(!format!("{:?}", Frame::Reauth(secret)).contains("canary"));
}

#[test]
fn a_group_of_64_fits_a_message_with_room() {
    let metas: Vec<ChunkMeta> = (0..64).map(|sequence| meta("s1", sequence, 10)).collect();
    assert!(wire::chunk(1, &metas, &[], false).len() < 64 * 1024);
}

#[test]
fn opened_tells_intervals_and_digests() {
    let text = r#"{"type": "opened", "channel": 1, "session": "s1", "persisted": [{"first": 0, "last": 7}],
        "digests": [{"sequence": 7, "digest": "blake3:00"}], "more": true}"#;
    let Ok(Heard::Opened {
        channel,
        persisted,
        digests,
        ..
    }) = wire::read(text)
    else {
        panic!("it is read");
    };
    assert_eq!(channel, 1);
    assert_eq!(persisted, [Interval { first: 0, last: 7 }]);
    assert_eq!(
        (digests[0].sequence, digests[0].digest.as_str()),
        (7, "blake3:00")
    );
}

#[test]
fn a_wait_is_a_number_or_a_duration_and_never_too_short() {
    let wait = |retry_after: Value| {
        let text = json!({"type": "throttle", "retryAfter": retry_after}).to_string();
        match wire::read(&text) {
            Ok(Heard::Throttle(said)) => said.wait(),
            other => panic!("{other:?}"),
        }
    };
    for (told, seconds) in [
        (json!(3), Some(3)),
        (json!(2.2), Some(3)),
        (json!(0), Some(0)),
        (json!("PT3S"), Some(3)),
        (json!("PT0.5S"), Some(1)),
        (json!("PT1M30.5S"), Some(91)),
        (json!("PT2H"), Some(7200)),
        // No longer than a header could say, and no panic.
        (json!(1.8e19), Some(86_400)),
        (
            json!("PT18446744073709549568S18446744073709549568S"),
            Some(86_400),
        ),
        (json!(-1), None),
        (json!("PT"), None),
        (json!("PT3"), None),
        (json!("3S"), None),
        (json!("P1D"), None),
        (json!("PT1e9999S"), None),
        (json!(1e300), None),
        (json!([3]), None),
        (Value::Null, None),
    ] {
        assert_eq!(
            wait(told.clone()),
            seconds.map(Duration::from_secs),
            "{told}"
        );
    }
}

#[test]
fn limits_stand_where_the_http_ones_stand() {
    let text = r#"{"type": "ack", "channel": 1, "limits": {"allowed": 300, "remaining": 12, "reset": 40}}"#;
    let Ok(Heard::Ack { said, .. }) = wire::read(text) else {
        panic!("it is read");
    };
    let header = |name: &str| said.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-ratelimit-limit"), "300");
    assert_eq!(header("x-ratelimit-remaining"), "12");
    assert_eq!(header("x-ratelimit-reset"), "40");
}

#[test]
fn a_close_speaks_of_credentials_rights_and_limits_or_of_nothing() {
    for (code, status) in [
        (3000, Some(401)),
        (4401, Some(401)),
        (3003, Some(403)),
        (4403, Some(403)),
        (4429, Some(429)),
        (1000, None),
        (1001, None),
        (1006, None),
        (1008, None),
        (1011, None),
        (4422, None),
    ] {
        for reason in ["", "go away", "{}", "{", r#"{"code": "x"}"#] {
            let said = wire::closed(code, reason);
            assert_eq!(said.map(|said| said.status), status, "{code} {reason}");
        }
    }
    let said = wire::closed(
        4429,
        r#"{"retryAfter": "PT5S", "code": "too.many.requests"}"#,
    );
    assert_eq!(said.as_ref().and_then(Said::wait), Some(5 * SECOND));
}
