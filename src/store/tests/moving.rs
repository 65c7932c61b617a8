//! Space that comes back although something is still owed beside it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::support::{
    Fixture, drain, failure, key, new_chunk, payload_of, seed, session, settings,
};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::model::{ChunkState, DeadReason, SessionKey};
use crate::store::inner::SegmentSlot;
use crate::store::record::Burial;
use crate::store::{
    DeadFilter, HoldKey, Redriven, SequenceChoice, Settings, Store, StoredHold, keeper, moving,
};

fn open(dir: &Path, disk: &SimulatedDisk) -> Store {
    let on = Arc::new(disk.clone());
    Store::open_on(dir, settings(), Arc::new(SystemClock), on).unwrap()
}

fn put(store: &Store, tenant: &str, name: &str, sequence: u64, bytes: &[u8]) {
    let chunk = new_chunk(tenant, name, SequenceChoice::Exactly(sequence));
    let mut bytes = bytes;
    store.enqueue(chunk, &mut bytes).unwrap();
}

fn inactive(store: &Store) -> Vec<Arc<SegmentSlot>> {
    let active = *store.inner.active.lock().unwrap();
    let segments = store.inner.segments();
    let others = segments.iter().filter(|(id, _)| Some(**id) != active);
    others.map(|(_, slot)| Arc::clone(slot)).collect()
}

/// Moves everything out of every segment but the active one, whatever it gains.
fn move_all(store: &Store) {
    for slot in inactive(store) {
        moving::empty(&store.inner, &slot).unwrap();
    }
}

fn housekeeping(store: &Store) {
    moving::reclaim(&store.inner).unwrap();
    keeper::round(&store.inner).unwrap();
}

/// What a person would compare of a head: everything that is known of a chunk.
fn all_of(store: &Store, name: &SessionKey) -> Vec<String> {
    let mut found = Vec::new();
    let mut leases = Vec::new();
    let mut next = store.lease(name).unwrap();
    while let Some(lease) = next {
        let mut bytes = Vec::new();
        lease.payload().unwrap().read_to_end(&mut bytes).unwrap();
        let head = lease.head();
        found.push(format!(
            "{:?} {} {:?} {} {} {:?}",
            lease.meta(),
            head.number,
            head.accepted_at,
            head.failures,
            head.crashes,
            blake3::hash(&bytes)
        ));
        next = lease.following(|_, _| true).unwrap();
        leases.push(lease);
    }
    found
}

#[test]
fn a_blocked_tenant_with_a_little_of_the_traffic_never_fills_the_disk_of_the_others() {
    const CHUNK: usize = 50_000;
    let fixture = Fixture::new();
    let few = Settings {
        max_bytes: 12 << 20,
        ..settings()
    };
    let store = fixture.open_with(few.clone());
    let globex: SessionKey = SessionKey {
        tenant: "globex".parse().unwrap(),
        session: "s1".parse().unwrap(),
    };
    let mut most = 0;
    // Ten times the quota passes; one chunk in 100 is never delivered.
    for n in 0..2400u64 {
        if n % 100 == 0 {
            put(&store, "globex", "s1", n / 100, &[n as u8; CHUNK]);
        } else {
            put(&store, "acme", "s1", n, &[7; CHUNK]);
        }
        if n % 20 == 19 {
            while let Some(lease) = store.lease(&session("s1")).unwrap() {
                lease.ack().unwrap();
            }
            housekeeping(&store);
            most = most.max(store.view().used_bytes);
        }
    }
    println!("at most {most} bytes were used");
    let owed = 24 * CHUNK as u64;
    assert!(most < owed + 6 * few.segment_bytes, "{most} bytes used");
    fixture.abandon(store);
    let store = fixture.open_with(few);
    let mut sequence = 0;
    while let Some(lease) = store.lease(&globex).unwrap() {
        let mut bytes = Vec::new();
        lease.payload().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(lease.meta().key.sequence, sequence);
        assert!(bytes == [(sequence * 100) as u8; CHUNK], "{sequence}");
        lease.ack().unwrap();
        sequence += 1;
    }
    let balance = store.view().balance;
    let counts = (balance.enqueued, balance.delivered, balance.balanced);
    assert_eq!((sequence, counts), (24, (2400, 2400, true)));
}

/// A store whose oldest segment holds chunks in every state, and a younger one to move to.
fn prepared(store: &Store) {
    for sequence in 0..6 {
        put(store, "acme", "s1", sequence, &payload_of("s1", sequence));
    }
    // One with a file of its own.
    put(store, "acme", "s2", 0, &[5; 300_000]);
    put(store, "acme", "s2", 1, b"behind it");
    put(store, "acme", "s3", 0, b"dead");
    put(store, "acme", "s4", 0, b"confirming");
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.ack().unwrap();
    for _ in 0..2 {
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        let again = lease.nack(Duration::from_secs(3600), true, Some(failure(503)));
        again.unwrap();
    }
    let lease = store.lease(&session("s3")).unwrap().unwrap();
    lease
        .bury(DeadReason::Rejected, Some(failure(422)))
        .unwrap();
    let lease = store.lease(&session("s4")).unwrap().unwrap();
    lease.confirm().unwrap();
}

/// One line a fact that must survive a move.
fn facts(store: &Store) -> Vec<String> {
    let mut facts = Vec::new();
    for name in ["s1", "s2"] {
        facts.extend(all_of(store, &session(name)));
    }
    let head = store.head(&session("s1")).unwrap().unwrap();
    let history = store.history(&key("s1", head.sequence)).unwrap();
    let waits = head.ready_in > Duration::from_secs(1800);
    facts.push(format!("{history:?} {waits}"));
    facts.push(format!("{:?}", store.dead(&DeadFilter::default()).unwrap()));
    let acme = "acme".parse().unwrap();
    let confirming = store.confirming(&acme, None, 9).unwrap();
    let confirming: Vec<_> = confirming.iter().map(|it| it.meta.clone()).collect();
    facts.push(format!("{confirming:?} {:?}", store.view().balance));
    facts
}

#[test]
fn a_moved_chunk_keeps_everything_that_was_known_of_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    prepared(&store);
    // A crash on the wire is counted by the next opening, which begins a segment of its own.
    let mut lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.sending().unwrap();
    std::mem::forget(lease);
    fixture.abandon(store);
    let store = fixture.open();
    put(&store, "acme", "s9", 0, b"begins the next segment");
    let before = facts(&store);
    assert!(before[0].contains(" 2 1 "), "failures, crashes: {before:?}");
    let old = inactive(&store);
    assert_eq!((old.len(), old[0].book().owed()), (1, 9));
    move_all(&store);
    assert_eq!(old[0].book().owed(), 0);
    assert_eq!(facts(&store), before);
    keeper::round(&store.inner).unwrap();
    assert!(!old[0].segment.path.exists() && inactive(&store).is_empty());
    assert_eq!(facts(&store), before);
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(facts(&store), before);
    fixture.abandon(store);
    std::fs::remove_dir_all(fixture.dir().join("index")).unwrap();
    let store = fixture.open();
    // Delays and the history of what lives stand in the index alone.
    let after = facts(&store);
    assert_eq!((&after[..7], &after[8..]), (&before[..7], &before[8..]));
    assert_eq!(store.redrive(&key("s3", 0)).unwrap(), Redriven::Done);
    assert_eq!(drain(&store, "s3"), [(0, b"dead".to_vec())]);
}

/// Seen: the burial that an opening owed was written after the one that a move had written, and named the place that the
/// chunk had left. Once that was unlinked the dead letter could be neither redriven nor read.
#[test]
fn a_burial_that_is_owed_does_not_bring_a_moved_letter_back_to_where_it_was() {
    let fixture = Fixture::new();
    let store = fixture.open();
    prepared(&store);
    fixture.abandon(store);
    let store = fixture.open();
    put(&store, "acme", "s9", 0, b"begins the next segment");
    let letter = key("s3", 0);
    let known = store.inner.notes().burials[&letter].clone();
    store.inner.owe_burial(Burial {
        at: known.at,
        version: known.version,
        tenant: letter.tenant.clone(),
        session: letter.session.clone(),
        sequence: letter.sequence,
        reason: known.reason,
        died_at: known.died_at,
        history: Vec::new(),
    });
    move_all(&store);
    keeper::round(&store.inner).unwrap();
    assert!(inactive(&store).is_empty(), "everything was moved");
    assert_ne!(
        store.inner.notes().burials[&letter].at.segment,
        known.at.segment
    );
    assert_eq!(store.redrive(&letter).unwrap(), Redriven::Done);
    assert_eq!(drain(&store, "s3"), [(0, b"dead".to_vec())]);
}

#[test]
fn a_leased_chunk_stays_and_its_lease_with_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    prepared(&store);
    fixture.abandon(store);
    let store = fixture.open();
    put(&store, "acme", "s9", 0, b"begins the next segment");
    let old = inactive(&store);
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    drop(store.take_arrivals());
    move_all(&store);
    // The session that is out with a lease, and nothing else.
    assert_eq!(old[0].book().owed(), 5);
    keeper::round(&store.inner).unwrap();
    let mut bytes = Vec::new();
    lease.payload().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, payload_of("s1", 1));
    lease.ack().unwrap();
    // Whoever found a session taken meanwhile looks again.
    assert!(store.take_arrivals().contains(&session("s2")));
    move_all(&store);
    assert_eq!(old[0].book().owed(), 0);
    let left: Vec<_> = drain(&store, "s1").into_iter().map(|(n, _)| n).collect();
    assert_eq!(left, [2, 3, 4, 5]);
}

#[test]
fn damage_is_not_copied_and_keeps_its_segment() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in 0..3 {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    fixture.abandon(store);
    let store = fixture.open();
    put(&store, "acme", "s9", 0, b"begins the next segment");
    let old = inactive(&store);
    let segment = &old[0].segment;
    let head = segment
        .read_frame(segment.layout.data_start() as u32)
        .unwrap();
    let at = head.payload_at() + 50;
    segment.file().unwrap().write_at(&[&[0xff; 9]], at).unwrap();
    move_all(&store);
    assert_eq!(old[0].book().owed(), 1);
    keeper::round(&store.inner).unwrap();
    assert!(segment.path.exists());
    // It is not tried again, and found when its turn comes.
    housekeeping(&store);
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    let read = lease.payload().unwrap().read_to_end(&mut Vec::new());
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    lease.bury(DeadReason::Damaged, None).unwrap();
    assert_eq!(drain(&store, "s1").len(), 2);
}

/// The power goes at every single change of a move in turn.
#[test]
fn a_move_that_the_power_interrupts_anywhere_neither_loses_nor_doubles() {
    let seed = seed();
    println!("seed {seed}");
    let (mut cuts, mut doubled) = (0, 0);
    for operations in 0.. {
        let disk = SimulatedDisk::new(seed + u64::from(operations));
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &disk);
        prepared(&store);
        store.abandon();
        let store = open(dir.path(), &disk);
        put(&store, "acme", "s9", 0, b"begins the next segment");
        let before = facts(&store);
        // An ack that is not synced may be lost, and that is another matter.
        keeper::round(&store.inner).unwrap();
        disk.cut_power_after(operations);
        let old = inactive(&store);
        let _ = moving::empty(&store.inner, &old[0]);
        let _ = keeper::round(&store.inner);
        let refused = disk.faults().operations_refused;
        store.abandon();
        disk.restart_after_power_cut();
        let store = open(dir.path(), &disk);
        let live = |slot: &Arc<SegmentSlot>| {
            let book = slot.book();
            (book.moved, book.owed())
        };
        let books: Vec<_> = store.inner.segments().values().map(live).collect();
        doubled += u32::from(books.iter().any(|(moved, owed)| *moved > 0 && *owed > 0));
        let after = facts(&store);
        // What stands in the index alone may have gone with it.
        assert_eq!(after[..7], before[..7], "{operations}: {books:?}");
        assert_eq!(after[8..], before[8..], "{operations}: {books:?}");
        move_all(&store);
        keeper::round(&store.inner).unwrap();
        for name in ["s1", "s2"] {
            drain(&store, name);
        }
        let balance = store.view().balance;
        let counts = (balance.enqueued, balance.delivered, balance.dead);
        assert_eq!((counts, balance.balanced), ((11, 8, 1), true));
        store.close().unwrap();
        let again = open(dir.path(), &disk).view().balance;
        assert_eq!(again, balance, "{operations}");
        if refused == 0 {
            break;
        }
        cuts += 1;
    }
    println!("{cuts} cuts, {doubled} of them left a move half done");
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_full_drain_leaves_one_segment_without_any_further_enqueue() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    // Each opening leaves a segment, and each has a note in force.
    for round in 0..5 {
        for sequence in 0..30 {
            let bytes = vec![7; 60_000];
            put(&store, "acme", "s1", round * 30 + sequence, &bytes);
        }
        let key = HoldKey {
            tenant: "globex".parse().unwrap(),
            name: format!("operator:{round}"),
        };
        let hold = StoredHold {
            key,
            set_at: crate::model::Timestamp(0),
            left: None,
            reason: "because".into(),
        };
        store.put_hold(hold).unwrap();
        fixture.abandon(store);
        store = fixture.open();
    }
    assert_eq!(drain(&store, "s1").len(), 150);
    housekeeping(&store);
    let names = std::fs::read_dir(fixture.dir().join("segments")).unwrap();
    let lengths: Vec<_> = names
        .map(|it| it.unwrap().metadata().unwrap().len())
        .collect();
    assert!(lengths.len() == 1 && lengths[0] <= 1 << 20, "{lengths:?}");
    assert_eq!(store.holds().len(), 5);
    store.close().unwrap();
    assert_eq!(fixture.open().holds().len(), 5);
}

#[test]
fn the_index_knows_a_moved_chunk_once() {
    let fixture = Fixture::new();
    let store = fixture.open();
    prepared(&store);
    let acme = "acme".parse().unwrap();
    let owed = store.owed_through(&acme, u64::MAX).unwrap();
    fixture.abandon(store);
    let store = fixture.open();
    put(&store, "acme", "s9", 0, b"begins the next segment");
    move_all(&store);
    assert_eq!(store.owed_through(&acme, u64::MAX).unwrap(), owed + 1);
    let again = fixture.put(&store, "s1", 3).unwrap().outcome;
    assert_eq!(again, crate::store::Outcome::Known(ChunkState::Live));
    let books: BTreeMap<_, _> = store
        .inner
        .segments()
        .iter()
        .map(|(id, slot)| (id.0, slot.book().moved))
        .collect();
    assert_eq!(books.values().sum::<u64>(), 9, "{books:?}");
    store.close().unwrap();
    // A clean close left an index that fits: it is not made anew.
    assert!(!fixture.open().inner.index_rebuilt);
}
