//! Single faults with a name: what a producer is told, and what goes on all the same.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Barrier};

use super::support::{Fixture, drain, failure, key, new_chunk, payload_of, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::model::{ChunkState, DeadReason, GapReason};
use crate::sabotage::{Sabotage, Sabotaged};
use crate::store::frame::{self, HEADER, Kind};
use crate::store::segment::NewFrame;
use crate::store::{EnqueueError, Outcome, SequenceChoice, Settings, Store, StoreError};

fn simulated(settings: Settings) -> (Store, SimulatedDisk, tempfile::TempDir) {
    let (disk, dir) = (SimulatedDisk::new(1), tempfile::tempdir().unwrap());
    let on = Arc::new(disk.clone());
    let store = Store::open_on(dir.path(), settings, Arc::new(SystemClock), on).unwrap();
    (store, disk, dir)
}

fn put(store: &Store, tenant: &str, name: &str, bytes: &[u8]) -> Result<Outcome, EnqueueError> {
    let chunk = new_chunk(
        tenant,
        name,
        SequenceChoice::Next {
            refuse_repeat: false,
        },
    );
    let mut bytes = bytes;
    store
        .enqueue(chunk, &mut bytes)
        .map(|enqueued| enqueued.outcome)
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_and_everything_is_delivered_until_one_succeeds() {
    let (store, disk, _dir) = simulated(settings());
    put(&store, "acme", "s1", b"safe").unwrap();
    disk.fail_next_syncs(1_000_000);
    let error = put(&store, "acme", "s1", b"unsafe").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("disk sync failed at "), "{text}");
    assert!(
        text.contains("Input/output error (segment 00000001)"),
        "{text}"
    );
    assert!(
        text.contains("1 earlier chunks are safe and still being delivered"),
        "{text}"
    );
    assert!(matches!(
        put(&store, "acme", "s1", b"still"),
        Err(EnqueueError::Latched(_))
    ));
    assert_eq!(drain(&store, "s1"), [(0, b"safe".to_vec())]);
    disk.fail_next_syncs(0);
    let accepted = std::iter::repeat_with(|| put(&store, "acme", "s1", b"again")).find(|answer| {
        std::thread::yield_now();
        !matches!(answer, Err(EnqueueError::Latched(_)))
    });
    assert!(matches!(accepted, Some(Ok(Outcome::Accepted))));
    assert_eq!(drain(&store, "s1").len(), 1);
}

#[test]
fn a_full_store_refuses_with_its_numbers_and_removes_nothing() {
    let (store, _disk, _dir) = simulated(Settings {
        max_bytes: 300_000,
        ..settings()
    });
    for _ in 0..2 {
        put(&store, "acme", "s1", &[7; 100_000]).unwrap();
    }
    let refused = put(&store, "globex", "s1", &[8; 100_000])
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("store full: "), "{refused}");
    assert!(
        refused.contains("100,000 more bytes refused; nothing was removed."),
        "{refused}"
    );
    assert!(refused.ends_with("Most is acme: 195 KiB"), "{refused}");
    assert_eq!(drain(&store, "s1").len(), 2);
}

#[test]
fn a_tenant_beyond_its_share_leaves_room_for_the_others() {
    let (store, _disk, _dir) = simulated(Settings {
        max_bytes: 1_000_000,
        ..settings()
    });
    let mut accepted = 0;
    while put(&store, "acme", "s1", &[7; 50_000]).is_ok() {
        accepted += 1;
    }
    assert!(accepted * 50_000 < 800_000, "{accepted}");
    put(&store, "globex", "s1", &[8; 50_000]).unwrap();
}

#[test]
fn no_space_for_a_segment_is_a_typed_refusal() {
    let (store, disk, _dir) = simulated(settings());
    disk.set_free_bytes(1000);
    let refused = put(&store, "acme", "s1", b"x").unwrap_err();
    assert!(matches!(refused, EnqueueError::Full(_)), "{refused}");
    disk.set_free_bytes(u64::MAX);
    put(&store, "acme", "s1", b"x").unwrap();
}

#[test]
fn two_enqueues_of_one_key_at_once_make_one_chunk_and_one_answer_each() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let barrier = Barrier::new(2);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    fixture.put(&store, "s1", 5).unwrap().outcome
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let accepted = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Accepted)
        .count();
    assert_eq!(
        (accepted, store.view().balance.enqueued),
        (1, 1),
        "{outcomes:?}"
    );
}

/// Gives one byte for each permission.
struct Trickle(Receiver<u8>);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.recv() {
            Ok(byte) => {
                buffer[0] = byte;
                Ok(1)
            }
            Err(_) => Ok(0),
        }
    }
}

#[test]
fn a_producer_that_trickles_delays_nobody() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let (more, bytes) = sync_channel(0);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let chunk = new_chunk("acme", "slow", SequenceChoice::Exactly(0));
            store.enqueue(chunk, &mut Trickle(bytes)).unwrap()
        });
        more.send(b'a').unwrap();
        // The slow one is in the middle of its payload for as long as all of these take.
        std::thread::scope(|fast| {
            for producer in 0..16 {
                let (fixture, store) = (&fixture, &store);
                fast.spawn(move || {
                    for sequence in 0..20 {
                        fixture
                            .put(store, &format!("fast-{producer}"), sequence)
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.view().balance.enqueued, 320);
        more.send(b'b').unwrap();
        drop(more);
        assert_eq!(slow.join().unwrap().bytes, 2);
    });
}

#[test]
fn a_source_that_changes_while_it_is_read_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for (announced, given) in [
        (10, 9),
        (10, 11),
        (2_000_000, 1_999_999),
        (2_000_000, 2_000_001),
    ] {
        let mut chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(0));
        chunk.length = Some(announced);
        let bytes = vec![1; given];
        let refused = store.enqueue(chunk, &mut bytes.as_slice()).unwrap_err();
        assert!(
            matches!(refused, EnqueueError::LengthChanged { .. }),
            "{refused}"
        );
    }
    let empty = fixture.put_bytes(&store, "s1", SequenceChoice::Exactly(0), b"");
    assert!(matches!(empty, Err(EnqueueError::Empty)));
    assert_eq!(store.view().balance.enqueued, 0);
    let left: Vec<_> = std::fs::read_dir(fixture.dir().join("segments"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The payload of the first chunk is, at its very place, a frame that would be valid there. Its own header is destroyed.
#[test]
fn a_frame_inside_a_payload_is_never_taken_for_a_chunk() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let payload = vec![0x11; 8192];
    fixture
        .put_bytes(&store, "s1", SequenceChoice::Exactly(0), &payload)
        .unwrap();
    fixture.put(&store, "s1", 1).unwrap();
    let slot = store.inner.segments().values().next().cloned().unwrap();
    let segment = &slot.segment;
    let start = segment.layout.data_start() as u32;
    let head = segment.read_frame(start).unwrap();
    let meta = crate::store::recover::read_chunk(&head).unwrap();
    let mut forged = meta.clone();
    forged.key.sequence = 77;
    let frame = NewFrame {
        kind: Kind::Chunk {
            ordinal: 0,
            payload_bytes: 100,
            solo: None,
        },
        record: crate::store::record::ChunkRecord::encode(&forged),
        block_crcs: frame::block_checksums(&[0x11; 100]),
        payload: vec![0x11; 100],
        number: 9,
        accepted_at: head.header.accepted_at,
    };
    for at in [
        head.payload_at().next_multiple_of(16),
        head.payload_at().next_multiple_of(4096),
    ] {
        let synced = head.header.synced;
        let mut bytes = frame.encode_as(frame.kind, segment.nonce, at, synced, true);
        bytes.extend_from_slice(&frame.payload);
        segment.file().unwrap().write_at(&[&bytes], at).unwrap();
    }
    segment
        .file()
        .unwrap()
        .write_at(&[&[0; HEADER]], start.into())
        .unwrap();
    store.abandon();
    let store = fixture.open();
    assert_eq!(drain(&store, "s1"), [(1, payload_of("s1", 1))]);
    let balance = store.view().balance;
    assert_eq!(
        (balance.enqueued, balance.dead, balance.balanced),
        (2, 1, true)
    );
}

#[test]
fn an_index_that_panics_or_hangs_stops_leasing_and_nothing_else() {
    for sabotage in [Sabotage::PanicIndex, Sabotage::HangIndex] {
        let fixture = Fixture::new();
        let store = fixture.open_with(Settings {
            sabotaged: Sabotaged::NONE.with(sabotage),
            ..settings()
        });
        fixture.put(&store, "s1", 0).unwrap();
        let lost = store.lease(&session("s1"));
        assert!(
            matches!(lost, Err(StoreError::IndexLost { .. })),
            "{sabotage:?}"
        );
        assert!(store.index_lost().is_some());
        fixture.put(&store, "s1", 1).unwrap();
        store.close().unwrap();
        let store = fixture.open();
        assert_eq!(drain(&store, "s1").len(), 2, "{sabotage:?}");
    }
}

#[test]
fn a_late_chunk_is_late_and_a_hole_is_a_gap() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in [3, 4, 8] {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    let gaps = |store: &Store| {
        let head = store.head(&session("s1")).unwrap().unwrap();
        let gaps: Vec<_> = head.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
        (head.sequence, head.late, gaps)
    };
    assert_eq!(gaps(&store), (3, false, vec![]));
    for _ in 0..2 {
        store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    }
    assert_eq!(gaps(&store), (8, false, vec![(5, 7)]));
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    fixture.put(&store, "s1", 6).unwrap();
    assert_eq!(gaps(&store), (6, true, vec![]));
}

/// Seen with a session whose first chunk was refused: the platform was never told that it will not come.
#[test]
fn a_session_that_begins_with_dead_chunks_declares_them() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in [3, 4, 6] {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    let head = |store: &Store| {
        let head = store.head(&session("s1")).unwrap().unwrap();
        let gaps = head
            .gaps
            .iter()
            .map(|gap| (gap.first, gap.last, gap.reason));
        (head.sequence, head.late, gaps.collect::<Vec<_>>())
    };
    for _ in 0..2 {
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        lease
            .bury(DeadReason::Rejected, Some(failure(422)))
            .unwrap();
    }
    let declared = vec![(3, 4, GapReason::Dead), (5, 5, GapReason::Missing)];
    assert_eq!(head(&store), (6, false, declared.clone()));
    store.close().unwrap();
    assert_eq!(head(&fixture.open()), (6, false, declared));
}

#[test]
fn a_second_opening_is_told_who_holds_the_store() {
    let fixture = Fixture::new();
    let _store = fixture.open();
    let second = Store::open(fixture.dir(), settings(), Arc::new(SystemClock))
        .err()
        .unwrap();
    let text = second.to_string();
    assert!(
        text.contains(&format!("pid {}", std::process::id())),
        "{text}"
    );
}

/// The counter once took more away at retirement than it had added, fell below zero and refused everything.
#[test]
fn the_used_bytes_return_to_where_they_were_when_everything_is_delivered() {
    let fixture = Fixture::new();
    for round in 0..3 {
        let store = fixture.open();
        for sequence in 0..4 {
            fixture.put(&store, "s1", round * 4 + sequence).unwrap();
        }
        fixture
            .put_next(&store, "s2", &vec![round as u8; 400_000])
            .unwrap();
        assert!(store.view().used_bytes > 400_000);
        drain(&store, "s1");
        drain(&store, "s2");
        store.close().unwrap();
        let store = fixture.open();
        assert_eq!(store.view().used_bytes, 0, "round {round}");
        store.close().unwrap();
    }
}

#[test]
fn damaged_bytes_may_be_given_again_and_take_the_place_of_the_old() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.bury(crate::model::DeadReason::Damaged, None).unwrap();
    assert_eq!(
        fixture.put(&store, "s1", 0).unwrap().outcome,
        Outcome::Accepted
    );
    let again = fixture.put(&store, "s1", 0).unwrap().outcome;
    assert_eq!(again, Outcome::Known(crate::model::ChunkState::Live));
    assert_eq!(drain(&store, "s1"), [(0, payload_of("s1", 0))]);
    let balance = store.view().balance;
    let counts = (
        balance.enqueued,
        balance.delivered,
        balance.dead,
        balance.purged,
    );
    assert_eq!((counts, balance.balanced), ((2, 1, 0, 1), true));
}

#[test]
fn a_forgotten_session_begins_anew() {
    let fixture = Fixture::new();
    let short = Settings {
        remember: std::time::Duration::ZERO,
        ..settings()
    };
    let store = fixture.open_with(short);
    fixture
        .put_bytes(&store, "s1", SequenceChoice::Exactly(0), b"old")
        .unwrap();
    drain(&store, "s1");
    // The horizon is the present moment: the next millisecond is behind it.
    while store.inner.sessions().by_key.contains_key(&session("s1")) {
        crate::store::keeper::round(&store.inner).unwrap();
    }
    let anew = fixture
        .put_bytes(&store, "s1", SequenceChoice::Exactly(0), b"new")
        .unwrap();
    assert_eq!(anew.outcome, Outcome::Accepted);
    let again = fixture
        .put_bytes(&store, "s1", SequenceChoice::Exactly(0), b"new")
        .unwrap();
    assert!(matches!(again.outcome, Outcome::Known(_)));
}

#[test]
fn a_chunk_that_was_damaged_while_the_store_was_closed_keeps_its_name_and_can_be_given_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    fixture.put(&store, "s1", 1).unwrap();
    let slot = store.inner.segments().values().next().cloned().unwrap();
    let start = slot.segment.layout.data_start();
    let file = slot.segment.file().unwrap();
    store.close().unwrap();
    file.write_at(&[&[0; HEADER]], start).unwrap();
    // The name comes from the index at the first opening, which ends before the burial is written, and from the note of
    // the second one at the third.
    for opening in 0..3 {
        let store = fixture.open();
        let dead = store.dead(&crate::store::DeadFilter::default()).unwrap();
        let named: Vec<_> = dead.iter().map(|l| (l.key.sequence, l.reason)).collect();
        assert_eq!(named, [(0, crate::model::DeadReason::Damaged)]);
        let balance = store.view().balance;
        assert_eq!((balance.enqueued, balance.backlog, balance.dead), (2, 1, 1));
        if opening == 0 {
            store.abandon();
        } else {
            store.close().unwrap();
        }
    }
    let store = fixture.open();
    assert_eq!(
        fixture.put(&store, "s1", 0).unwrap().outcome,
        Outcome::Accepted
    );
    assert_eq!(drain(&store, "s1").len(), 2);
    let balance = store.view().balance;
    assert_eq!(
        (balance.delivered, balance.dead, balance.balanced),
        (2, 0, true)
    );
    store.close().unwrap();
    assert!(
        std::fs::read_dir(fixture.dir().join("segments"))
            .unwrap()
            .next()
            .is_none()
    );
}

/// They were answered as known and delivered once, whereupon a producer removes its file.
#[test]
fn chunks_of_a_segment_that_is_gone_are_named_and_taken_again_and_what_was_delivered_stays_so() {
    for (removed, left) in [(true, 1), (false, 3)] {
        let fixture = Fixture::new();
        let store = fixture.open();
        for sequence in 0..3 {
            fixture.put(&store, "s1", sequence).unwrap();
        }
        store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
        let path = store
            .inner
            .segments()
            .values()
            .next()
            .unwrap()
            .segment
            .path
            .clone();
        store.close().unwrap();
        if removed {
            std::fs::remove_file(&path).unwrap();
        } else {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 2 * 4096], 0).unwrap();
        }
        let store = fixture.open();
        let report = store.fsck().unwrap();
        let named: Vec<_> = report.damaged.iter().filter_map(|it| it.sequence).collect();
        assert_eq!(named, [1, 2]);
        store.close().unwrap();
        // Ends like a killed process, before any ledger tells of what was given again.
        let ledgers = ["ledger.a", "ledger.b"].map(|name| fixture.dir().join(name));
        let older = ledgers.each_ref().map(|path| std::fs::read(path).unwrap());
        let store = fixture.open();
        let outcome = |store: &Store, sequence| fixture.put(store, "s1", sequence).unwrap().outcome;
        assert_eq!(outcome(&store, 0), Outcome::Known(ChunkState::Delivered));
        assert_eq!(outcome(&store, 1), Outcome::Accepted);
        assert_eq!(outcome(&store, 1), Outcome::Known(ChunkState::Live));
        store.abandon();
        for (path, bytes) in ledgers.iter().zip(older) {
            std::fs::write(path, bytes).unwrap();
        }
        let store = fixture.open();
        assert_eq!(outcome(&store, 1), Outcome::Known(ChunkState::Live));
        assert_eq!(outcome(&store, 2), Outcome::Accepted);
        let gone = |store: &Store| {
            let balance = store.view().balance;
            balance.lost.unwrap_or(0) + balance.dead
        };
        assert_eq!(gone(&store), left);
        store.close().unwrap();
        let store = fixture.open();
        assert_eq!(gone(&store), left);
        assert_eq!(
            drain(&store, "s1"),
            [1, 2].map(|n| (n, payload_of("s1", n)))
        );
        store.close().unwrap();
    }
}

/// Seen: the repeat of a dead letter that went with its segment was answered as known and delivered.
#[test]
fn a_dead_letter_whose_segment_is_gone_is_named_and_taken_again_and_no_other_chunk_is() {
    // Its burial in the same segment, or in a younger one that stays; the file gone, or both its headers.
    for (elsewhere, removed) in [(false, true), (false, false), (true, true), (true, false)] {
        let fixture = Fixture::new();
        let mut store = fixture.open();
        for sequence in 0..5 {
            fixture.put(&store, "s1", sequence).unwrap();
        }
        if elsewhere {
            fixture.abandon(store);
            store = fixture.open();
        }
        let lease = || store.lease(&session("s1")).unwrap().unwrap();
        for _ in 0..3 {
            let failure = Some(failure(422));
            lease().bury(DeadReason::Rejected, failure).unwrap();
        }
        store.purge(&key("s1", 1)).unwrap();
        store.redrive(&key("s1", 2)).unwrap();
        for _ in [2, 3] {
            lease().ack().unwrap();
        }
        let burial = store.inner.notes().burials[&key("s1", 0)].clone();
        assert_eq!(burial.note.segment != burial.at.segment, elsewhere);
        let slot = store.inner.slot(burial.at.segment).unwrap();
        let path = slot.segment.path.clone();
        drop(slot);
        store.close().unwrap();
        if removed {
            std::fs::remove_file(&path).unwrap();
        } else {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 2 * 4096], 0).unwrap();
        }
        let store = fixture.open();
        let report = store.fsck().unwrap();
        let named: Vec<_> = report.damaged.iter().filter_map(|it| it.sequence).collect();
        assert_eq!(named, [0, 4], "{elsewhere} {removed}");
        let outcome = |sequence| fixture.put(&store, "s1", sequence).unwrap().outcome;
        assert_eq!(outcome(0), Outcome::Accepted);
        assert_eq!(outcome(0), Outcome::Known(ChunkState::Live));
        assert_eq!(outcome(1), Outcome::Known(ChunkState::Purged));
        assert_eq!(outcome(2), Outcome::Known(ChunkState::Delivered));
        assert_eq!(outcome(3), Outcome::Known(ChunkState::Delivered));
        assert_eq!(outcome(4), Outcome::Accepted);
        store.close().unwrap();
        let store = fixture.open();
        let named: Vec<_> = store.fsck().unwrap().damaged;
        assert!(named.iter().all(|it| it.sequence.is_none()), "{named:?}");
        let given = [0, 4].map(|n| (n, payload_of("s1", n)));
        assert_eq!(drain(&store, "s1"), given);
        store.close().unwrap();
    }
}

/// A host without a service calls `enqueue` once a chunk: a segment each would be thousands a day.
#[test]
fn an_opening_goes_on_in_the_segment_of_one_that_was_closed_in_order() {
    let fixture = Fixture::new();
    let segments = || {
        std::fs::read_dir(fixture.dir().join("segments"))
            .unwrap()
            .count()
    };
    for sequence in 0..20 {
        let store = fixture.open();
        fixture.put(&store, "s1", sequence).unwrap();
        store.close().unwrap();
        assert_eq!(segments(), 1, "after {sequence}");
    }
    let store = fixture.open();
    fixture.put(&store, "s1", 20).unwrap();
    store.abandon();
    // What a killed process wrote is not gone on with.
    let store = fixture.open();
    fixture.put(&store, "s1", 21).unwrap();
    assert_eq!(segments(), 2);
    assert_eq!(
        drain(&store, "s1"),
        Vec::from_iter((0..22).map(|n| (n, payload_of("s1", n))))
    );
}

/// Its number once was given again, and the next opening removed what was accepted under it.
#[test]
fn a_segment_gets_no_number_of_one_that_the_last_ledger_did_not_know_yet() {
    let fixture = Fixture::new();
    let ledgers = ["ledger.a", "ledger.b"].map(|name| fixture.dir().join(name));
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    store.abandon();
    let older = ledgers.each_ref().map(|path| std::fs::read(path).unwrap());
    // Begun, emptied, and killed before any ledger told of it.
    let store = fixture.open();
    fixture.put(&store, "s2", 0).unwrap();
    assert_eq!(drain(&store, "s2").len(), 1);
    store.abandon();
    for (path, bytes) in ledgers.iter().zip(older) {
        std::fs::write(path, bytes).unwrap();
    }
    // Lets go of it at its end.
    fixture.open().close().unwrap();
    let store = fixture.open();
    fixture.put(&store, "s3", 0).unwrap();
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(drain(&store, "s3"), [(0, payload_of("s3", 0))]);
    let balance = store.view().balance;
    assert!(balance.balanced && balance.enqueued == 3, "{balance:?}");
}

/// The failed try once counted as the replacement, and the next one could not be told from a repeat.
#[test]
fn a_replacement_whose_sync_failed_may_be_tried_again() {
    let (store, disk, _dir) = simulated(settings());
    put(&store, "acme", "s1", b"bytes").unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.bury(crate::model::DeadReason::Damaged, None).unwrap();
    let again = || {
        let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(0));
        store.enqueue(chunk, &mut b"bytes".as_slice())
    };
    disk.fail_next_syncs(1_000_000);
    assert!(matches!(again(), Err(EnqueueError::Latched(_))));
    disk.fail_next_syncs(0);
    let answer = std::iter::repeat_with(again).find(|answer| {
        std::thread::yield_now();
        !matches!(answer, Err(EnqueueError::Latched(_)))
    });
    assert_eq!(answer.unwrap().unwrap().outcome, Outcome::Accepted);
    assert_eq!(drain(&store, "s1"), [(0, b"bytes".to_vec())]);
}
