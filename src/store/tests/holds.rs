//! Holds through housekeeping and crashes.

use super::support::Fixture;
use crate::model::Timestamp;
use crate::store::{HoldKey, StoredHold, keeper};

fn pause() -> StoredHold {
    StoredHold {
        key: HoldKey {
            tenant: "acme".parse().unwrap(),
            name: "operator:all".into(),
        },
        set_at: Timestamp(0),
        left: None,
        reason: "paused by an operator".to_owned(),
    }
}

/// Seen: a tenant that was resumed and paused again while the note of its resuming was carried into a younger segment
/// was not paused any more after the next start.
#[test]
fn a_hold_that_is_set_while_its_older_notes_are_carried_on_stays_in_force() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.put_hold(pause()).unwrap();
    store.remove_hold(&pause().key).unwrap();
    let (_, ended) = store.inner.notes().holds[&pause().key].clone();
    store.put_hold(pause()).unwrap();
    assert!(keeper::carry_note(&store.inner, ended));
    assert_eq!(store.holds(), [pause()]);
    fixture.abandon(store);
    assert_eq!(fixture.open().holds(), [pause()]);
}

#[test]
fn a_hold_that_is_carried_on_is_in_force_at_its_new_place() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.put_hold(pause()).unwrap();
    let (_, before) = store.inner.notes().holds[&pause().key].clone();
    assert!(keeper::carry_note(&store.inner, before));
    let (_, after) = store.inner.notes().holds[&pause().key].clone();
    assert_ne!(before, after);
    fixture.abandon(store);
    assert_eq!(fixture.open().holds(), [pause()]);
}
