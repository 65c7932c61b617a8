//! The json transport's request, up to its payload. The shape is normative in `docs/PROTOCOL.md`;
//! `payload` is the last member, so that everything before it can be built in one piece and the
//! rest streamed.

use std::time::Duration;

use serde::Serialize;

use super::key::{part_key, request_key};
use crate::model::{ChunkMeta, Gap, GapReason, Timestamp};

/// Closes the payload's string and the object.
pub const SUFFIX: &[u8] = b"\"}";

/// What a request says of its parts, and the key that the whole goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    pub json: Vec<u8>,
    pub idempotency_key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    host: &'a str,
    session: &'a str,
    sequence: u64,
    start_time: String,
    end_time: String,
    interval_seconds: u64,
    media_type: &'a str,
    last: bool,
    late: bool,
    gaps: Vec<WireGap>,
    parts: Vec<WirePart<'a>>,
}

#[derive(Serialize)]
struct WireGap {
    first: u64,
    last: u64,
    reason: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePart<'a> {
    sequence: u64,
    bytes: u64,
    digest: String,
    idempotency_key: &'a str,
    start_time: String,
    end_time: String,
}

/// Builds the request for contiguous chunks of one session, lowest sequence first.
///
/// # Panics
/// If `metas` is empty.
pub fn prefix(metas: &[&ChunkMeta], gaps: &[Gap], late: bool) -> Prefix {
    let mut prefix = description(metas, gaps, late);
    let brace = prefix.json.pop();
    debug_assert_eq!(brace, Some(b'}'));
    prefix.json.extend_from_slice(b",\"payload\":\"");
    prefix
}

/// The same without a payload: a whole object.
///
/// # Panics
/// If `metas` is empty.
pub fn description(metas: &[&ChunkMeta], gaps: &[Gap], late: bool) -> Prefix {
    let (Some(first), Some(last)) = (metas.first(), metas.last()) else {
        panic!("a request has at least one part");
    };
    debug_assert!(
        metas.windows(2).all(|pair| {
            pair[0].key.session == pair[1].key.session
                && pair[0].key.sequence.checked_add(1) == Some(pair[1].key.sequence)
        }),
        "parts are contiguous sequences of one session"
    );
    let keys: Vec<String> = metas.iter().map(|meta| part_key(meta)).collect();
    let request = Request {
        host: first.host.as_str(),
        session: first.key.session.as_str(),
        sequence: first.key.sequence,
        start_time: first.started_at.to_string(),
        end_time: ended_at(last).to_string(),
        interval_seconds: interval_seconds(metas),
        media_type: &first.media_type,
        last: last.last,
        late,
        gaps: gaps.iter().map(wire_gap).collect(),
        parts: metas.iter().zip(&keys).map(wire_part).collect(),
    };
    Prefix {
        json: serde_json::to_vec(&request).expect("strings, numbers and booleans serialise"),
        idempotency_key: request_key(&keys),
    }
}

/// The length of `bytes` payload bytes in padded base64.
pub fn encoded_length(bytes: u64) -> u64 {
    bytes.div_ceil(3).saturating_mul(4)
}

fn wire_part<'a>((meta, key): (&&ChunkMeta, &'a String)) -> WirePart<'a> {
    WirePart {
        sequence: meta.key.sequence,
        bytes: meta.bytes,
        digest: meta.digest.to_string(),
        idempotency_key: key,
        start_time: meta.started_at.to_string(),
        end_time: ended_at(meta).to_string(),
    }
}

fn wire_gap(gap: &Gap) -> WireGap {
    WireGap {
        first: gap.first,
        last: gap.last,
        reason: match gap.reason {
            GapReason::Missing => "missing",
            GapReason::Dead => "dead",
            GapReason::Purged => "purged",
        },
    }
}

fn ended_at(meta: &ChunkMeta) -> Timestamp {
    meta.started_at
        .saturating_add(Duration::from_millis(meta.duration_ms))
}

/// Recorders cut at key frames, so a chunk of "30 s" has 29.97: rounded, not cut.
fn interval_seconds(metas: &[&ChunkMeta]) -> u64 {
    let sum = metas
        .iter()
        .fold(0_u64, |sum, meta| sum.saturating_add(meta.duration_ms));
    (sum.saturating_add(500) / 1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChunkKey, Digest};

    fn meta(sequence: u64, duration_ms: u64) -> ChunkMeta {
        ChunkMeta {
            key: ChunkKey {
                tenant: "acme".parse().unwrap(),
                session: "s1".parse().unwrap(),
                sequence,
            },
            host: "rec-017".parse().unwrap(),
            started_at: Timestamp::parse("2026-03-01T10:00:00+01:00").unwrap(),
            duration_ms,
            media_type: "video/\"mp4\"".into(),
            last: sequence == 8,
            bytes: 65_536,
            digest: Digest([0xab; 32]),
        }
    }

    #[test]
    fn a_request_reads_as_the_protocol_says() {
        let (seven, eight) = (meta(7, 29_970), meta(8, 30_030));
        let gap = |first, last, reason| Gap {
            first,
            last,
            reason,
        };
        let gaps = [
            gap(1, 1, GapReason::Purged),
            gap(3, 4, GapReason::Dead),
            gap(5, 6, GapReason::Missing),
        ];
        let prefix = prefix(&[&seven, &eight], &gaps, true);
        let digest = format!("blake3:{}", "ab".repeat(32));
        let keys = [part_key(&seven), part_key(&eight)];
        let expected = [
            r#"{"host":"rec-017","session":"s1","sequence":7,"#,
            r#""startTime":"2026-03-01T09:00:00.000Z","endTime":"2026-03-01T09:00:30.030Z","#,
            r#""intervalSeconds":60,"mediaType":"video/\"mp4\"","last":true,"late":true,"#,
            r#""gaps":[{"first":1,"last":1,"reason":"purged"},{"first":3,"last":4,"reason":"dead"},"#,
            r#"{"first":5,"last":6,"reason":"missing"}],"#,
            &format!(
                r#""parts":[{{"sequence":7,"bytes":65536,"digest":"{digest}","idempotencyKey":"{}","#,
                keys[0]
            ),
            r#""startTime":"2026-03-01T09:00:00.000Z","endTime":"2026-03-01T09:00:29.970Z"},"#,
            &format!(
                r#"{{"sequence":8,"bytes":65536,"digest":"{digest}","idempotencyKey":"{}","#,
                keys[1]
            ),
            r#""startTime":"2026-03-01T09:00:00.000Z","endTime":"2026-03-01T09:00:30.030Z"}],"#,
            r#""payload":""#,
        ];
        assert_eq!(String::from_utf8(prefix.json).unwrap(), expected.concat());
        assert_eq!(prefix.idempotency_key, request_key(&keys));
    }

    #[test]
    fn an_interval_is_rounded_and_at_least_one_second() {
        for (duration_ms, seconds) in [(0, 1), (400, 1), (1499, 1), (1500, 2), (29_970, 30)] {
            assert_eq!(interval_seconds(&[&meta(7, duration_ms)]), seconds);
        }
        assert_eq!(
            interval_seconds(&[&meta(7, u64::MAX), &meta(8, 1)]),
            u64::MAX / 1000
        );
    }
}
