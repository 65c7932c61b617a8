//! Chunks that are stored at their platform and not yet taken in.

use crate::store::tests::support::{Fixture, drain, failure, key, payload_of, session};
use crate::store::{Confirming, Outcome, Store};

const LIMIT: usize = 3;

fn listed(store: &Store) -> Vec<Confirming> {
    let tenant = session("s1").tenant;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.confirming(&tenant, after, LIMIT).unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.place);
        all.extend(page);
    }
}

fn confirm_all(store: &Store) {
    while let Some(lease) = store.lease(&session("s1")).unwrap() {
        lease.confirm().unwrap();
    }
}

fn sequences(chunks: &[Confirming]) -> Vec<u64> {
    chunks.iter().map(|chunk| chunk.meta.key.sequence).collect()
}

#[test]
fn they_are_out_of_the_queue_and_stay_through_a_kill_and_a_close() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for sequence in 0..7 {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    confirm_all(&store);
    for closes in [false, true] {
        assert!(store.lease(&session("s1")).unwrap().is_none());
        assert_eq!(sequences(&listed(&store)), [0, 1, 2, 3, 4, 5, 6]);
        let balance = store.view().balance;
        assert_eq!((balance.backlog, balance.delivered), (7, 0));
        assert!(balance.balanced);
        if closes {
            store.close().unwrap();
        } else {
            fixture.abandon(store);
        }
        store = fixture.open();
    }
    let repeated = fixture.put(&store, "s1", 3).unwrap();
    assert!(matches!(repeated.outcome, Outcome::Known(_)));
}

#[test]
fn one_that_was_taken_in_is_delivered_once() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.put(&store, "s1", 0).unwrap();
    confirm_all(&store);
    let chunk = listed(&store).remove(0);
    store.confirmed(&chunk).unwrap();
    store.confirmed(&chunk).unwrap();
    store.unconfirmed(&chunk, failure(500)).unwrap();
    assert!(store.lease(&session("s1")).unwrap().is_none());
    let balance = store.view().balance;
    assert_eq!((balance.delivered, balance.backlog), (1, 0));
    assert!(balance.balanced);
}

#[test]
fn one_that_was_not_taken_in_is_owed_again_late_and_with_a_retry_used() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in 0..3 {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    confirm_all(&store);
    store.unconfirmed(&listed(&store)[1], failure(500)).unwrap();
    let head = store.head(&session("s1")).unwrap().unwrap();
    assert_eq!((head.sequence, head.failures, head.late), (1, 1, true));
    assert_eq!(store.history(&key("s1", 1)).unwrap().len(), 1);
    fixture.abandon(store);

    let store = fixture.open();
    assert_eq!(sequences(&listed(&store)), [0, 2]);
    assert_eq!(drain(&store, "s1"), [(1, payload_of("s1", 1))]);
    let balance = store.view().balance;
    assert_eq!((balance.delivered, balance.backlog), (1, 2));
    assert!(balance.balanced);
}
