//! One flipped bit or one zeroed range, anywhere in what the store uses: found or harmless, the start succeeds, only the
//! chunks that were touched are set aside, and no wrong byte is ever handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{copy_dir, failure, new_chunk, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::model::DeadReason;
use crate::sabotage::{Sabotage, Sabotaged};
use crate::store::frame::{HEADER, Kind};
use crate::store::layout::{HEADER_COPIES, SYNCED_AT};
use crate::store::scan::{Found, walk};
use crate::store::{Damage, DeadFilter, HoldKey, SequenceChoice, Settings, Store, StoredHold};

const SESSIONS: [&str; 3] = ["s1", "s2", "s3"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Region {
    SegmentHeader,
    SyncedWord,
    StateTable,
    FrameHeader,
    Metadata,
    BlockChecksums,
    Payload,
    Note,
    Ledger,
    Solo,
}

/// Bytes in use, and the chunk that they belong to, if they belong to one.
#[derive(Debug, Clone)]
struct Target {
    region: Region,
    path: PathBuf,
    bytes: Range<usize>,
    chunk: Option<(String, u64)>,
}

/// A store with live, delivered and dead chunks in several segments, and a hold.
struct Original {
    disk: SimulatedDisk,
    dir: tempfile::TempDir,
    targets: Vec<Target>,
    live: BTreeMap<(String, u64), Vec<u8>>,
    settled: BTreeSet<(String, u64)>,
}

fn payload(name: &str, sequence: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(sequence + name.len() as u64 * 1000);
    let length = match sequence {
        9 => 260_000,
        _ => random.usize(2_000..150_000),
    };
    (0..length).map(|_| random.u8(..)).collect()
}

fn open(disk: &SimulatedDisk, dir: &Path, settings: Settings) -> Store {
    Store::open_on(dir, settings, Arc::new(SystemClock), Arc::new(disk.clone())).unwrap()
}

/// Dead letters of an original.
const DEAD: u64 = 2;

fn build(clean: bool) -> Original {
    let disk = SimulatedDisk::new(7);
    let dir = tempfile::tempdir().unwrap();
    let store = open(&disk, dir.path(), settings());
    let mut live = BTreeMap::new();
    let mut settled = BTreeSet::new();
    for sequence in 0..12 {
        for name in SESSIONS {
            let bytes = payload(name, sequence);
            let chunk = new_chunk("acme", name, SequenceChoice::Exactly(sequence));
            store.enqueue(chunk, &mut bytes.as_slice()).unwrap();
            live.insert((name.to_owned(), sequence), bytes);
        }
    }
    for (name, count) in [("s1", 4), ("s2", 2)] {
        for sequence in 0..count {
            let lease = store.lease(&session(name)).unwrap().unwrap();
            if sequence == 1 {
                lease
                    .bury(DeadReason::Rejected, Some(failure(422)))
                    .unwrap();
            } else {
                lease.ack().unwrap();
            }
            live.remove(&(name.to_owned(), sequence));
            settled.insert((name.to_owned(), sequence));
        }
    }
    let hold = HoldKey {
        tenant: "acme".parse().unwrap(),
        name: "operator".into(),
    };
    let reason = "asked for".to_owned();
    let set_at = crate::model::Timestamp(0);
    store
        .put_hold(StoredHold {
            key: hold,
            set_at,
            left: None,
            reason,
        })
        .unwrap();
    let targets = targets(&store, dir.path());
    if clean {
        store.close().unwrap();
    } else {
        // sled as a killed process leaves it: copied while it is in use.
        store.inner.index.ask(|tables| tables.sync()).unwrap();
        let (index, kept) = (dir.path().join("index"), tempfile::tempdir().unwrap());
        copy_dir(&index, kept.path());
        store.abandon();
        std::fs::remove_dir_all(&index).unwrap();
        copy_dir(kept.path(), &index);
    }
    disk.settle();
    Original {
        disk,
        dir,
        targets,
        live,
        settled,
    }
}

fn targets(store: &Store, dir: &Path) -> Vec<Target> {
    let mut targets = Vec::new();
    let slots: Vec<_> = store.inner.segments().values().cloned().collect();
    for slot in slots {
        let segment = &slot.segment;
        let mut found = Vec::new();
        let mut add = |region, path: &Path, bytes: Range<usize>, chunk| {
            found.push(Target {
                region,
                path: path.to_owned(),
                bytes,
                chunk,
            });
        };
        for at in HEADER_COPIES {
            add(
                Region::SegmentHeader,
                &segment.path,
                at as usize..at as usize + 64,
                None,
            );
        }
        add(
            Region::SyncedWord,
            &segment.path,
            SYNCED_AT as usize..SYNCED_AT as usize + 8,
            None,
        );
        let end = slot.book().end;
        walk(segment, Some(end), |step| {
            let (head, ordinal) = match step {
                Found::Chunk { head, ordinal, .. } => (head, Some(ordinal)),
                Found::Note { head } => (head, None),
                other => panic!("undamaged: {other:?}"),
            };
            let start = head.start as usize;
            let record = start + HEADER..start + HEADER + head.header.record_bytes as usize;
            let Some(ordinal) = ordinal else {
                add(Region::Note, &segment.path, start..record.end, None);
                return Ok(());
            };
            let meta = crate::store::recover::read_chunk(&head).unwrap();
            let chunk = Some((meta.key.session.to_string(), meta.key.sequence));
            let word = segment.layout.word_at(ordinal) as usize;
            add(
                Region::StateTable,
                &segment.path,
                word..word + 8,
                chunk.clone(),
            );
            add(
                Region::FrameHeader,
                &segment.path,
                start..start + HEADER,
                chunk.clone(),
            );
            add(
                Region::Metadata,
                &segment.path,
                record.clone(),
                chunk.clone(),
            );
            let Kind::Chunk {
                solo,
                payload_bytes,
                ..
            } = head.header.kind
            else {
                unreachable!()
            };
            let payload_at = head.payload_at() as usize;
            match solo {
                None => {
                    add(
                        Region::BlockChecksums,
                        &segment.path,
                        record.end..payload_at,
                        chunk.clone(),
                    );
                    add(
                        Region::Payload,
                        &segment.path,
                        payload_at..payload_at + payload_bytes as usize,
                        chunk,
                    );
                }
                Some(solo) => {
                    let path = store.inner.solo_path(solo);
                    let bytes = 0..payload_bytes as usize + 16;
                    add(Region::Solo, &path, bytes, chunk);
                }
            }
            Ok(())
        })
        .unwrap();
        targets.append(&mut found);
    }
    for name in ["ledger.a", "ledger.b"] {
        let path = dir.join(name);
        let bytes = 0..store.inner.disk.open(&path).unwrap().length().unwrap() as usize;
        targets.push(Target {
            region: Region::Ledger,
            path,
            bytes,
            chunk: None,
        });
    }
    targets
}

/// Damages one place and drains what is left. The error says what should not have happened.
fn damage_and_drain(
    original: &Original,
    target: &Target,
    random: &mut fastrand::Rng,
    sabotaged: Sabotaged,
) -> Result<(), String> {
    let disk = original.disk.fork();
    let dir = tempfile::tempdir().unwrap();
    // The journal's files live on the simulated disk under the original's name; sled's are copied.
    let place = original.dir.path();
    copy_dir(&place.join("index"), &dir.path().join("index"));
    let at = random.usize(target.bytes.clone());
    let zeroed = random
        .bool()
        .then(|| at..(at + random.usize(1..300)).min(target.bytes.end));
    let bit = 1 << random.u32(0..8);
    disk.corrupt(&target.path, |bytes| match zeroed.clone() {
        Some(range) if bytes[range.clone()].iter().any(|byte| *byte != 0) => bytes[range].fill(0),
        _ => bytes[at] ^= bit,
    });
    let disk = disk.moved(place, dir.path());
    let store = open(
        &disk,
        dir.path(),
        Settings {
            sabotaged,
            ..settings()
        },
    );
    // Half of the times the store is checked before; that must tell of it, and change nothing for the rest.
    let told = random.bool().then(|| told_by_fsck(&store));
    let verdict = drain_and_compare(original, target, &store, told.as_ref());
    store.abandon();
    verdict.map_err(|fault| format!("{fault}; {target:?} at {at}, zeroed {zeroed:?}"))
}

/// The chunks that a check says are damaged; `None`: one whose name stands nowhere any more.
fn told_by_fsck(store: &Store) -> BTreeSet<Option<(String, u64)>> {
    let damaged = store.fsck().unwrap().damaged;
    let name = |it: Damage| Some((it.session?.to_string(), it.sequence?));
    damaged.into_iter().map(name).collect()
}

fn drain_and_compare(
    original: &Original,
    target: &Target,
    store: &Store,
    told: Option<&BTreeSet<Option<(String, u64)>>>,
) -> Result<(), String> {
    let mut missing: BTreeSet<_> = original.live.keys().cloned().collect();
    for name in SESSIONS {
        while let Some(lease) = store
            .lease(&session(name))
            .map_err(|error| error.to_string())?
        {
            let key = (name.to_owned(), lease.meta().key.sequence);
            let mut bytes = Vec::new();
            match lease
                .payload()
                .and_then(|mut reader| reader.read_to_end(&mut bytes))
            {
                Ok(_) => {
                    if bytes != payload(name, key.1) {
                        return Err(format!("{key:?} was handed out with wrong bytes"));
                    }
                    lease.ack().map_err(|error| error.to_string())?;
                    missing.remove(&key);
                    let again = original.settled.contains(&key);
                    if again && target.chunk.as_ref() != Some(&key) {
                        return Err(format!("{key:?} was settled before and came back"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    lease
                        .bury(DeadReason::Damaged, None)
                        .map_err(|error| error.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    if let Some(told) = told
        && let Some(key) = missing
            .iter()
            .find(|key| !told.contains(&Some((*key).clone())))
        && !told.contains(&None)
    {
        return Err(format!("fsck did not tell that {key:?} is damaged"));
    }
    let balance = store.view().balance;
    // What a word said may be lost; never the chunk. Any other place may cost its chunk, which is then set aside.
    let words = matches!(target.region, Region::StateTable | Region::SyncedWord);
    if !words && let Some(touched) = &target.chunk {
        let gone = missing.remove(touched);
        if gone && balance.dead <= DEAD {
            return Err(format!("{touched:?} is neither delivered nor set aside"));
        }
    }
    if !missing.is_empty() {
        return Err(format!("{missing:?} were not touched and are gone"));
    }
    let accepted = (original.live.len() + original.settled.len()) as u64;
    if balance.enqueued != accepted || !balance.balanced {
        return Err(format!("{accepted} accepted: {balance:?}"));
    }
    // A dead letter whose chunk was not touched is still there.
    let dead = store
        .dead(&DeadFilter::default())
        .map_err(|error| error.to_string())?;
    for name in ["s1", "s2"] {
        let key = (name.to_owned(), 1);
        let listed = dead
            .iter()
            .any(|l| l.key.session.as_str() == name && l.key.sequence == 1);
        if !listed && target.chunk.as_ref() != Some(&key) {
            return Err(format!("dead letter {key:?} is gone"));
        }
    }
    Ok(())
}

fn pick<'a>(targets: &'a [Target], region: Region, random: &mut fastrand::Rng) -> &'a Target {
    let of_region: Vec<_> = targets
        .iter()
        .filter(|target| target.region == region)
        .collect();
    of_region[random.usize(0..of_region.len())]
}

const REGIONS: [Region; 10] = [
    Region::SegmentHeader,
    Region::SyncedWord,
    Region::StateTable,
    Region::FrameHeader,
    Region::Metadata,
    Region::BlockChecksums,
    Region::Payload,
    Region::Note,
    Region::Ledger,
    Region::Solo,
];

#[test]
fn damage_anywhere_in_the_journal_costs_at_most_the_touched_chunk() {
    let seed = super::support::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    for clean in [true, false] {
        let original = build(clean);
        for region in REGIONS {
            for _ in 0..14 {
                let target = pick(&original.targets, region, &mut random);
                damage_and_drain(&original, target, &mut random, Sabotaged::NONE)
                    .unwrap_or_else(|fault| panic!("{fault}; clean {clean}, seed {seed}"));
            }
        }
    }
}

#[test]
fn a_zeroed_page_of_state_words_costs_duplicates_only() {
    for clean in [true, false] {
        let original = build(clean);
        let words = original
            .targets
            .iter()
            .filter(|it| it.region == Region::StateTable);
        let pages: BTreeSet<_> = words
            .map(|it| (it.path.clone(), it.bytes.start / 4096 * 4096))
            .collect();
        for (path, page) in pages {
            let disk = original.disk.fork();
            let dir = tempfile::tempdir().unwrap();
            copy_dir(
                &original.dir.path().join("index"),
                &dir.path().join("index"),
            );
            disk.corrupt(&path, |bytes| bytes[page..page + 4096].fill(0));
            let store = open(
                &disk.moved(original.dir.path(), dir.path()),
                dir.path(),
                settings(),
            );
            let mut missing: BTreeSet<_> = original.live.keys().cloned().collect();
            for name in SESSIONS {
                for (sequence, bytes) in super::support::drain(&store, name) {
                    assert_eq!(bytes, payload(name, sequence));
                    missing.remove(&(name.to_owned(), sequence));
                }
            }
            assert!(missing.is_empty(), "{missing:?}");
            let balance = store.view().balance;
            let accepted = (original.live.len() + original.settled.len()) as u64;
            assert_eq!((balance.enqueued, balance.balanced), (accepted, true));
            store.abandon();
        }
    }
}

#[test]
fn a_reader_that_trusts_its_blocks_hands_out_wrong_bytes() {
    let original = build(true);
    let mut random = fastrand::Rng::with_seed(3);
    let sabotaged = Sabotaged::NONE.with(Sabotage::SkipBlockChecksum);
    let noticed = (0..20).any(|_| {
        let target = pick(&original.targets, Region::Payload, &mut random);
        damage_and_drain(&original, target, &mut random, sabotaged).is_err()
    });
    assert!(noticed);
}

#[test]
fn damage_in_the_index_costs_nothing_that_was_accepted() {
    let seed = super::support::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let mut outcomes = BTreeMap::<&str, u32>::new();
    for clean in [true, false] {
        let original = build(clean);
        for _ in 0..24 {
            *outcomes
                .entry(damage_index(&original, &mut random, seed))
                .or_default() += 1;
        }
        // After an unclean end the index is filled anew in any case; after a clean one only if the damage is seen.
        assert!(
            outcomes.keys().any(|outcome| *outcome != "harmless"),
            "{outcomes:?}"
        );
    }
    println!("{outcomes:?}");
}

/// Damages sled's file; a start that ends as lost must be cured by the next.
fn damage_index(original: &Original, random: &mut fastrand::Rng, seed: u64) -> &'static str {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(
        &original.dir.path().join("index"),
        &dir.path().join("index"),
    );
    let file = dir.path().join("index/1/db");
    let mut bytes = std::fs::read(&file).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let at = used[random.usize(0..used.len())];
    bytes[at] ^= 1 << random.u32(0..8);
    std::fs::write(&file, bytes).unwrap();
    let disk = original.disk.fork().moved(original.dir.path(), dir.path());
    let any = Target {
        region: Region::Ledger,
        path: PathBuf::new(),
        bytes: 0..1,
        chunk: None,
    };
    let store = open(&disk, dir.path(), settings());
    let first = drain_and_compare(original, &any, &store, None);
    let rebuilt = store.inner.index_rebuilt;
    let set_aside = store.inner.index_path != dir.path().join("index/1");
    let Err(fault) = first else {
        store.abandon();
        return match (set_aside, rebuilt) {
            (true, _) => "set aside at open",
            (false, true) => "filled anew",
            (false, false) => "harmless",
        };
    };
    assert!(
        store.index_lost().is_some(),
        "{fault}; byte {at}, seed {seed}"
    );
    // As the process does: it ends, and the next start builds a fresh index.
    store.close().expect("a lost index does not stop the close");
    let store = open(&disk, dir.path(), settings());
    let mut delivered_before = original.live.clone();
    for name in SESSIONS {
        while let Some(lease) = store.lease(&session(name)).unwrap() {
            lease.ack().unwrap();
        }
        delivered_before.retain(|(session, _), _| session != name);
    }
    let balance = store.view().balance;
    assert!(
        balance.balanced && balance.backlog == 0,
        "{balance:?}; byte {at}, seed {seed}"
    );
    store.abandon();
    "lost, then rebuilt"
}
