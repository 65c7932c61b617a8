//! What the ledger remembers when segments and index are gone: ends of sessions, organisations, and for how long.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::{Fixture, drain, key, new_chunk, session, settings};
use crate::clock::{Clock, Instant, SystemClock};
use crate::disk::simulated::SimulatedDisk;
use crate::model::{DeadReason, SessionKey, TenantId, Timestamp};
use crate::sabotage::{Sabotage, Sabotaged};
use crate::store::{
    Ending, Promotion, SequenceChoice, SessionFilter, SessionSummary, Settings, Store, StoreError,
    keeper,
};

fn summary(store: &Store, name: &str) -> Option<SessionSummary> {
    let SessionKey { tenant, session } = session(name);
    let found = store.sessions(&SessionFilter {
        tenant: Some(tenant),
        session: Some(session),
        owed: false,
        limit: 1,
    });
    found.sessions.into_iter().next()
}

fn ended(store: &Store, name: &str) -> Option<Timestamp> {
    summary(store, name).and_then(|summary| summary.ended_at)
}

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("segments")).unwrap().count()
}

#[test]
fn an_end_is_durable_when_it_is_answered_and_outlives_segments_index_and_one_ledger() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert_eq!(
        store.end_session(&session("s1"), Timestamp(5)).unwrap(),
        Ending::Unknown
    );
    fixture.put(&store, "s1", 0).unwrap();
    fixture.put(&store, "s2", 0).unwrap();
    assert_eq!(
        store.end_session(&session("s1"), Timestamp(5)).unwrap(),
        Ending::Ended
    );
    assert_eq!(
        store.end_session(&session("s1"), Timestamp(9)).unwrap(),
        Ending::EndedBefore(Timestamp(5))
    );
    fixture.abandon(store);
    let store = fixture.open();
    assert_eq!(
        (ended(&store, "s1"), ended(&store, "s2")),
        (Some(Timestamp(5)), None)
    );
    drain(&store, "s1");
    drain(&store, "s2");
    store.close().unwrap();
    assert_eq!(segments(fixture.dir()), 0);
    std::fs::remove_dir_all(fixture.dir().join("index")).unwrap();
    std::fs::remove_file(fixture.dir().join("ledger.b")).unwrap();
    let store = fixture.open();
    assert_eq!(
        (ended(&store, "s1"), ended(&store, "s2")),
        (Some(Timestamp(5)), None)
    );
}

#[test]
fn the_last_chunk_ends_its_session_and_what_comes_late_is_delivered_and_reopens_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let put = |store: &Store, sequence, last| {
        let mut chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
        chunk.last = last;
        store.enqueue(chunk, &mut b"bytes".as_slice()).unwrap();
    };
    put(&store, 0, false);
    assert_eq!(ended(&store, "s1"), None);
    put(&store, 2, true);
    let since = ended(&store, "s1");
    assert!(since.is_some());
    put(&store, 1, false);
    assert_eq!(ended(&store, "s1"), since);
    fixture.abandon(store);
    let store = fixture.open();
    assert_eq!(ended(&store, "s1"), since);
    assert_eq!(drain(&store, "s1").len(), 3);
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!((segments(fixture.dir()), ended(&store, "s1")), (0, since));
}

#[test]
fn a_session_is_counted_by_what_became_of_its_chunks() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for sequence in [0, 1, 2, 5, 6] {
        fixture.put(&store, "s1", sequence).unwrap();
    }
    for _ in 0..2 {
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        lease.bury(DeadReason::Rejected, None).unwrap();
    }
    store.purge(&key("s1", 0)).unwrap();
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    let counts = |store: &Store| {
        let it = summary(store, "s1").unwrap();
        let settled = (it.delivered(), it.dead, it.purged);
        (it.chunks(), it.owed, settled, it.gaps())
    };
    let expected = (5, 2, (1, 1, 1), vec![(3, 4)]);
    assert_eq!(counts(&store), expected);
    fixture.abandon(store);
    std::fs::remove_dir_all(fixture.dir().join("index")).unwrap();
    assert_eq!(counts(&fixture.open()), expected);
}

#[test]
fn a_list_shows_the_lowest_keys_and_says_how_many_it_left_out() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for name in ["c", "a", "d", "b"] {
        fixture.put(&store, name, 0).unwrap();
    }
    drain(&store, "a");
    let list = |owed, limit| {
        let list = store.sessions(&SessionFilter {
            owed,
            limit,
            ..SessionFilter::default()
        });
        let names = list.sessions.iter().map(|it| it.key.session.to_string());
        (names.collect::<Vec<_>>().concat(), list.left_out)
    };
    assert_eq!(list(false, 10), ("abcd".into(), 0));
    assert_eq!(list(false, 3), ("abc".into(), 1));
    assert_eq!(list(true, 2), ("bc".into(), 1));
    assert_eq!(list(true, 0), (String::new(), 3));
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

#[test]
fn an_organisation_is_pinned_when_that_is_answered_whatever_the_power_does() {
    for operations in 0..12 {
        let (disk, dir) = (SimulatedDisk::new(operations), tempfile::tempdir().unwrap());
        let open = || {
            let on = Arc::new(disk.clone());
            Store::open_on(dir.path(), settings(), Arc::new(SystemClock), on).unwrap()
        };
        let store = open();
        store.pin_organisation(&acme(), "org-1").unwrap();
        disk.cut_power_after(operations as u32);
        let lifted = store.unpin_organisation(&acme()).is_ok();
        let pinned = lifted && store.pin_organisation(&acme(), "org-2").is_ok();
        store.abandon();
        disk.restart_after_power_cut();
        let after = open().organisation(&acme());
        match (lifted, pinned) {
            (true, true) => assert_eq!(after.as_deref(), Some("org-2"), "{operations}"),
            // An unanswered change may have happened or not; nothing that was answered is undone.
            (true, false) => assert_ne!(after.as_deref(), Some("org-1"), "{operations}"),
            (false, _) => assert_ne!(after.as_deref(), Some("org-2"), "{operations}"),
        }
    }
}

#[test]
fn a_pin_is_never_replaced_unasked_and_survives_the_loss_of_either_ledger() {
    for victim in ["ledger.a", "ledger.b"] {
        let fixture = Fixture::new();
        let store = fixture.open();
        store.pin_organisation(&acme(), "org-1").unwrap();
        store.pin_organisation(&acme(), "org-1").unwrap();
        fixture.abandon(store);
        std::fs::remove_file(fixture.dir().join(victim)).unwrap();
        let store = fixture.open();
        let other = store.pin_organisation(&acme(), "org-2").unwrap_err();
        let text = "tenant acme is pinned to organisation org-1; org-2 is another one";
        assert_eq!(other.to_string(), text);
        assert!(matches!(
            store.pin_organisation(&acme(), &"x".repeat(300)),
            Err(StoreError::Io(_))
        ));
        let lifted = store.unpin_organisation(&acme()).unwrap();
        assert_eq!(lifted.as_deref(), Some("org-1"));
        store.pin_organisation(&acme(), "org-2").unwrap();
        assert_eq!(store.organisation(&acme()).as_deref(), Some("org-2"));
    }
}

#[test]
fn a_pin_that_could_not_be_written_is_none() {
    let (disk, dir) = (SimulatedDisk::new(3), tempfile::tempdir().unwrap());
    let on = Arc::new(disk.clone());
    let store = Store::open_on(dir.path(), settings(), Arc::new(SystemClock), on).unwrap();
    disk.fail_next_syncs(1_000_000);
    store.pin_organisation(&acme(), "org-1").unwrap_err();
    assert_eq!(store.organisation(&acme()), None);
    disk.fail_next_syncs(0);
    store.pin_organisation(&acme(), "org-1").unwrap();
    assert_eq!(store.organisation(&acme()).as_deref(), Some("org-1"));
}

/// A wall clock and a boot clock that a test sets.
struct Hands {
    wall: AtomicI64,
    since_boot: AtomicU64,
    boot: Mutex<[u8; 16]>,
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::Relaxed))
    }
    fn now(&self) -> Instant {
        Instant(Duration::from_secs(self.since_boot.load(Ordering::Relaxed)))
    }
    fn boot_id(&self) -> [u8; 16] {
        *self.boot.lock().unwrap()
    }
    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

const DAY_S: u64 = 86_400;
const YEAR_MS: i64 = 365 * 86_400_000;

/// A store whose only session is settled, and its clock.
fn settled(sabotaged: Sabotaged) -> (Fixture, Store, Arc<Hands>) {
    let hands = Arc::new(Hands {
        wall: AtomicI64::new(1_772_359_200_000),
        since_boot: AtomicU64::new(1000),
        boot: Mutex::new([1; 16]),
    });
    let fixture = Fixture::new();
    let settings = Settings {
        sabotaged,
        ..settings()
    };
    let store = Store::open(fixture.dir(), settings, hands.clone()).unwrap();
    fixture.put(&store, "s1", 0).unwrap();
    drain(&store, "s1");
    keeper::round(&store.inner).unwrap();
    (fixture, store, hands)
}

#[test]
fn a_wall_clock_that_jumps_by_a_year_either_way_makes_the_store_forget_nothing() {
    for jump in [-YEAR_MS, YEAR_MS] {
        let (fixture, store, hands) = settled(Sabotaged::NONE);
        hands.wall.fetch_add(jump, Ordering::Relaxed);
        keeper::round(&store.inner).unwrap();
        assert!(summary(&store, "s1").is_some());
        store.close().unwrap();
        // Nor does a start in another year, after a reboot.
        *hands.boot.lock().unwrap() = [2; 16];
        let store = Store::open(fixture.dir(), settings(), hands).unwrap();
        keeper::round(&store.inner).unwrap();
        assert!(summary(&store, "s1").is_some());
    }
}

#[test]
fn forgetting_by_the_wall_clock_would_be_noticed() {
    let (_fixture, store, hands) = settled(Sabotaged::NONE.with(Sabotage::AgeByWallClock));
    hands.wall.fetch_add(YEAR_MS, Ordering::Relaxed);
    keeper::round(&store.inner).unwrap();
    assert!(summary(&store, "s1").is_none());
}

#[test]
fn a_session_is_forgotten_after_its_time_of_running_however_often_the_store_was_opened() {
    let (fixture, mut store, hands) = settled(Sabotaged::NONE);
    for day in 1..=7 {
        hands.since_boot.fetch_add(DAY_S, Ordering::Relaxed);
        keeper::round(&store.inner).unwrap();
        assert!(summary(&store, "s1").is_some(), "day {day}");
        store.close().unwrap();
        store = Store::open(fixture.dir(), settings(), hands.clone()).unwrap();
    }
    hands.since_boot.fetch_add(1, Ordering::Relaxed);
    keeper::round(&store.inner).unwrap();
    assert!(summary(&store, "s1").is_none());
}

#[test]
fn a_promotion_survives_a_restart_and_ends_when_the_session_owes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert_eq!(store.promote(&session("s1")).unwrap(), Promotion::Unknown);
    fixture.put(&store, "s1", 0).unwrap();
    fixture.put(&store, "s1", 1).unwrap();
    assert_eq!(store.promote(&session("s1")).unwrap(), Promotion::Promoted);
    assert_eq!(store.owed_of(&session("s1")).unwrap(), [(0, 1)]);
    fixture.abandon(store);
    let store = fixture.open();
    let promoted = |store: &Store| summary(store, "s1").unwrap().promoted;
    assert!(promoted(&store) && store.head(&session("s1")).unwrap().unwrap().promoted);
    store.lease(&session("s1")).unwrap().unwrap().ack().unwrap();
    assert!(promoted(&store));
    drain(&store, "s1");
    assert!(!promoted(&store));
    let nothing = store.promote(&session("s1")).unwrap();
    assert_eq!(nothing, Promotion::NothingOwed);
    fixture.put(&store, "s1", 2).unwrap();
    assert!(!promoted(&store));
}
