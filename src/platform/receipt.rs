//! Receipts: the only thing that counts as delivered. A status code says that somebody answered; a
//! receipt says that the platform has these very chunks.

use serde::Deserialize;

use crate::model::{ChunkMeta, Digest, SessionId};

/// The chunks that a receipt must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub session: SessionId,
    /// Sequence and digest of each part, lowest first.
    pub parts: Vec<(u64, Digest)>,
}

impl Expected {
    /// # Panics
    /// If `metas` is empty.
    pub fn of(metas: &[&ChunkMeta]) -> Self {
        Self {
            session: metas[0].key.session.clone(),
            parts: metas.iter().map(|m| (m.key.sequence, m.digest)).collect(),
        }
    }
}

/// What a body says of the expected chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// Every one is stored; `duplicates` of them were before.
    Complete { duplicates: usize },
    /// Other bytes are stored under this sequence.
    OtherDigest { sequence: u64 },
    /// It is a receipt, and this sequence is not in it.
    Lacks { sequence: u64 },
    /// It is a receipt for another session.
    OtherSession,
    /// It is no receipt.
    Absent,
}

#[derive(Deserialize)]
struct Wire {
    session: String,
    parts: Vec<WirePart>,
}

#[derive(Deserialize)]
struct WirePart {
    sequence: u64,
    digest: String,
    status: Option<String>,
}

pub fn read(body: &[u8], expected: &Expected) -> Receipt {
    let Ok(wire) = serde_json::from_slice::<Wire>(body) else {
        return Receipt::Absent;
    };
    if wire.session != expected.session.as_str() {
        return Receipt::OtherSession;
    }
    let mut duplicates = 0;
    for (sequence, digest) in &expected.parts {
        let named = || wire.parts.iter().filter(|part| part.sequence == *sequence);
        if named().any(|part| part.digest.parse() != Ok(*digest)) {
            return Receipt::OtherDigest {
                sequence: *sequence,
            };
        }
        match named().next().and_then(|part| part.status.as_deref()) {
            Some("stored") => {}
            Some("duplicate") => duplicates += 1,
            Some(_) | None => {
                return Receipt::Lacks {
                    sequence: *sequence,
                };
            }
        }
    }
    Receipt::Complete { duplicates }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            session: "s1".parse().unwrap(),
            parts: vec![(7, Digest::of(b"seven")), (8, Digest::of(b"eight"))],
        }
    }

    fn entry(sequence: u64, payload: &[u8], status: &str) -> String {
        let digest = Digest::of(payload);
        format!(r#"{{"sequence":{sequence},"digest":"{digest}","status":"{status}"}}"#)
    }

    fn body(session: &str, entries: &[String]) -> String {
        format!(
            r#"{{"session":"{session}","parts":[{}]}}"#,
            entries.join(",")
        )
    }

    #[test]
    fn a_receipt_names_every_part_by_session_sequence_and_digest() {
        let stored = [entry(7, b"seven", "stored"), entry(8, b"eight", "stored")];
        let mixed = [
            entry(8, b"eight", "duplicate"),
            entry(7, b"seven", "stored"),
        ];
        let unknown = [entry(7, b"seven", "stored"), entry(8, b"eight", "queued")];
        let other = [entry(7, b"seven", "stored"), entry(8, b"other", "stored")];
        let twice = [
            entry(7, b"seven", "stored"),
            entry(7, b"other", "stored"),
            entry(8, b"eight", "stored"),
        ];
        for (body, receipt) in [
            (body("s1", &stored), Receipt::Complete { duplicates: 0 }),
            (body("s1", &mixed), Receipt::Complete { duplicates: 1 }),
            (body("s2", &stored), Receipt::OtherSession),
            (body("s1", &stored[..1]), Receipt::Lacks { sequence: 8 }),
            (body("s1", &unknown), Receipt::Lacks { sequence: 8 }),
            (body("s1", &other), Receipt::OtherDigest { sequence: 8 }),
            (body("s1", &twice), Receipt::OtherDigest { sequence: 7 }),
            (body("s1", &[]), Receipt::Lacks { sequence: 7 }),
            (r#"{"id":"x"}"#.into(), Receipt::Absent),
            ("<html>welcome</html>".into(), Receipt::Absent),
            ("".into(), Receipt::Absent),
        ] {
            assert_eq!(read(body.as_bytes(), &expected()), receipt, "{body}");
        }
    }

    #[test]
    fn a_part_without_a_status_is_not_stored() {
        let digest = Digest::of(b"seven");
        let body = format!(r#"{{"session":"s1","parts":[{{"sequence":7,"digest":"{digest}"}}]}}"#);
        assert_eq!(
            read(body.as_bytes(), &expected()),
            Receipt::Lacks { sequence: 7 }
        );
    }
}
