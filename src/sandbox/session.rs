//! One session as the platform holds it: parts by sequence, declared gaps, and the checks of order that the ledger reports.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::keys;
use super::upload::Upload;

/// Payload bytes of all sessions: one unnamed file that goes when the emulator ends.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Spool {
    pub(super) fn new(bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            bytes: 0,
            bytes_max,
        })
    }

    /// Where the bytes now stand.
    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.bytes;
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        if at.saturating_add(length) > self.bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, at)?;
        self.bytes += length;
        Ok(at)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    digest: String,
    offset: u64,
    bytes: usize,
}

/// What a request did to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) stored: u64,
    /// Of payload, of what was stored.
    pub(super) bytes: u64,
    pub(super) duplicates: u64,
    pub(super) inversions: u64,
    pub(super) late: u64,
    pub(super) undeclared: u64,
    /// Stored behind the part that said it was the last.
    pub(super) after_last: u64,
}

/// A stored sequence came again with other bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) sequence: u64,
    pub(super) stored: String,
}

/// What is stored of a session, as docs/PROTOCOL.md counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    /// The exclusive or, over the parts, of the BLAKE3 of sequence and digest.
    pub(super) digest: [u8; 32],
    /// Between the first and the last part.
    pub(super) gaps: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    parts: BTreeMap<u64, Stored>,
    /// Closed, disjoint, ascending.
    gaps: Vec<(u64, u64)>,
    /// The sequence of the part that said it was the last.
    ended_at: Option<u64>,
    bytes: u64,
    /// Of the payloads in sequence order; empty while it has to be computed anew.
    sha256: OnceCell<String>,
}

impl Session {
    /// Compares a request with what is stored, without storing anything.
    pub(super) fn compare(&self, upload: &Upload) -> Result<(), Conflict> {
        for part in &upload.parts {
            if let Some(stored) = self.parts.get(&part.sequence)
                && stored.digest != part.digest
            {
                return Err(Conflict {
                    sequence: part.sequence,
                    stored: stored.digest.clone(),
                });
            }
        }
        Ok(())
    }

    /// The digest of a stored sequence.
    pub(super) fn digest(&self, sequence: u64) -> Option<&str> {
        Some(&self.parts.get(&sequence)?.digest)
    }

    /// What is stored from `first` on, as closed intervals.
    pub(super) fn intervals(&self, first: u64) -> Vec<(u64, u64)> {
        let mut intervals: Vec<(u64, u64)> = Vec::new();
        for (&sequence, _) in self.parts.range(first..) {
            match intervals.last_mut() {
                Some((_, last)) if *last + 1 == sequence => *last = sequence,
                _ => intervals.push((sequence, sequence)),
            }
        }
        intervals
    }

    pub(super) fn account(&self) -> Account {
        let mut digest = [0_u8; 32];
        let mut gaps = Vec::new();
        let mut before: Option<u64> = None;
        for (sequence, stored) in &self.parts {
            let of = blake3::Hash::from_hex(&stored.digest["blake3:".len()..])
                .expect("the digest's shape was checked when the part was read");
            let mut hash = blake3::Hasher::new();
            hash.update(&sequence.to_le_bytes());
            hash.update(of.as_bytes());
            let hash = hash.finalize();
            for (sum, byte) in digest.iter_mut().zip(hash.as_bytes()) {
                *sum ^= byte;
            }
            if let Some(before) = before.filter(|before| before + 1 < *sequence) {
                gaps.push((before + 1, sequence - 1));
            }
            before = Some(*sequence);
        }
        Account {
            chunks: self.parts.len() as u64,
            bytes: self.bytes,
            digest,
            gaps,
        }
    }

    pub(super) fn holds(&self, sequence: u64) -> bool {
        self.parts.contains_key(&sequence)
    }

    /// What was stored is not taken in after all.
    pub(super) fn forget(&mut self, sequence: u64) {
        if let Some(stored) = self.parts.remove(&sequence) {
            self.bytes -= stored.bytes as u64;
            self.sha256 = OnceCell::new();
        }
    }

    /// Stores what is new of a request that [`Session::compare`] let pass; all of it or, on an error, nothing.
    pub(super) fn store(&mut self, upload: &Upload, spool: &mut Spool) -> io::Result<Change> {
        let all_known = upload.parts.iter().all(|part| self.holds(part.sequence));
        let mut offset = if all_known {
            0
        } else {
            spool.append(&upload.payload)?
        };
        let mut change = self.judge(upload);
        for part in &upload.parts {
            let stored = Stored {
                digest: part.digest.clone(),
                offset,
                bytes: part.bytes,
            };
            let length = part.bytes as u64;
            offset += length;
            if self.parts.contains_key(&part.sequence) {
                change.duplicates += 1;
                continue;
            }
            change.stored += 1;
            change.bytes += length;
            self.bytes += length;
            self.parts.insert(part.sequence, stored);
            self.sha256 = OnceCell::new();
        }
        if upload.last {
            self.ended_at = upload.parts.last().map(|part| part.sequence);
        }
        Ok(change)
    }

    /// Checks order and declarations against what was stored before, and remembers the declarations.
    fn judge(&mut self, upload: &Upload) -> Change {
        let mut change = Change::default();
        for gap in &upload.gaps {
            self.declare(*gap);
        }
        let highest = self.parts.last_key_value().map(|(sequence, _)| *sequence);
        let fresh = upload
            .parts
            .iter()
            .filter(|part| !self.holds(part.sequence));
        for part in fresh {
            if upload.late {
                change.late += 1;
            } else if highest.is_some_and(|highest| part.sequence < highest) {
                change.inversions += 1;
            }
            if !upload.late && self.ended_at.is_some_and(|end| part.sequence > end) {
                change.after_last += 1;
            }
        }
        if let (Some(highest), false) = (highest, upload.late) {
            change.undeclared = self.undeclared(highest, upload.parts[0].sequence);
        }
        change
    }

    /// How many sequences between two stored ones nobody declared.
    fn undeclared(&self, highest: u64, next: u64) -> u64 {
        if next <= highest {
            return 0;
        }
        let missing = next - highest - 1;
        let declared: u64 = self
            .gaps
            .iter()
            .map(|&(first, last)| {
                let (from, to) = (first.max(highest + 1), last.min(next - 1));
                if from <= to { to - from + 1 } else { 0 }
            })
            .sum();
        missing - declared
    }

    fn declare(&mut self, gap: (u64, u64)) {
        let (mut first, mut last) = gap;
        self.gaps.retain(|&(a, b)| {
            let apart = b < first.saturating_sub(1) || a > last.saturating_add(1);
            if !apart {
                first = first.min(a);
                last = last.max(b);
            }
            apart
        });
        self.gaps.push((first, last));
        self.gaps.sort_unstable();
    }

    /// Sequences declared missing so far.
    pub(super) fn declared(&self) -> u64 {
        self.gaps.iter().fold(0, |sum: u64, &(first, last)| {
            sum.saturating_add((last - first).saturating_add(1))
        })
    }

    /// The payloads one after another, in sequence order.
    pub(super) fn assemble(&self, spool: &Spool) -> io::Result<Vec<u8>> {
        let mut whole = Vec::with_capacity(usize::try_from(self.bytes).map_err(io::Error::other)?);
        self.each(spool, |bytes| whole.extend_from_slice(bytes))?;
        Ok(whole)
    }

    fn each(&self, spool: &Spool, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = Vec::new();
        for stored in self.parts.values() {
            buffer.resize(stored.bytes, 0);
            spool.file.read_exact_at(&mut buffer, stored.offset)?;
            take(&buffer);
        }
        Ok(())
    }

    fn sha256(&self, spool: &Spool) -> io::Result<&str> {
        if let Some(known) = self.sha256.get() {
            return Ok(known);
        }
        let mut hash = Context::new(&SHA256);
        self.each(spool, |bytes| hash.update(bytes))?;
        Ok(self
            .sha256
            .get_or_init(|| keys::hex(hash.finish().as_ref())))
    }

    /// The session's entry in the ledger.
    pub(super) fn entry(&self, host: &str, spool: &Spool) -> io::Result<Value> {
        Ok(json!({
            "sequences": self.parts.keys().collect::<Vec<_>>(),
            "bytes": self.bytes,
            "sha256": self.sha256(spool)?,
            "host": host,
            "gaps": self.gaps.iter().map(|(first, last)| json!({"first": first, "last": last})).collect::<Vec<_>>(),
            "ended": self.ended_at.is_some(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_that_touch_or_overlap_count_once() {
        let mut session = Session::default();
        for gap in [(5, 6), (10, 12), (7, 8), (6, 11), (20, 20), (0, 0)] {
            session.declare(gap);
        }
        assert_eq!(session.gaps, [(0, 0), (5, 12), (20, 20)]);
        assert_eq!(session.declared(), 10);
        assert_eq!(session.undeclared(4, 14), 1);
        assert_eq!(session.undeclared(8, 21), 7);
        assert_eq!(session.undeclared(8, 9), 0);
        assert_eq!(session.undeclared(8, 3), 0);
    }

    #[test]
    fn absurd_declarations_do_not_overflow() {
        let mut session = Session::default();
        session.declare((1, u64::MAX - 1));
        session.declare((0, 0));
        assert_eq!(session.declared(), u64::MAX);
        assert_eq!(session.undeclared(0, u64::MAX), 0);
    }
}
