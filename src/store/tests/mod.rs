//! The store as a whole, over real files.

mod confirming;
mod damage;
mod faults;
mod fsck;
mod holds;
mod housekeeping;
mod letters;
mod model;
mod moving;
mod remembering;
mod reserve;
mod sharing;
mod support;
mod transfer;

use std::time::Duration;

use crate::model::{ChunkState, DeadReason};
use crate::store::{DeadFilter, EnqueueError, Outcome, Redriven, SequenceChoice};
use support::{Fixture, drain, key, new_chunk, payload_of, session};

#[test]
fn what_was_accepted_is_leased_in_order_and_byte_for_byte() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in [0, 1, 2] {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    assert_eq!(
        drain(&store, "s1"),
        [0, 1, 2].map(|n| (n, payload_of("s1", n)))
    );
    assert!(store.lease(&session("s1")).unwrap().is_none());
    let balance = store.view().balance;
    assert_eq!(
        (balance.enqueued, balance.delivered, balance.balanced),
        (3, 3, true)
    );
}

#[test]
fn a_store_that_is_dropped_like_a_killed_process_keeps_everything() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in 0..5 {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease.ack().unwrap();
    fixture.abandon(store);
    let store = fixture.open();
    assert_eq!(store.head(&session("s1")).unwrap().unwrap().sequence, 1);
    assert_eq!(drain(&store, "s1").len(), 4);
}

#[test]
fn a_backlog_of_many_parts_is_as_old_as_its_oldest_and_as_young_as_its_newest_chunk() {
    let fixture = Fixture::new();
    let store = fixture.open();
    // More rows than the index reads in one part, and another tenant behind them.
    for session in 0..150 {
        fixture.put(&store, &format!("s{session:03}"), 0).unwrap();
    }
    let other = new_chunk("globex", "s0", SequenceChoice::Exactly(0));
    store.enqueue(other, &mut &b"bytes"[..]).unwrap();
    let accepted = |session: &str| {
        let head = store.head(&self::session(session)).unwrap();
        head.unwrap().accepted_at
    };
    let (oldest, newest) = (accepted("s000"), accepted("s149"));
    let view = store.view();
    let acme = &view
        .tenants
        .iter()
        .find(|(t, _)| t.as_str() == "acme")
        .unwrap()
        .1;
    assert_eq!((acme.oldest, acme.newest), (Some(oldest), Some(newest)));
    drain(&store, "s000");
    store.close().unwrap();
    let view = fixture.open().view();
    let acme = &view
        .tenants
        .iter()
        .find(|(t, _)| t.as_str() == "acme")
        .unwrap()
        .1;
    assert!(acme.oldest > Some(oldest) && acme.newest == Some(newest));
}

#[test]
fn a_clean_close_leaves_nothing_of_a_drained_backlog_but_the_ledger() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in 0..3 {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    drain(&store, "s1");
    store.close().unwrap();
    let left: Vec<_> = std::fs::read_dir(fixture.dir().join("segments"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let store = fixture.open();
    assert_eq!(store.view().balance.delivered, 3);
    let next = fixture.put_next(&store, "s1", b"more").unwrap();
    assert_eq!(next.key.sequence, 3);
    let again = fixture.put(&store, "s1", 1).unwrap();
    assert_eq!(again.outcome, Outcome::Known(ChunkState::Delivered));
}

#[test]
fn the_same_key_is_known_with_the_same_bytes_and_a_conflict_with_others() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 7).unwrap();
    let again = fixture.put(&store, "s1", 7).unwrap();
    assert_eq!(again.outcome, Outcome::Known(ChunkState::Live));
    let other = fixture.put_bytes(&store, "s1", SequenceChoice::Exactly(7), b"other");
    let message = other.unwrap_err().to_string();
    assert!(
        message.starts_with("session s1 sequence 7 exists with other bytes"),
        "{message}"
    );
    assert_eq!(store.view().balance.enqueued, 1);
}

#[test]
fn a_repeat_without_a_sequence_is_refused_until_it_is_asked_for() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put_next(&store, "s1", b"first").unwrap();
    let next = |refuse_repeat| {
        fixture.put_bytes(
            &store,
            "s1",
            SequenceChoice::Next { refuse_repeat },
            b"first",
        )
    };
    assert!(matches!(
        next(true),
        Err(EnqueueError::Repeat { sequence: 0, .. })
    ));
    assert_eq!(next(false).unwrap().key.sequence, 1);
}

#[test]
fn a_dead_letter_keeps_its_reason_and_history_through_restarts_and_comes_back() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    fixture.put(&store, "s1", 1).unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    lease
        .nack(Duration::ZERO, true, Some(support::failure(503)))
        .unwrap();
    let lease = store.lease(&session("s1")).unwrap().unwrap();
    assert_eq!(lease.head().failures, 1);
    lease
        .bury(DeadReason::Rejected, Some(support::failure(422)))
        .unwrap();
    fixture.abandon(store);
    let store = fixture.open();
    let dead = store.dead(&DeadFilter::default()).unwrap();
    assert_eq!(dead.len(), 1);
    let statuses: Vec<_> = dead[0].history.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [Some(503), Some(422)]);
    let head = store.head(&session("s1")).unwrap().unwrap();
    assert_eq!(head.sequence, 1);
    assert_eq!(store.redrive(&key("s1", 0)).unwrap(), Redriven::Done);
    assert_eq!(store.redrive(&key("s1", 0)).unwrap(), Redriven::NotDead);
    assert_eq!(drain(&store, "s1").len(), 2);
    assert!(store.dead(&DeadFilter::default()).unwrap().is_empty());
    let balance = store.view().balance;
    assert_eq!(
        (balance.delivered, balance.dead, balance.balanced),
        (2, 0, true)
    );
}

#[test]
fn a_large_payload_has_a_file_of_its_own_that_goes_with_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let payload: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7) as u8).collect();
    fixture.put_next(&store, "s1", &payload).unwrap();
    let solos = || {
        let names = std::fs::read_dir(fixture.dir().join("segments")).unwrap();
        names
            .filter(|e| e.as_ref().unwrap().path().extension().unwrap() == "solo")
            .count()
    };
    assert_eq!(solos(), 1);
    assert_eq!(drain(&store, "s1"), [(0, payload)]);
    store.close().unwrap();
    assert_eq!(solos(), 0);
}
