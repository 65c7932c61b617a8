//! The ledger: what the journal may forget. Two files hold the same, each replaced atomically, so that one is always whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::intervals::Intervals;
use super::layout::SegmentId;
use super::lost::Lost;
use super::record;
use super::running::Running;
use super::tally::Tallies;
use crate::disk::Disk;
use crate::model::{HostName, SessionKey, TenantId, Timestamp};
use crate::sabotage::stop_at;

mod v1;

const MAGIC: [u8; 8] = *b"REELAYLG";
const VERSION: u8 = 2;
/// Far above a ledger of a million remembered sessions.
const LEDGER_MAX: u64 = 1 << 30;
const FILES: [&str; 2] = ["ledger.a", "ledger.b"];

/// A session as far as retired segments and the operator's patience reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLine {
    pub key: SessionKey,
    pub accepted: Intervals,
    /// The highest sequence that was delivered.
    pub delivered_high: Option<u64>,
    pub changed_at: Timestamp,
    /// The store's running time at that change.
    pub quiet_from_ms: u64,
    pub ended_at: Option<Timestamp>,
    pub promoted: bool,
}

/// Where a segment that nobody appends to any more ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Accepted chunk frames.
    pub chunks: u32,
    /// The end of its accepted frames.
    pub end: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Grows with each writing; the higher of the two files counts.
    pub edition: u64,
    /// Pinned at the first start.
    pub host: Option<HostName>,
    /// Segments that were emptied and may be unlinked, or are already.
    pub retired: Intervals,
    /// Their chunks.
    pub totals: Tallies,
    /// The youngest segment, if it was closed in order by the process that wrote it: the next opening may go on in it.
    pub resumable: Option<SegmentId>,
    /// Segments that are kept and complete.
    pub closed: BTreeMap<SegmentId, Closed>,
    /// The next enqueue number is at least this.
    pub next_number: u64,
    /// The next segment's id is at least this.
    pub next_segment: SegmentId,
    /// Chunks of segments that vanished without being retired.
    pub lost: u64,
    /// Owed chunks of segments that are gone, as far as they can be named: they may be given again.
    pub lost_chunks: Lost,
    /// In the files and where they are read; a running store has its sessions elsewhere.
    pub sessions: Vec<SessionLine>,
    pub running: Running,
    /// The organisation that each tenant's token showed first, or that an operator confirmed.
    pub organisations: BTreeMap<TenantId, String>,
}

/// Why neither file could be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger")]
    Io(#[from] io::Error),
    #[error("ledger version {0} is newer than this program")]
    NewerVersion(u8),
}

/// What opening found.
#[derive(Debug)]
pub struct Found {
    pub ledger: Ledger,
    /// Files that exist and do not hold.
    pub damaged: Vec<&'static str>,
}

impl Ledger {
    /// The younger of the files that hold; an empty ledger if there is none.
    ///
    /// # Errors
    /// I/O, or a file of a newer program. Two damaged files are no error: the journal tells what it still knows.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Found, LedgerError> {
        let mut whole: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let mut damaged = Vec::new();
        for name in FILES {
            match read_one(disk, &dir.join(name))? {
                One::Absent => {}
                One::Damaged => damaged.push(name),
                One::Body(body) => whole.push((name, body)),
            }
        }
        // Only the younger one is decoded: with many sessions that takes longer than reading both.
        whole.sort_by_key(|(_, body)| std::cmp::Reverse(edition(body)));
        let mut ledger = None;
        for (name, body) in whole {
            match decode(&body) {
                Err(_) => damaged.push(name),
                Ok(found) => {
                    ledger = Some(found);
                    break;
                }
            }
        }
        Ok(Found {
            ledger: ledger.unwrap_or_default(),
            damaged,
        })
    }

    /// Writes both files in turn, each durable before the next. `self.edition` must have grown.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let body = record::encode(VERSION, self, LEDGER_MAX);
        let mut head = [0; 20];
        head[..8].copy_from_slice(&MAGIC);
        head[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
        head[16..].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
        for name in FILES {
            replace(disk, dir, name, &[&head, &body])?;
            stop_at("between_ledger_files");
        }
        Ok(())
    }
}

enum One {
    Absent,
    Damaged,
    Body(Vec<u8>),
}

fn read_one(disk: &dyn Disk, path: &Path) -> Result<One, LedgerError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(One::Absent),
        Err(error) => return Err(error.into()),
    };
    let length = file.length()?;
    let mut head = [0; 20];
    if super::segment::read_patiently(file.as_ref(), &mut head, 0)? < head.len()
        || head[..8] != MAGIC
    {
        return Ok(One::Damaged);
    }
    let body_bytes = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
    if body_bytes.saturating_add(20) != length {
        return Ok(One::Damaged);
    }
    let mut body = vec![0; body_bytes as usize];
    super::segment::read_patiently(file.as_ref(), &mut body, 20)?;
    if crc32fast::hash(&body).to_le_bytes() != head[16..] {
        return Ok(One::Damaged);
    }
    match body.first() {
        Some(&version) if version > VERSION => Err(LedgerError::NewerVersion(version)),
        Some(_) => Ok(One::Body(body)),
        None => Ok(One::Damaged),
    }
}

/// Behind the version, in every version.
fn edition(body: &[u8]) -> u64 {
    let bytes = body.get(1..9).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn decode(body: &[u8]) -> Result<Ledger, record::RecordError> {
    match body.first() {
        Some(&v1::VERSION) => {
            record::decode::<v1::Ledger>(v1::VERSION, body, LEDGER_MAX).map(Ledger::from)
        }
        _ => record::decode(VERSION, body, LEDGER_MAX),
    }
}

/// For the fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(body: &[u8]) {
    if let Ok(read) = decode(body) {
        let again = decode(&record::encode(VERSION, &read, LEDGER_MAX));
        assert_eq!(again, Ok(read));
    }
}

/// Replaces a small file atomically and durably.
fn replace(disk: &dyn Disk, dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary: PathBuf = dir.join(format!("{name}.new"));
    let file: Arc<_> = match disk.create(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&temporary)?;
            disk.create(&temporary)?
        }
        other => other?,
    };
    file.write_at(parts, 0)?;
    file.sync()?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn sample(edition: u64) -> Ledger {
        let mut accepted = Intervals::default();
        accepted.insert(3);
        Ledger {
            edition,
            host: Some("rec-017".parse().unwrap()),
            next_number: 99,
            sessions: vec![SessionLine {
                key: SessionKey {
                    tenant: "acme".parse().unwrap(),
                    session: "s1".parse().unwrap(),
                },
                accepted,
                delivered_high: Some(3),
                changed_at: Timestamp(5),
                quiet_from_ms: 7,
                ended_at: Some(Timestamp(6)),
                promoted: true,
            }],
            organisations: BTreeMap::from([("acme".parse().unwrap(), "org-1".into())]),
            ..Ledger::default()
        }
    }

    #[test]
    fn the_ledger_survives_the_loss_of_either_file() {
        for victim in FILES {
            let dir = tempfile::tempdir().unwrap();
            sample(1).write(&RealDisk, dir.path()).unwrap();
            std::fs::remove_file(dir.path().join(victim)).unwrap();
            assert_eq!(
                Ledger::read(&RealDisk, dir.path()).unwrap().ledger,
                sample(1)
            );
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_the_other_one_serves() {
        let dir = tempfile::tempdir().unwrap();
        sample(1).write(&RealDisk, dir.path()).unwrap();
        let length = std::fs::metadata(dir.path().join("ledger.a"))
            .unwrap()
            .len();
        for at in 0..length {
            let path = dir.path().join("ledger.a");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at as usize] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let found = Ledger::read(&RealDisk, dir.path()).unwrap();
            assert_eq!(
                (found.ledger, found.damaged),
                (sample(1), vec!["ledger.a"]),
                "byte {at}"
            );
            bytes[at as usize] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
        }
    }

    #[test]
    fn the_younger_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        sample(1).write(&RealDisk, dir.path()).unwrap();
        let old = std::fs::read(dir.path().join("ledger.b")).unwrap();
        sample(2).write(&RealDisk, dir.path()).unwrap();
        std::fs::write(dir.path().join("ledger.b"), old).unwrap();
        assert_eq!(
            Ledger::read(&RealDisk, dir.path()).unwrap().ledger.edition,
            2
        );
    }

    #[test]
    fn no_file_is_an_empty_ledger_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Ledger::read(&RealDisk, dir.path()).unwrap().ledger,
            Ledger::default()
        );
        let body = [VERSION + 1, 0, 0];
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&3u64.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        std::fs::write(dir.path().join("ledger.a"), bytes).unwrap();
        assert!(matches!(
            Ledger::read(&RealDisk, dir.path()),
            Err(LedgerError::NewerVersion(3))
        ));
    }
}
