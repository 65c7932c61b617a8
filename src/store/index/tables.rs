//! The trees and what is asked of them.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `owed 2` | packed row | chunks to lease |
//! | `seen 2` | packed row | digests of chunks that were owed once |
//! | `retry` | session, sequence | deadline and history of a live chunk that failed |
//! | `purged` | session, sequence | nothing |
//! | `dead` | session, sequence | the segment that a dead letter is in |
//! | `delivered` | tenant | when its last chunk was delivered |
//! | `names` | segment, ordinal | a chunk whose frame lost its name, until its burial tells it |
//! | `meta` | `clean` | the mark of the clean close this index belongs to |

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::IndexFault;
use super::packed::{Owed, Seen};
use super::rows::{RowKey, Rows, decode, parse_key, seal, sequence_key, session_prefix, unseal};
use crate::clock::Deadline;
use crate::model::{ChunkKey, Digest, FailureRecord, SessionKey, TenantId, Timestamp};
use crate::store::layout::SegmentId;
use crate::store::record;

const VERSION: u8 = 1;
/// Of the kind of index, not of its records: one of another kind is made anew.
pub const KIND: u32 = 2;
const OWED: &str = "owed 2";
const SEEN: &str = "seen 2";
/// Modest, because sled's resident memory is a multiple of it.
const CACHE_BYTES: u64 = 2 << 20;
const HISTORY_MAX: usize = 8;
/// Space that its file has behind its end, so that settling goes on when the disk is full.
pub const AHEAD_BYTES: u64 = 2 << 20;

/// One fact of the journal, on its way into the index.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "the common variant is the large one, and each is boxed"
)]
pub enum Change {
    /// Accepted, or owed again: to be leased.
    Owe {
        session: SessionKey,
        owed: Owed,
    },
    /// Owed at another place.
    Move {
        row: RowKey,
        owed: Owed,
    },
    /// No longer owed, and its digest remembered, if it is known.
    Settle {
        session: SessionKey,
        row: RowKey,
        sequence: u64,
        digest: Option<Digest>,
        /// `None`: it was not delivered.
        delivered_at: Option<Timestamp>,
    },
    /// A dead letter in this segment; `None`: it is none any more.
    Dead {
        key: ChunkKey,
        segment: Option<SegmentId>,
    },
    /// Failed; tried again later.
    Retry {
        key: ChunkKey,
        until: Deadline,
        record: Option<FailureRecord>,
    },
    Purged {
        key: ChunkKey,
    },
    /// The session is forgotten: its next chunk, if ever one comes, is its first.
    Forget {
        session: SessionKey,
    },
}

impl Change {
    /// The session that a lane should look at because of this.
    pub fn arrival(&self) -> Option<&SessionKey> {
        match self {
            Self::Owe { session, .. } => Some(session),
            _ => None,
        }
    }
}

/// What is kept of a live chunk's failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub until: Deadline,
    pub history: Vec<FailureRecord>,
}

/// What the index knows of a chunk that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Its digest stands in its frame.
    Owed(Owed),
    Settled(Seen),
}

impl Known {
    fn sequence(&self) -> u64 {
        match self {
            Self::Owed(owed) => owed.sequence,
            Self::Settled(seen) => seen.sequence,
        }
    }

    fn may_be(&self, digest: &Digest) -> bool {
        match self {
            Self::Owed(owed) => owed.print == print_of(digest),
            Self::Settled(seen) => seen.digest == digest.0,
        }
    }
}

/// The first bytes of a digest.
pub fn print_of(digest: &Digest) -> u32 {
    u32::from_le_bytes(*digest.0.first_chunk().expect("4 of 32 bytes"))
}

pub struct Tables {
    db: sled::Db,
    pub(super) owed: Rows<Owed>,
    pub(super) seen: Rows<Seen>,
    retry: sled::Tree,
    pub(super) purged: sled::Tree,
    pub(super) dead: sled::Tree,
    pub(super) delivered: sled::Tree,
    pub(super) names: sled::Tree,
    meta: sled::Tree,
    /// sled's flush is no sync: this handle on its file makes it one.
    file: File,
}

impl Tables {
    pub fn open(path: &Path) -> Result<Self, IndexFault> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .print_profile_on_drop(false)
            .open()?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))?;
        reserve_ahead(&file);
        for former in ["owed", "seen"] {
            db.drop_tree(former)?;
        }
        Ok(Self {
            owed: Rows::new(db.open_tree(OWED)?),
            seen: Rows::new(db.open_tree(SEEN)?),
            retry: db.open_tree("retry")?,
            purged: db.open_tree("purged")?,
            dead: db.open_tree("dead")?,
            delivered: db.open_tree("delivered")?,
            names: db.open_tree("names")?,
            meta: db.open_tree("meta")?,
            db,
            file,
        })
    }

    /// Applies changes; they are visible to readers afterwards, and durable after [`Self::sync`].
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), IndexFault> {
        let mut delivered: BTreeMap<&TenantId, Timestamp> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Owe { session, owed } => self.owed.append(session, owed.clone())?,
                Change::Move { row, owed } => self.owed.replace(row, owed.clone())?,
                Change::Settle {
                    session,
                    row,
                    sequence,
                    digest,
                    delivered_at,
                } => {
                    delivered.extend(delivered_at.map(|at| (&session.tenant, at)));
                    self.owed.remove(row, *sequence)?;
                    self.retry.remove(sequence_key(session, *sequence))?;
                    if let Some(Digest(digest)) = *digest {
                        let sequence = *sequence;
                        self.seen.append(session, Seen { sequence, digest })?;
                    }
                }
                Change::Retry { key, until, record } => self.note_retry(key, *until, record)?,
                Change::Dead { key, segment } => self.set_dead(key, *segment)?,
                Change::Forget { session } => self.forget(session)?,
                Change::Purged { key } => {
                    self.set_purged(&sequence_key(&key.session_key(), key.sequence), true)?;
                }
            }
        }
        for (tenant, at) in delivered {
            self.note_delivery(tenant, at)?;
        }
        self.owed.apply()?;
        self.seen.apply()
    }

    fn forget(&mut self, session: &SessionKey) -> Result<(), IndexFault> {
        self.seen.forget(session)?;
        for tree in [&self.retry, &self.purged] {
            for item in tree.scan_prefix(session_prefix(session)) {
                tree.remove(item?.0)?;
            }
        }
        Ok(())
    }

    fn note_retry(
        &self,
        key: &ChunkKey,
        until: Deadline,
        failure: &Option<FailureRecord>,
    ) -> Result<(), IndexFault> {
        let row = sequence_key(&key.session_key(), key.sequence);
        let mut history = self
            .retry_at(&row)?
            .map_or_else(Vec::new, |retry| retry.history);
        history.extend(failure.clone());
        let surplus = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..surplus);
        let retry = Retry {
            until,
            history: record::bounded_history(history),
        };
        self.retry.insert(
            row,
            seal(record::encode(VERSION, &retry, record::RECORD_MAX)),
        )?;
        Ok(())
    }

    fn retry_at(&self, row: &[u8]) -> Result<Option<Retry>, IndexFault> {
        let Some(value) = self.retry.get(row)? else {
            return Ok(None);
        };
        unseal(&value)
            .and_then(|body| record::decode(VERSION, body, record::RECORD_MAX).ok())
            .map(Some)
            .ok_or_else(|| IndexFault::disagrees("a retry does not read back", row))
    }

    /// The lowest owed chunk of a session, and the row that holds it.
    pub fn head(&self, session: &SessionKey) -> Result<Option<(RowKey, Owed)>, IndexFault> {
        self.owed.lowest(session)
    }

    pub fn owed(
        &self,
        session: &SessionKey,
        sequence: u64,
    ) -> Result<Option<(RowKey, Owed)>, IndexFault> {
        self.owed.find(session, sequence)
    }

    /// Every owed sequence of a session.
    pub fn owed_sequences(&self, session: &SessionKey) -> Result<Vec<u64>, IndexFault> {
        let mut sequences = Vec::new();
        for item in self.owed.tree().scan_prefix(session_prefix(session)) {
            let (row, value) = item?;
            let owed: Vec<Owed> = decode(&row, &value)?;
            sequences.extend(owed.into_iter().map(|owed| owed.sequence));
        }
        Ok(sequences)
    }

    /// What is known of the digest of one chunk.
    pub fn known(&self, key: &ChunkKey) -> Result<Option<Known>, IndexFault> {
        let session = key.session_key();
        if let Some((_, owed)) = self.owed.find(&session, key.sequence)? {
            return Ok(Some(Known::Owed(owed)));
        }
        let found = self.seen.find(&session, key.sequence)?;
        Ok(found.map(|(_, seen)| Known::Settled(seen)))
    }

    /// From now on nobody can tell whether these were given before.
    pub fn forget_digests(&mut self, keys: &[ChunkKey]) -> Result<(), IndexFault> {
        let mut rows = Vec::new();
        for key in keys {
            let found = self.seen.find(&key.session_key(), key.sequence)?;
            rows.extend(found.map(|(row, seen)| (row, seen.sequence)));
        }
        for (row, sequence) in rows {
            self.seen.remove(&row, sequence)?;
        }
        self.seen.apply()
    }

    /// Those of a session's `limit` highest sequences that have this digest, or may have it, highest sequence first.
    pub fn repeats(
        &self,
        session: &SessionKey,
        digest: Digest,
        limit: usize,
    ) -> Result<Vec<Known>, IndexFault> {
        let owed = self.owed.last(session, limit)?.into_iter();
        let seen = self.seen.last(session, limit)?.into_iter();
        let mut last: Vec<Known> = owed.map(Known::Owed).collect();
        last.extend(seen.map(Known::Settled));
        last.sort_by_key(|known| std::cmp::Reverse(known.sequence()));
        last.truncate(limit);
        last.retain(|known| known.may_be(&digest));
        Ok(last)
    }

    pub fn retry(&self, key: &ChunkKey) -> Result<Option<Retry>, IndexFault> {
        self.retry_at(&sequence_key(&key.session_key(), key.sequence))
    }

    /// Every chunk that waits for its next try.
    pub fn retries(&self) -> Result<Vec<(ChunkKey, Retry)>, IndexFault> {
        let mut found = Vec::new();
        for item in self.retry.iter() {
            let (row, _) = item?;
            let (session, sequence, _) = parse_key(&row)
                .ok_or_else(|| IndexFault::disagrees("a key does not read back", &row))?;
            if let Some(retry) = self.retry_at(&row)? {
                let SessionKey { tenant, session } = session;
                found.push((
                    ChunkKey {
                        tenant,
                        session,
                        sequence,
                    },
                    retry,
                ));
            }
        }
        Ok(found)
    }

    /// Empties the queue: it is filled again in parts. Much quicker than taking its rows one by one.
    pub fn clear_owed(&mut self) -> Result<(), IndexFault> {
        self.db.drop_tree(OWED)?;
        self.owed = Rows::new(self.db.open_tree(OWED)?);
        Ok(())
    }

    pub fn clean_mark(&self) -> Result<Option<u64>, IndexFault> {
        let mark = self.meta.get("clean")?;
        Ok(mark.and_then(|value| Some(u64::from_le_bytes(value.as_ref().try_into().ok()?))))
    }

    pub fn set_clean_mark(&self, mark: u64) -> Result<(), IndexFault> {
        self.meta.insert("clean", &mark.to_le_bytes())?;
        Ok(())
    }

    /// Makes everything applied survive a power cut.
    pub fn sync(&self) -> Result<(), IndexFault> {
        self.db.flush()?;
        self.file.sync_data()?;
        reserve_ahead(&self.file);
        Ok(())
    }
}

/// Without changing the length, which sled goes by. On a disk that has none to give there was some before.
fn reserve_ahead(file: &File) {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = file.metadata() else { return };
    if found.blocks() * 512 < found.len() + AHEAD_BYTES / 2 {
        let whole = found.len() + AHEAD_BYTES;
        let _ = fallocate(file, FallocateFlags::KEEP_SIZE, 0, whole);
    }
}

/// For the fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(sealed: &[u8]) {
    let body = unseal(sealed).unwrap_or_default();
    drop(record::decode::<Retry>(VERSION, body, record::RECORD_MAX));
}
