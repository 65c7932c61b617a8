//! Every kind of damage once: what `fsck` says of it, what is right again afterwards, and that it is never worse.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{copy_dir, failure, new_chunk, payload_of, session, settings};
use crate::clock::SystemClock;
use crate::model::DeadReason;
use crate::store::frame::{HEADER, Kind};
use crate::store::layout::HEADER_COPIES;
use crate::store::scan::{Found, walk};
use crate::store::{FsckReport, HoldKey, IndexCheck, SequenceChoice, Store, StoredHold};

/// Where things stand in a store that was closed in order.
struct Original {
    dir: tempfile::TempDir,
    /// The segment, below the store.
    segment: PathBuf,
    chunks: Vec<Chunk>,
    notes: Vec<usize>,
    solo: PathBuf,
}

struct Chunk {
    word: usize,
    frame: usize,
    record: usize,
    payload: usize,
}

fn open(dir: &Path) -> Store {
    Store::open(dir, settings(), Arc::new(SystemClock)).unwrap()
}

/// s1: 0 delivered, 1 dead, 2 to 4 waiting; s2: 0 waiting in a file of its own; a hold.
fn original() -> Original {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for sequence in 0..5 {
        let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
        let bytes = payload_of("s1", sequence);
        store.enqueue(chunk, &mut bytes.as_slice()).unwrap();
    }
    let chunk = new_chunk("acme", "s2", SequenceChoice::Exactly(0));
    store
        .enqueue(chunk, &mut [5_u8; 700_000].as_slice())
        .unwrap();
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    let dead = store.lease(&session("s1")).unwrap().unwrap();
    dead.bury(DeadReason::Rejected, Some(failure(422))).unwrap();
    let key = HoldKey {
        tenant: "acme".parse().unwrap(),
        name: "operator".into(),
    };
    let hold = StoredHold {
        key,
        set_at: crate::model::Timestamp(0),
        left: None,
        reason: "asked for".into(),
    };
    store.put_hold(hold).unwrap();
    let slot = store.inner.segments().values().next().cloned().unwrap();
    let (mut chunks, mut notes, mut solo) = (Vec::new(), Vec::new(), None);
    walk(&slot.segment, Some(slot.book().end), |step| {
        match step {
            Found::Chunk { head, ordinal, .. } => {
                if let Kind::Chunk { solo: Some(id), .. } = head.header.kind {
                    solo = Some(store.inner.solo_path(id));
                }
                chunks.push(Chunk {
                    word: slot.segment.layout.word_at(ordinal) as usize,
                    frame: head.start as usize,
                    record: head.start as usize + HEADER,
                    payload: head.payload_at() as usize,
                });
            }
            Found::Note { head } => notes.push(head.start as usize),
            other => panic!("undamaged: {other:?}"),
        }
        Ok(())
    })
    .unwrap();
    let below = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_owned();
    let (segment, solo) = (below(&slot.segment.path), below(&solo.unwrap()));
    store.close().unwrap();
    Original {
        dir,
        segment,
        chunks,
        notes,
        solo,
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// What is told, in one line a finding: the chunk, if it is known, and words of the reason.
type Told = &'static [(&'static str, &'static str)];

struct Case {
    name: &'static str,
    plant: fn(&Original, &Path),
    damaged: Told,
    repaired: Told,
    /// Chunks that are handed out whole afterwards, of s1 and s2.
    left: [usize; 2],
}

const CASES: [Case; 15] = [
    Case {
        name: "nothing",
        plant: |_, _| {},
        damaged: &[],
        repaired: &[],
        left: [3, 1],
    },
    Case {
        name: "first header copy",
        plant: |o, dir| flip(&dir.join(&o.segment), HEADER_COPIES[0] as usize + 20),
        damaged: &[],
        repaired: &[("-", "a header copy")],
        left: [3, 1],
    },
    Case {
        name: "second header copy",
        plant: |o, dir| flip(&dir.join(&o.segment), HEADER_COPIES[1] as usize),
        damaged: &[],
        repaired: &[("-", "a header copy")],
        left: [3, 1],
    },
    Case {
        name: "both header copies",
        plant: |o, dir| {
            HEADER_COPIES
                .iter()
                .for_each(|at| flip(&dir.join(&o.segment), *at as usize))
        },
        damaged: &[
            ("-", "both header copies are damaged; 6 chunks"),
            ("s1/1", "lost with its segment"),
            ("s1/2", "lost with its segment"),
            ("s1/3", "lost with its segment"),
            ("s1/4", "lost with its segment"),
            ("s2/0", "lost with its segment"),
        ],
        repaired: &[],
        left: [0, 0],
    },
    Case {
        name: "word of a waiting chunk",
        plant: |o, dir| flip(&dir.join(&o.segment), o.chunks[2].word),
        damaged: &[],
        repaired: &[("s1/2", "a state word does not read back")],
        left: [3, 1],
    },
    Case {
        name: "word of a delivered chunk",
        plant: |o, dir| flip(&dir.join(&o.segment), o.chunks[0].word),
        damaged: &[],
        repaired: &[("s1/0", "taken for live")],
        left: [4, 1],
    },
    Case {
        name: "frame header",
        plant: |o, dir| flip(&dir.join(&o.segment), o.chunks[3].frame + 9),
        damaged: &[("s1/3", "chunk frame does not read back")],
        repaired: &[],
        left: [2, 1],
    },
    Case {
        name: "metadata",
        plant: |o, dir| flip(&dir.join(&o.segment), o.chunks[3].record + 3),
        damaged: &[("s1/3", "chunk frame does not read back")],
        repaired: &[],
        left: [2, 1],
    },
    Case {
        name: "payload",
        plant: |o, dir| flip(&dir.join(&o.segment), o.chunks[4].payload + 1),
        damaged: &[("s1/4", "damaged")],
        repaired: &[],
        left: [2, 1],
    },
    Case {
        name: "note of a dead letter",
        plant: |o, dir| flip(&dir.join(&o.segment), o.notes[0] + HEADER + 2),
        damaged: &[("-", "a note")],
        repaired: &[],
        left: [3, 1],
    },
    Case {
        name: "one ledger file",
        plant: |_, dir| flip(&dir.join("ledger.b"), 30),
        damaged: &[],
        repaired: &[("-", "a ledger file is damaged; the other one serves")],
        left: [3, 1],
    },
    Case {
        name: "both ledger files",
        plant: |_, dir| {
            ["ledger.a", "ledger.b"]
                .iter()
                .for_each(|name| flip(&dir.join(name), 30))
        },
        damaged: &[("-", "both ledger files are damaged")],
        repaired: &[
            ("-", "damaged, and so is the other one"),
            ("-", "damaged, and so is the other one"),
        ],
        left: [3, 1],
    },
    Case {
        name: "a segment that is gone",
        plant: |o, dir| fs::remove_file(dir.join(&o.segment)).unwrap(),
        damaged: &[
            ("-", "the segment is missing; its 6 chunks are lost"),
            ("s1/1", "lost with its segment"),
            ("s1/2", "lost with its segment"),
            ("s1/3", "lost with its segment"),
            ("s1/4", "lost with its segment"),
            ("s2/0", "lost with its segment"),
        ],
        repaired: &[],
        left: [0, 0],
    },
    Case {
        name: "a payload file that is gone",
        plant: |o, dir| fs::remove_file(dir.join(&o.solo)).unwrap(),
        damaged: &[("s2/0", "its file is gone")],
        repaired: &[],
        left: [3, 0],
    },
    Case {
        name: "a payload file that nobody names",
        plant: |_, dir| fs::write(dir.join("segments/00000000000000aa.solo"), b"foreign").unwrap(),
        damaged: &[],
        repaired: &[("-", "no frame names this payload file")],
        left: [3, 1],
    },
];

fn assert_told(case: &str, what: &str, found: &[crate::store::Damage], expected: Told) {
    assert_eq!(found.len(), expected.len(), "{case}, {what}: {found:#?}");
    for (damage, (chunk, reason)) in found.iter().zip(expected) {
        let name = match (&damage.session, damage.sequence) {
            (Some(session), Some(sequence)) => format!("{session}/{sequence}"),
            _ => "-".to_owned(),
        };
        assert_eq!(name, *chunk, "{case}, {what}: {damage:?}");
        assert!(damage.reason.contains(reason), "{case}, {what}: {damage:?}");
    }
}

/// Checks, lets the store go, and says what was told.
fn checked(dir: &Path) -> FsckReport {
    let store = open(dir);
    let report = store.fsck().unwrap();
    store.close().unwrap();
    report
}

#[test]
fn every_kind_of_damage_is_told_and_what_can_be_repaired_is() {
    let original = original();
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(original.dir.path(), dir.path());
        (case.plant)(&original, dir.path());
        let report = checked(dir.path());
        let mut repaired = report.repaired.clone();
        if case
            .damaged
            .iter()
            .any(|(_, reason)| reason.starts_with("both ledger"))
        {
            repaired.sort_by(|a, b| a.segment.cmp(&b.segment));
        }
        assert_told(case.name, "damaged", &report.damaged, case.damaged);
        assert_told(case.name, "repaired", &repaired, case.repaired);
        let again = checked(dir.path());
        // A repair stays, what was lost is counted as lost, and nothing new is wrong.
        assert_told(case.name, "repaired, again", &again.repaired, &[]);
        assert!(
            again.damaged.len() <= report.damaged.len(),
            "{}: {again:?}",
            case.name
        );
        assert_eq!(again.balance, report.balance, "{}", case.name);
        let store = open(dir.path());
        let mut left = [0, 0];
        for (name, left) in ["s1", "s2"].into_iter().zip(&mut left) {
            while let Some(lease) = store.lease(&session(name)).unwrap() {
                let read = lease
                    .payload()
                    .and_then(|mut payload| std::io::copy(&mut payload, &mut std::io::sink()));
                match read {
                    Ok(_) => {
                        *left += 1;
                        lease.ack().unwrap();
                    }
                    Err(_) => lease.bury(DeadReason::Damaged, None).unwrap(),
                }
            }
        }
        assert_eq!(left, case.left, "{}", case.name);
        store.close().unwrap();
    }
}

#[test]
fn an_index_that_does_not_fit_is_made_anew_and_told() {
    let original = original();
    let dir = tempfile::tempdir().unwrap();
    copy_dir(original.dir.path(), dir.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(checked(dir.path()).index, IndexCheck::Rebuilt);
    let again = checked(dir.path());
    assert_eq!(again.index, IndexCheck::Ok);
    assert!(again.damaged.is_empty() && again.repaired.is_empty());
}
