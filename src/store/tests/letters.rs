//! Dead letters while housekeeping carries their notes on, and while two operators are at them.

use super::support::{Fixture, failure, key, session};
use crate::model::DeadReason;
use crate::store::{DeadFilter, Redriven, Store, keeper};

/// A dead letter in a session of its own.
fn bury(fixture: &Fixture, store: &Store, name: &str) {
    fixture.put(store, name, 0).unwrap();
    let lease = store.lease(&session(name)).unwrap().unwrap();
    lease
        .bury(DeadReason::Rejected, Some(failure(422)))
        .unwrap();
}

/// Backlog, dead letters, purged.
fn counts(store: &Store) -> (u64, u64, u64) {
    let balance = store.view().balance;
    assert!(balance.balanced);
    (balance.backlog, balance.dead, balance.purged)
}

/// Whoever is first: while a redrive waits for its note to be synced, the burial is still in force.
#[test]
fn a_burial_that_is_carried_on_while_its_letter_ends_does_not_come_back() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for round in 0..40 {
        let name = format!("s{round}");
        bury(&fixture, &store, &name);
        let note = store.inner.notes().burials[&key(&name, 0)].note;
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| match round % 2 {
                0 => store.redrive(&key(&name, 0)),
                _ => store.purge(&key(&name, 0)),
            });
            while store.inner.placing.try_write().is_ok() && !ending.is_finished() {}
            assert!(keeper::carry_note(&store.inner, note));
            assert_eq!(ending.join().unwrap().unwrap(), Redriven::Done);
        });
        let listed = store.dead(&DeadFilter::default()).unwrap();
        assert!(listed.is_empty(), "round {round}: {listed:?}");
    }
    assert_eq!(counts(&store), (20, 0, 20));
    fixture.abandon(store);
    assert_eq!(counts(&fixture.open()), (20, 0, 20));
}

#[test]
fn a_letter_that_two_redrive_at_once_is_owed_once() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for round in 0..20 {
        let name = format!("s{round}");
        bury(&fixture, &store, &name);
        let barrier = std::sync::Barrier::new(2);
        let redrive = || {
            barrier.wait();
            store.redrive(&key(&name, 0)).unwrap()
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(redrive);
            (redrive(), other.join().unwrap())
        });
        assert_ne!(one, two, "one of them was first");
        assert_eq!(store.inner.sessions().by_key[&session(&name)].owed, 1);
    }
    assert_eq!(counts(&store), (20, 0, 0));
}
