//! What the index remembers beyond the queue: which chunks a person removed; where each dead letter stands, so that one which
//! is lost with its segment is not taken for delivered; when a tenant's last chunk went out. None of it decides a lease.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{parse_key, seal, sequence_key, session_prefix, tenant_prefix, unseal};
use super::{IndexFault, Tables};
use crate::model::{ChunkKey, SessionKey, TenantId, Timestamp};
use crate::store::layout::SegmentId;

impl Tables {
    pub fn is_purged(&self, key: &ChunkKey) -> Result<bool, IndexFault> {
        Ok(self
            .purged
            .contains_key(sequence_key(&key.session_key(), key.sequence))?)
    }

    /// How many chunks of a session a person removed.
    pub fn purged_of(&self, session: &SessionKey) -> Result<u64, IndexFault> {
        let mut count = 0;
        for row in self.purged.scan_prefix(session_prefix(session)).keys() {
            row?;
            count += 1;
        }
        Ok(count)
    }

    pub(super) fn set_purged(&self, row: &[u8], purged: bool) -> Result<(), IndexFault> {
        match purged {
            true => self.purged.insert(row, &[])?,
            false if self.purged.is_empty() => None,
            false => self.purged.remove(row)?,
        };
        Ok(())
    }

    /// A chunk is a dead letter in this segment; `None`: it is none any more.
    pub(super) fn set_dead(
        &self,
        key: &ChunkKey,
        segment: Option<SegmentId>,
    ) -> Result<(), IndexFault> {
        let row = sequence_key(&key.session_key(), key.sequence);
        match segment {
            Some(SegmentId(id)) => self.dead.insert(row, seal(id.to_le_bytes().to_vec()))?,
            None => self.dead.remove(row)?,
        };
        Ok(())
    }

    /// Dead letters in these segments.
    pub fn dead_in(
        &self,
        segments: &BTreeSet<SegmentId>,
    ) -> Result<Vec<(ChunkKey, SegmentId)>, IndexFault> {
        let mut letters = self.dead_letters()?;
        letters.retain(|_, segment| segments.contains(segment));
        Ok(letters.into_iter().collect())
    }

    /// These are the dead letters that there are. What is written already is not written again.
    pub fn keep_dead(&self, letters: &BTreeMap<ChunkKey, SegmentId>) -> Result<(), IndexFault> {
        let before = self.dead_letters()?;
        for key in before.keys().filter(|key| !letters.contains_key(key)) {
            self.set_dead(key, None)?;
        }
        for (key, segment) in letters {
            if before.get(key) != Some(segment) {
                self.set_dead(key, Some(*segment))?;
            }
        }
        Ok(())
    }

    fn dead_letters(&self) -> Result<BTreeMap<ChunkKey, SegmentId>, IndexFault> {
        let mut letters = BTreeMap::new();
        for item in self.dead.iter() {
            let (row, value) = item?;
            let id = unseal(&value).and_then(|body| Some(u32::from_le_bytes(*body.first_chunk()?)));
            let (Some((SessionKey { tenant, session }, sequence, _)), Some(id)) =
                (parse_key(&row), id)
            else {
                return Err(IndexFault::disagrees(
                    "a dead letter does not read back",
                    &row,
                ));
            };
            let key = ChunkKey {
                tenant,
                session,
                sequence,
            };
            letters.insert(key, SegmentId(id));
        }
        Ok(letters)
    }

    pub(super) fn note_delivery(
        &self,
        tenant: &TenantId,
        Timestamp(at): Timestamp,
    ) -> Result<(), IndexFault> {
        let value = seal(at.to_le_bytes().to_vec());
        self.delivered.insert(tenant_prefix(tenant), value)?;
        Ok(())
    }

    /// When a chunk of this tenant was delivered last, if that is remembered.
    pub fn last_delivery(&self, tenant: &TenantId) -> Result<Option<Timestamp>, IndexFault> {
        let value = self.delivered.get(tenant_prefix(tenant))?;
        let at = value.as_deref().and_then(unseal);
        Ok(at.and_then(|at| Some(Timestamp(i64::from_le_bytes(*at.first_chunk()?)))))
    }
}
