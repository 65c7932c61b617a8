//! Questions that read every owed row: rare, and asked with patience.

use std::collections::{BTreeSet, HashMap};

use super::packed::Owed;
use super::rows::{RowKey, decode, parse_key, tenant_prefix};
use super::{IndexFault, Tables};
use crate::model::{ChunkKey, SessionKey, TenantId, Timestamp};
use crate::store::layout::SegmentId;

/// What the index knows of a chunk at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// The keys and sizes of owed chunks at these places, as far as the index knows them.
    pub fn names_of(&self, places: &BTreeSet<(SegmentId, u32)>) -> Result<Vec<Named>, IndexFault> {
        let mut names = Vec::new();
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
                    names.push(Named {
                        segment: owed.segment,
                        ordinal: owed.ordinal,
                        key,
                        bytes: owed.bytes,
                    });
                }
            }
        }
        Ok(names)
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
