//! The ledger's first encoding: it decodes for ever and is never written again.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Closed;
use crate::model::{HostName, SessionKey, Timestamp};
use crate::store::intervals::Intervals;
use crate::store::layout::SegmentId;
use crate::store::tally::Tallies;

pub const VERSION: u8 = 1;

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct SessionLine {
    key: SessionKey,
    accepted: Intervals,
    delivered_high: Option<u64>,
    changed_at: Timestamp,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Ledger {
    edition: u64,
    host: Option<HostName>,
    retired: Intervals,
    totals: Tallies,
    resumable: Option<SegmentId>,
    closed: BTreeMap<SegmentId, Closed>,
    next_number: u64,
    next_segment: SegmentId,
    lost: u64,
    sessions: Vec<SessionLine>,
}

impl From<Ledger> for super::Ledger {
    /// Nobody had counted running time: every session is remembered for its whole time from now on.
    fn from(old: Ledger) -> Self {
        let lines = old.sessions.into_iter().map(|line| super::SessionLine {
            key: line.key,
            accepted: line.accepted,
            delivered_high: line.delivered_high,
            changed_at: line.changed_at,
            quiet_from_ms: 0,
            ended_at: None,
            promoted: false,
        });
        Self {
            edition: old.edition,
            host: old.host,
            retired: old.retired,
            totals: old.totals,
            resumable: old.resumable,
            closed: old.closed,
            next_number: old.next_number,
            next_segment: old.next_segment,
            lost: old.lost,
            sessions: lines.collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::store::record;

    fn old() -> Ledger {
        let mut accepted = Intervals::default();
        accepted.insert(3);
        Ledger {
            edition: 9,
            host: Some("rec-017".parse().unwrap()),
            retired: Intervals::default(),
            totals: Tallies::default(),
            resumable: Some(SegmentId(4)),
            closed: BTreeMap::from([(SegmentId(4), Closed { chunks: 2, end: 8 })]),
            next_number: 99,
            next_segment: SegmentId(5),
            lost: 0,
            sessions: vec![SessionLine {
                key: SessionKey {
                    tenant: "acme".parse().unwrap(),
                    session: "s1".parse().unwrap(),
                },
                accepted,
                delivered_high: Some(3),
                changed_at: Timestamp(5),
            }],
        }
    }

    /// These bytes decode for ever.
    #[test]
    fn a_ledger_of_version_1_is_read_and_becomes_one_of_today() {
        let body = record::encode(VERSION, &old(), 1 << 20);
        let digest = crate::model::Digest::of(&body).to_string();
        assert_eq!(
            digest,
            "blake3:a88a9d3c6aebf3c3b373062558aa24a40a0538b42e96c2a9adc53e6d781714eb"
        );
        let mut bytes = super::super::MAGIC.to_vec();
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ledger.a"), bytes).unwrap();
        let found = super::super::Ledger::read(&RealDisk, dir.path()).unwrap();
        assert!(found.damaged.is_empty());
        let expected = super::super::Ledger::from(old());
        assert_eq!(found.ledger, expected);
        let line = &found.ledger.sessions[0];
        assert_eq!((line.delivered_high, line.ended_at), (Some(3), None));
    }
}
