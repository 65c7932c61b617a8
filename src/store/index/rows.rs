//! Packed rows: one for at most 32 chunks of a session instead of one a chunk, because a million rows cost sled seconds at
//! open and a thousandth of them do not.
//!
//! Key: tenant 0 session 0 first sequence (u64, big-endian). Rows of a session stand by their first sequence, which stays
//! in the key when its chunk leaves. Value: version, entries, CRC-32.

use std::collections::{BTreeMap, HashMap};

use sled::IVec;

use super::IndexFault;
use super::packed::Entry;
use crate::model::{SessionId, SessionKey, TenantId};

const VERSION: u8 = 2;
const ROW_MAX: usize = 32;
/// Tails remembered so that a busy session's next chunk needs no lookup.
const TAILS_MAX: usize = 4096;

pub type RowKey = Vec<u8>;

pub fn session_prefix(session: &SessionKey) -> RowKey {
    let mut key = tenant_prefix(&session.tenant);
    key.extend_from_slice(session.session.as_str().as_bytes());
    key.push(0);
    key
}

pub fn tenant_prefix(tenant: &TenantId) -> RowKey {
    let mut key = tenant.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

/// The session's key followed by one sequence: the form of the small trees.
pub fn sequence_key(session: &SessionKey, sequence: u64) -> RowKey {
    let mut key = session_prefix(session);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Takes a row key, or a sequence key, apart.
pub fn parse_key(key: &[u8]) -> Option<(SessionKey, u64, &[u8])> {
    let (tenant, rest) = split_at_zero(key)?;
    let (session, rest) = split_at_zero(rest)?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let tenant: TenantId = std::str::from_utf8(tenant).ok()?.parse().ok()?;
    let session: SessionId = std::str::from_utf8(session).ok()?.parse().ok()?;
    Some((
        SessionKey { tenant, session },
        u64::from_be_bytes(*first),
        rest,
    ))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The sequence that a row's key begins with.
fn first_of(key: &[u8]) -> Result<u64, IndexFault> {
    let (_, first) = key
        .split_last_chunk::<8>()
        .ok_or_else(|| IndexFault::disagrees("a key does not read back", key))?;
    Ok(u64::from_be_bytes(*first))
}

fn encode<E: Entry>(entries: &[E]) -> Vec<u8> {
    let mut body = vec![VERSION];
    let mut before = None;
    for entry in entries {
        entry.pack(before, &mut body);
        before = Some(entry);
    }
    seal(body)
}

pub fn decode<E: Entry>(key: &[u8], value: &[u8]) -> Result<Vec<E>, IndexFault> {
    unseal(value)
        .and_then(unpack_all)
        .ok_or_else(|| IndexFault::disagrees("a row does not read back", key))
}

fn decode_first<E: Entry>(key: &[u8], value: &[u8]) -> Result<Option<E>, IndexFault> {
    let body = unseal(value).and_then(|body| body.strip_prefix(&[VERSION]));
    let first = match body {
        Some([]) => Some(None),
        Some(mut body) => E::unpack(None, &mut body).map(Some),
        None => None,
    };
    first.ok_or_else(|| IndexFault::disagrees("a row does not read back", key))
}

fn unpack_all<E: Entry>(body: &[u8]) -> Option<Vec<E>> {
    let mut rest = body.strip_prefix(&[VERSION])?;
    let mut entries: Vec<E> = Vec::with_capacity(ROW_MAX);
    while !rest.is_empty() {
        let entry = E::unpack(entries.last(), &mut rest)?;
        entries.push(entry);
    }
    Some(entries)
}

/// Appends a CRC-32.
pub fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

pub fn unseal(value: &[u8]) -> Option<&[u8]> {
    let (body, crc) = value.split_last_chunk::<4>()?;
    (crc32fast::hash(body).to_le_bytes() == *crc).then_some(body)
}

/// One tree of packed rows, with the changes of the batch under way.
pub struct Rows<E> {
    tree: sled::Tree,
    pending: HashMap<RowKey, Vec<E>>,
    tails: HashMap<SessionKey, RowKey>,
}

impl<E: Entry> Rows<E> {
    pub fn new(tree: sled::Tree) -> Self {
        Self {
            tree,
            pending: HashMap::new(),
            tails: HashMap::new(),
        }
    }

    pub fn tree(&self) -> &sled::Tree {
        debug_assert!(self.pending.is_empty(), "readers come after the batch");
        &self.tree
    }

    fn load(&mut self, key: &RowKey) -> Result<&mut Vec<E>, IndexFault> {
        if !self.pending.contains_key(key) {
            let entries = match self.tree.get(key)? {
                Some(value) => decode(key, &value)?,
                None => Vec::new(),
            };
            self.pending.insert(key.clone(), entries);
        }
        Ok(self.pending.get_mut(key).expect("inserted above"))
    }

    /// Adds an entry behind the session's last one, or in a row of its own.
    pub fn append(&mut self, session: &SessionKey, entry: E) -> Result<(), IndexFault> {
        let sequence = entry.sequence();
        if let Some(tail) = self.tail(session)? {
            let row = self.load(&tail)?;
            let behind = row.last().is_some_and(|last| last.sequence() < sequence);
            if behind && row.len() < ROW_MAX {
                row.push(entry);
                return Ok(());
            }
        }
        let key = sequence_key(session, sequence);
        let row = self.load(&key)?;
        let at = row.partition_point(|other| other.sequence() < sequence);
        if row
            .get(at)
            .is_some_and(|other| other.sequence() == sequence)
        {
            row[at] = entry;
        } else {
            row.insert(at, entry);
        }
        self.tails.insert(session.clone(), key);
        Ok(())
    }

    /// The session's row that was appended to last, or its last one.
    fn tail(&mut self, session: &SessionKey) -> Result<Option<RowKey>, IndexFault> {
        if let Some(tail) = self.tails.get(session) {
            return Ok(Some(tail.clone()));
        }
        let mut rows = self.tree.scan_prefix(session_prefix(session));
        let Some(last) = rows.next_back() else {
            return Ok(None);
        };
        let key = last?.0.to_vec();
        self.tails.insert(session.clone(), key.clone());
        Ok(Some(key))
    }

    /// Puts another entry in the place of the one with its sequence.
    pub fn replace(&mut self, key: &RowKey, entry: E) -> Result<(), IndexFault> {
        let row = self.load(key)?;
        if let Some(place) = row.iter_mut().find(|it| it.sequence() == entry.sequence()) {
            *place = entry;
        }
        Ok(())
    }

    /// Adds entries of a session in one go; of two with one sequence the new one stays. What does not read back is written
    /// over: this is how an index is made anew.
    pub fn merge(&mut self, session: &SessionKey, entries: Vec<E>) -> Result<(), IndexFault> {
        let (rows, known) = self.rows_of(session)?;
        let mut changed = known.is_none();
        let known = known.unwrap_or_default().into_iter();
        let mut all: BTreeMap<u64, E> = known.map(|entry| (entry.sequence(), entry)).collect();
        for entry in entries {
            let same = all.get(&entry.sequence()) == Some(&entry);
            changed |= !same;
            all.insert(entry.sequence(), entry);
        }
        if !changed {
            return Ok(());
        }
        self.remove_rows(rows)?;
        self.write(session, &Vec::from_iter(all.into_values()))
    }

    /// Makes a session's rows hold exactly these entries, which are in the order of their sequences. Rows that do are not
    /// written again.
    pub fn set(&mut self, session: &SessionKey, entries: &[E]) -> Result<(), IndexFault> {
        let (rows, known) = self.rows_of(session)?;
        if known.as_deref() == Some(entries) {
            return Ok(());
        }
        self.remove_rows(rows)?;
        self.write(session, entries)
    }

    /// The keys of a session's rows, and their entries one after another, if all read back.
    fn rows_of(&self, session: &SessionKey) -> Result<(Vec<IVec>, Option<Vec<E>>), IndexFault> {
        let mut rows = Vec::new();
        let mut entries = Some(Vec::new());
        for item in self.tree().scan_prefix(session_prefix(session)) {
            let (key, value) = item?;
            entries = entries.and_then(|mut entries| {
                let row: Vec<E> = decode(&key, &value).ok()?;
                let first = row.first()?.sequence();
                entries.extend(row);
                (first_of(&key).ok()? <= first).then_some(entries)
            });
            rows.push(key);
        }
        Ok((rows, entries))
    }

    fn remove_rows(&mut self, rows: Vec<IVec>) -> Result<(), IndexFault> {
        for key in rows {
            self.tree.remove(key)?;
        }
        Ok(())
    }

    /// Removes the rows of sessions for which `stays` does not say so.
    pub fn retain(&mut self, stays: impl Fn(&SessionKey) -> bool) -> Result<(), IndexFault> {
        for key in self.tree().iter().keys() {
            let key = key?;
            if !parse_key(&key).is_some_and(|(session, ..)| stays(&session)) {
                self.tree.remove(key)?;
            }
        }
        Ok(())
    }

    /// Adds a session of which there is nothing yet: its entries, in the order of their sequences.
    fn write(&mut self, session: &SessionKey, entries: &[E]) -> Result<(), IndexFault> {
        for row in entries.chunks(ROW_MAX) {
            let key = sequence_key(session, row[0].sequence());
            self.tree.insert(key, encode(row))?;
        }
        Ok(())
    }

    pub fn remove(&mut self, key: &RowKey, sequence: u64) -> Result<(), IndexFault> {
        self.load(key)?.retain(|entry| entry.sequence() != sequence);
        Ok(())
    }

    /// Removes every row of a session.
    pub fn forget(&mut self, session: &SessionKey) -> Result<(), IndexFault> {
        self.apply()?;
        self.tails.remove(session);
        for item in self.tree.scan_prefix(session_prefix(session)) {
            self.tree.remove(item?.0)?;
        }
        Ok(())
    }

    /// Makes the batch visible to readers.
    pub fn apply(&mut self) -> Result<(), IndexFault> {
        if self.tails.len() >= TAILS_MAX {
            self.tails.clear();
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        // Row by row: a batch of sled's is on its way to the disk before and after it, whatever its size, and all this is
        // made anew after a crash.
        for (key, entries) in self.pending.drain() {
            if entries.is_empty() {
                self.tree.remove(key)?;
            } else {
                self.tree.insert(key, encode(&entries))?;
            }
        }
        Ok(())
    }

    /// The row and the entry with the lowest sequence of a session.
    pub fn lowest(&self, session: &SessionKey) -> Result<Option<(RowKey, E)>, IndexFault> {
        let mut best: Option<(RowKey, E)> = None;
        for item in self.tree().scan_prefix(session_prefix(session)) {
            let (key, value) = item?;
            let first = first_of(&key)?;
            if best
                .as_ref()
                .is_some_and(|(_, entry)| entry.sequence() < first)
            {
                break;
            }
            let lowest = decode_first::<E>(&key, &value)?;
            if let Some(entry) = lowest
                && best
                    .as_ref()
                    .is_none_or(|(_, other)| entry.sequence() < other.sequence())
            {
                best = Some((key.to_vec(), entry));
            }
        }
        Ok(best)
    }

    /// The row and the entry of one sequence.
    pub fn find(
        &self,
        session: &SessionKey,
        sequence: u64,
    ) -> Result<Option<(RowKey, E)>, IndexFault> {
        let prefix = session_prefix(session);
        let end = sequence_key(session, sequence);
        // Rows may overlap, so every row that begins at or before the sequence is a candidate; the nearest first.
        for item in self.tree().range(prefix.clone()..=end).rev() {
            let (key, value) = item?;
            let entries = decode::<E>(&key, &value)?;
            if let Some(entry) = entries.into_iter().find(|e| e.sequence() == sequence) {
                return Ok(Some((key.to_vec(), entry)));
            }
        }
        Ok(None)
    }

    /// The `limit` highest sequences of a session, highest first.
    pub fn last(&self, session: &SessionKey, limit: usize) -> Result<Vec<E>, IndexFault> {
        let mut entries: Vec<E> = Vec::new();
        for item in self.tree().scan_prefix(session_prefix(session)).rev() {
            let (key, value) = item?;
            entries.extend(decode::<E>(&key, &value)?);
            // A few rows more than needed, because rows may overlap.
            if entries.len() >= limit + 4 * ROW_MAX {
                break;
            }
        }
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.sequence()));
        entries.truncate(limit);
        Ok(entries)
    }
}
