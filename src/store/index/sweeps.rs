//! Questions that read every owed row: rare, and asked with patience.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::packed::Owed;
use super::rows::{RowKey, decode, parse_key, seal, tenant_prefix, unseal};
use super::{IndexFault, Tables};
use crate::model::{ChunkKey, SessionKey, TenantId, Timestamp};
use crate::store::layout::SegmentId;
use crate::store::record;

const VERSION: u8 = 1;

/// What the index knows of a chunk at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub segment: SegmentId,
    pub ordinal: u32,
    pub key: ChunkKey,
    pub bytes: u64,
}

/// Rows of up to 32 chunks: some milliseconds.
const AGES_AT_ONCE: usize = 128;

/// One part of the answer to how old a backlog is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    /// The oldest and the newest.
    pub span: Option<(Timestamp, Timestamp)>,
    pub next: Option<RowKey>,
}

impl Ages {
    pub fn add(&mut self, (oldest, newest): (Timestamp, Timestamp)) {
        let (low, high) = self.span.unwrap_or((oldest, newest));
        self.span = Some((low.min(oldest), high.max(newest)));
    }
}

fn name_row(segment: SegmentId, ordinal: u32) -> [u8; 8] {
    let mut row = [0; 8];
    row[..4].copy_from_slice(&segment.0.to_be_bytes());
    row[4..].copy_from_slice(&ordinal.to_be_bytes());
    row
}

impl Tables {
    /// Owed chunks of a tenant with an enqueue number at most `number`, and those below them in their sessions.
    pub fn owed_through(&self, tenant: &TenantId, number: u64) -> Result<u64, IndexFault> {
        let mut fences: HashMap<SessionKey, Vec<(u64, bool)>> = Default::default();
        self.each_owed(tenant, |session, owed| {
            fences
                .entry(session.clone())
                .or_default()
                .push((owed.sequence, owed.number <= number));
        })?;
        let enclosed = fences.into_values().map(|chunks| {
            let highest = chunks
                .iter()
                .filter(|(_, inside)| *inside)
                .map(|(s, _)| *s)
                .max();
            chunks
                .iter()
                .filter(|(sequence, _)| Some(*sequence) <= highest)
                .count() as u64
        });
        Ok(enclosed.sum())
    }

    /// The keys and sizes of owed chunks at these places, as far as the index knows them. They stay known through a
    /// rebuild, and are durable when this returns.
    pub fn keep_names_of(
        &self,
        places: &BTreeSet<(SegmentId, u32)>,
    ) -> Result<Vec<Named>, IndexFault> {
        let mut names = Vec::new();
        for &(segment, ordinal) in places {
            let row = name_row(segment, ordinal);
            if let Some(value) = self.names.get(row)? {
                let named = unseal(&value)
                    .and_then(|body| record::decode(VERSION, body, record::RECORD_MAX).ok());
                names.extend::<Option<Named>>(named);
            }
        }
        for item in self.owed.tree().iter() {
            let (key, value) = item?;
            let Some((session, _, _)) = parse_key(&key) else {
                continue;
            };
            for owed in decode::<Owed>(&key, &value)? {
                if places.contains(&(owed.segment, owed.ordinal)) {
                    let SessionKey { tenant, session } = session.clone();
                    let key = ChunkKey {
                        tenant,
                        session,
                        sequence: owed.sequence,
                    };
                    let named = Named {
                        segment: owed.segment,
                        ordinal: owed.ordinal,
                        key,
                        bytes: owed.bytes,
                    };
                    let value = seal(record::encode(VERSION, &named, record::RECORD_MAX));
                    self.names
                        .insert(name_row(owed.segment, owed.ordinal), value)?;
                    names.push(named);
                }
            }
        }
        self.sync()?;
        Ok(names)
    }

    /// Those in segments that are not there any more.
    pub fn forget_names(&self, present: &BTreeSet<SegmentId>) -> Result<(), IndexFault> {
        for row in self.names.iter().keys() {
            let row = row?;
            let segment = row.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
            if !segment.is_some_and(|id| present.contains(&SegmentId(id))) {
                self.names.remove(row)?;
            }
        }
        Ok(())
    }

    /// Owed chunks in these segments.
    pub fn owed_in(
        &self,
        segments: &BTreeSet<SegmentId>,
    ) -> Result<Vec<(ChunkKey, SegmentId)>, IndexFault> {
        let mut chunks = Vec::new();
        for item in self.owed.tree().iter() {
            let (key, value) = item?;
            let Some((SessionKey { tenant, session }, _, _)) = parse_key(&key) else {
                continue;
            };
            let owed = decode::<Owed>(&key, &value)?;
            for owed in owed.iter().filter(|it| segments.contains(&it.segment)) {
                let (tenant, session, sequence) = (tenant.clone(), session.clone(), owed.sequence);
                let key = ChunkKey {
                    tenant,
                    session,
                    sequence,
                };
                chunks.push((key, owed.segment));
            }
        }
        Ok(chunks)
    }

    /// Owed chunks of all tenants.
    pub fn owed_count(&self) -> Result<u64, IndexFault> {
        let mut count = 0;
        for item in self.owed.tree().iter() {
            let (key, value) = item?;
            count += decode::<Owed>(&key, &value)?.len() as u64;
        }
        Ok(count)
    }

    /// Acceptance times of the oldest and the newest owed chunk of a tenant, in the rows from `from` on: so many of them
    /// at once that others need not wait. Where the next part begins; `None` after the last.
    pub fn ages(&self, tenant: &TenantId, from: &RowKey) -> Result<Ages, IndexFault> {
        let prefix = tenant_prefix(tenant);
        let from = from.max(&prefix);
        let mut ages = Ages::default();
        let rows = self.owed.tree().range(from.as_slice()..);
        for (row, item) in rows.enumerate() {
            let (key, value) = item?;
            if !key.starts_with(&prefix) {
                break;
            }
            if row == AGES_AT_ONCE {
                ages.next = Some(key.to_vec());
                break;
            }
            for owed in decode::<Owed>(&key, &value)? {
                ages.add((owed.accepted_at, owed.accepted_at));
            }
        }
        Ok(ages)
    }

    fn each_owed(
        &self,
        tenant: &TenantId,
        mut visit: impl FnMut(&SessionKey, &Owed),
    ) -> Result<(), IndexFault> {
        for item in self.owed.tree().scan_prefix(tenant_prefix(tenant)) {
            let (key, value) = item?;
            let (session, _, _) = parse_key(&key)
                .ok_or_else(|| IndexFault::disagrees("a key does not read back", &key))?;
            for owed in decode::<Owed>(&key, &value)? {
                visit(&session, &owed);
            }
        }
        Ok(())
    }
}
