//! A backlog moves with its identity and its order; whatever is wrong with a stream is found; repeating is safe.

use std::collections::BTreeMap;
use std::io::Read;

use super::support::{Fixture, drain, failure, key, payload_of, seed, session, settings};
use crate::model::{ChunkState, DeadReason};
use crate::store::transfer::wire::{Chunk, Entry, Fault, Reader};
use crate::store::{
    DeadFilter, EnqueueError, ImportError, ImportFault, Imported, Outcome, SequenceChoice,
    SessionFilter, Settings, Store,
};

const NAMES: [&str; 2] = ["s1", "s2"];

fn elsewhere() -> Settings {
    Settings {
        host: "rec-018".parse().unwrap(),
        ..settings()
    }
}

fn exported(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    let told = store.export(&mut bytes, &mut |_, _| {}).unwrap();
    assert!(told.left_out.is_empty(), "{told:?}");
    bytes
}

fn imported(store: &Store, mut bytes: &[u8]) -> Result<Imported, Box<ImportError>> {
    store.import(&mut bytes, &mut |_, _| {})
}

/// Twelve chunks, one of them in a file of its own; three settled, one of those dead.
fn backlog(store: &Store, fixture: &Fixture) {
    for sequence in 0..5 {
        for name in NAMES {
            fixture.put(store, name, sequence).unwrap();
        }
    }
    let large = vec![7; 700_000];
    fixture
        .put_bytes(store, "s1", SequenceChoice::Exactly(7), &large)
        .unwrap();
    fixture
        .put_bytes(store, "s1", SequenceChoice::Exactly(8), &[1; 200_000])
        .unwrap();
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease
        .bury(DeadReason::Rejected, Some(failure(422)))
        .unwrap();
    store.lease(&session("s2")).unwrap().unwrap().ack().unwrap();
    store
        .end_session(&session("s2"), crate::model::Timestamp(99))
        .unwrap();
    store.promote(&session("s1")).unwrap();
    store
        .pin_organisation(&"acme".parse().unwrap(), "org-1")
        .unwrap();
}

fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::begin(&mut bytes).unwrap();
    let mut entries = Vec::new();
    loop {
        let entry = reader.entry().unwrap();
        if let Entry::Chunk(chunk) = &entry {
            reader.payload(chunk).finish().unwrap();
        }
        let ended = matches!(entry, Entry::End(_));
        entries.push(entry);
        if ended {
            return entries;
        }
    }
}

fn chunks(entries: &[Entry]) -> Vec<Chunk> {
    let chunks = entries.iter().filter_map(|entry| match entry {
        Entry::Chunk(chunk) => Some((**chunk).clone()),
        _ => None,
    });
    chunks.collect()
}

#[test]
fn a_backlog_arrives_with_its_identity_and_its_order() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let store = here.open();
    backlog(&store, &here);
    let bytes = exported(&store);
    let (dead, sessions) = (store.dead(&DeadFilter::default()).unwrap(), {
        let filter = SessionFilter {
            limit: 10,
            ..SessionFilter::default()
        };
        move |store: &Store| {
            let list = store.sessions(&filter).sessions.into_iter();
            list.map(|mut summary| {
                // Since when nothing changed is this store's own affair.
                summary.changed_at = crate::model::Timestamp(0);
                summary
            })
            .collect::<Vec<_>>()
        }
    });
    let other = there.open_with(elsewhere());
    let told = imported(&other, &bytes).unwrap();
    assert_eq!(
        (told.chunks, told.dead, told.known, told.refused),
        (10, 1, 0, 0)
    );
    assert_eq!(
        told.from.as_ref().map(|host| host.as_str()),
        Some("rec-017")
    );
    // Word for word what was exported, but for whose store it was.
    assert_eq!(entries(&exported(&other))[1..], entries(&bytes)[1..]);
    for reopened in [false, true] {
        let other = match reopened {
            false => other.clone(),
            true => there.open_with(elsewhere()),
        };
        assert_eq!(other.dead(&DeadFilter::default()).unwrap(), dead);
        assert_eq!(sessions(&other), sessions(&store));
        assert_eq!(
            other.organisation(&"acme".parse().unwrap()).as_deref(),
            Some("org-1")
        );
        let balance = other.view().balance;
        assert!(balance.balanced && balance.enqueued == 10, "{balance:?}");
        let head = other.head(&session("s1")).unwrap().unwrap();
        // 0 was delivered there, 1 died there.
        assert_eq!((head.sequence, head.gaps.len()), (2, 1));
        other.close().unwrap();
    }
    let other = there.open_with(elsewhere());
    let lease = other.lease(&session("s1")).unwrap().unwrap();
    assert_eq!(lease.meta().host.as_str(), "rec-017");
    drop(lease);
    // "next" goes on where the other host ended.
    let next = there.put_next(&other, "s1", b"more").unwrap();
    assert_eq!(next.key.sequence, 9);
    for name in NAMES {
        for (sequence, bytes) in drain(&other, name) {
            if sequence < 5 {
                assert!(bytes == payload_of(name, sequence), "{name}/{sequence}");
            }
        }
    }
    assert_eq!(other.view().balance.backlog, 0);
}

#[test]
fn an_import_repeated_changes_nothing_and_knows_everything() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let store = here.open();
    backlog(&store, &here);
    let bytes = exported(&store);
    let other = there.open_with(elsewhere());
    imported(&other, &bytes).unwrap();
    // Delivered, redriven: a repeat takes none of it back.
    drain(&other, "s2");
    other.redrive(&key("s1", 1)).unwrap();
    let told = imported(&other, &bytes).unwrap();
    assert_eq!((told.chunks, told.known, told.refused), (0, 10, 0));
    assert_eq!(other.dead(&DeadFilter::default()).unwrap(), []);
    assert_eq!(other.head(&session("s1")).unwrap().unwrap().sequence, 1);
    let known = there.put(&other, "s2", 3).unwrap();
    assert_eq!(known.outcome, Outcome::Known(ChunkState::Delivered));
    assert!(other.view().balance.balanced);
}

#[test]
fn other_bytes_under_the_same_name_are_refused_and_the_rest_arrives() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let store = here.open();
    backlog(&store, &here);
    let bytes = exported(&store);
    let other = there.open_with(elsewhere());
    there
        .put_bytes(&other, "s1", SequenceChoice::Exactly(3), b"others")
        .unwrap();
    let told = imported(&other, &bytes).unwrap();
    assert_eq!((told.chunks, told.refused), (9, 1));
    assert_eq!(told.named[0].sequence, Some(3));
    assert!(matches!(told.named[0].error, EnqueueError::Conflict { .. }));
    let lonely = Fixture::new();
    let tenants = vec!["globex".parse().unwrap()];
    let foreign = lonely.open_with(Settings {
        tenants,
        ..elsewhere()
    });
    let told = imported(&foreign, &bytes).unwrap();
    assert_eq!((told.chunks, told.refused, told.sessions), (0, 10, 0));
    assert!(matches!(
        told.named[0].error,
        EnqueueError::UnknownTenant { .. }
    ));
}

#[test]
fn a_stream_that_was_cut_or_changed_anywhere_is_refused_and_can_be_repeated() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let here = Fixture::new();
    let store = here.open();
    backlog(&store, &here);
    let bytes = exported(&store);
    let whole: BTreeMap<_, _> = chunks(&entries(&bytes))
        .into_iter()
        .map(|chunk| (chunk.key(), chunk))
        .collect();
    let mut outcomes = [0; 2];
    for round in 0..40 {
        let mut torn = bytes.clone();
        if round % 2 == 0 {
            // Now and then before the first chunk is whole.
            let most = if round % 8 == 0 { 500 } else { bytes.len() };
            torn.truncate(random.usize(..most));
        } else {
            torn[random.usize(..bytes.len())] ^= 1 << random.u32(..8);
        }
        let there = Fixture::new();
        let other = there.open_with(elsewhere());
        let error = imported(&other, &torn).unwrap_err();
        let newer = matches!(error.fault, ImportFault::Stream(Fault::Newer { .. }));
        assert!(error.fault.is_damage() || newer, "{error:?}, seed {seed}");
        let before = error.done.chunks;
        outcomes[usize::from(before > 0)] += 1;
        let told = imported(&other, &bytes).unwrap();
        assert_eq!(told.chunks + before, 10, "seed {seed}, round {round}");
        assert_eq!(told.known, before, "seed {seed}, round {round}");
        let again = chunks(&entries(&exported(&other)));
        assert_eq!(again.len(), whole.len());
        for chunk in again {
            // One whose death was cut off is alive; nothing else may differ.
            let death = chunk.death.clone();
            let expected = Chunk {
                death,
                ..whole[&chunk.key()].clone()
            };
            assert_eq!(chunk, expected, "seed {seed}, round {round}");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    let mut longer = bytes.clone();
    longer.push(0);
    let there = Fixture::new();
    let error = imported(&there.open_with(elsewhere()), &longer).unwrap_err();
    assert!(
        error.to_string().contains("goes on after its end"),
        "{error}"
    );
}

/// Each frame is good on its own; only their order and number say that something is wrong.
#[test]
fn frames_of_another_export_or_place_are_no_part_of_a_stream() {
    let here = Fixture::new();
    let store = here.open();
    fixture_of_equals(&store, &here);
    let (one, two) = (exported(&store), exported(&store));
    assert_eq!(one.len(), two.len());
    let half = one.len() / 2;
    let spliced = [&one[..half], &two[half..]].concat();
    let there = Fixture::new();
    let error = imported(&there.open_with(elsewhere()), &spliced).unwrap_err();
    assert!(error.fault.is_damage(), "{error:?}");
}

fn fixture_of_equals(store: &Store, fixture: &Fixture) {
    for sequence in 0..4 {
        fixture
            .put_bytes(store, "s1", SequenceChoice::Exactly(sequence), &[1; 1000])
            .unwrap();
    }
}

#[test]
fn a_full_store_ends_the_import_and_keeps_what_it_took() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let store = here.open();
    backlog(&store, &here);
    let bytes = exported(&store);
    let narrow = |max_bytes| Settings {
        max_bytes,
        ..elsewhere()
    };
    let other = there.open_with(narrow(400_000));
    let error = imported(&other, &bytes).unwrap_err();
    let refused = matches!(error.fault, ImportFault::Refused(EnqueueError::Full(_)));
    assert!(refused, "{error:?}");
    let before = error.done.chunks;
    assert!(before > 0);
    other.close().unwrap();
    let other = there.open_with(narrow(1 << 30));
    let told = imported(&other, &bytes).unwrap();
    assert_eq!((told.chunks + before, told.known), (10, before));
}

#[test]
fn what_does_not_read_back_is_left_out_and_named() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let store = here.open();
    backlog(&store, &here);
    let segment = store.inner.segments().values().next().cloned().unwrap();
    let lease = store.lease(&session("s2")).unwrap().unwrap();
    assert_eq!(lease.meta().key.sequence, 1);
    let mut whole = Vec::new();
    lease.payload().unwrap().read_to_end(&mut whole).unwrap();
    let path = &segment.segment.path;
    let mut file = std::fs::read(path).unwrap();
    let at = file.windows(whole.len()).position(|bytes| bytes == whole);
    file[at.unwrap() + 3] ^= 1;
    std::fs::write(path, file).unwrap();
    let mut bytes = Vec::new();
    let told = store.export(&mut bytes, &mut |_, _| {}).unwrap();
    assert_eq!((told.chunks, told.left_out.len()), (9, 1), "{told:?}");
    assert_eq!(told.left_out[0].sequence, Some(1));
    let other = there.open_with(elsewhere());
    assert_eq!(imported(&other, &bytes).unwrap().chunks, 9);
    // It was not accepted there, so its source may give it.
    let given = there.put(&other, "s2", 1).unwrap();
    assert_eq!(given.outcome, Outcome::Accepted);
}
