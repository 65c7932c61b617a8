//! What the store does by itself: finishing what a crash interrupted, giving space back, forgetting.

use std::path::Path;
use std::sync::Arc;

use super::support::{drain, new_chunk, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::SimulatedDisk;
use crate::model::DeadReason;
use crate::store::{EnqueueError, Outcome, SequenceChoice, Settings, Store, keeper};

fn open(dir: &Path, disk: &SimulatedDisk, settings: Settings) -> Store {
    let on = Arc::new(disk.clone());
    Store::open_on(dir, settings, Arc::new(SystemClock), on).unwrap()
}

fn put(store: &Store, sequence: u64, bytes: &[u8]) -> Result<Outcome, EnqueueError> {
    let chunk = new_chunk("acme", "s1", SequenceChoice::Exactly(sequence));
    let mut bytes = bytes;
    store.enqueue(chunk, &mut bytes).map(|it| it.outcome)
}

/// Seen: the process ended between the commit of the replacement and the purge of what it replaces. Both stood in the
/// journal, and the next repeat was accepted as a replacement once more.
#[test]
fn a_purge_that_the_power_interrupted_is_finished_at_open() {
    let mut between = 0;
    for operations in 0..14 {
        let (disk, dir) = (SimulatedDisk::new(operations), tempfile::tempdir().unwrap());
        let store = open(dir.path(), &disk, settings());
        put(&store, 0, b"bytes").unwrap();
        let lease = store.lease(&session("s1")).unwrap().unwrap();
        lease.bury(DeadReason::Damaged, None).unwrap();
        disk.cut_power_after(operations as u32);
        let answer = put(&store, 0, b"bytes");
        store.abandon();
        disk.restart_after_power_cut();
        for opening in 0..2 {
            let store = open(dir.path(), &disk, settings());
            let balance = store.view().balance;
            if balance.backlog > 0 {
                between += u32::from(opening == 0);
                assert_eq!((balance.dead, balance.purged), (0, 1), "{operations}");
            }
            assert!(balance.balanced, "{operations}: {balance:?}");
            let again = put(&store, 0, b"bytes").unwrap();
            if answer.is_ok() || opening > 0 {
                assert!(matches!(again, Outcome::Known(_)), "{operations}");
            }
            store.abandon();
        }
        let store = open(dir.path(), &disk, settings());
        assert_eq!(
            drain(&store, "s1"),
            [(0, b"bytes".to_vec())],
            "{operations}"
        );
        let balance = store.view().balance;
        let counts = (balance.enqueued, balance.delivered, balance.purged);
        assert_eq!(counts, (2, 1, 1), "{operations}");
    }
    assert!(between > 1, "no cut fell between replacement and purge");
}

/// Seen: a segment whose retirement met a failed ledger write left the map and stayed on the disk, and in the counter,
/// until the next start.
#[test]
fn a_segment_whose_ledger_was_not_written_goes_as_soon_as_one_is() {
    let (disk, dir) = (SimulatedDisk::new(1), tempfile::tempdir().unwrap());
    let store = open(dir.path(), &disk, settings());
    put(&store, 0, &[7; 100_000]).unwrap();
    drain(&store, "s1");
    store.abandon();
    let segments = || {
        let paths = disk.paths().into_iter();
        paths
            .filter(|path| path.extension().is_some_and(|it| it == "seg"))
            .count()
    };
    // Nobody appends to what a killed process left, so this opening has nothing but the segment that goes.
    let store = open(dir.path(), &disk, settings());
    for slot in store.inner.segments().values() {
        slot.segment.sync_words().unwrap();
    }
    disk.fail_next_syncs(1_000_000);
    while keeper::round(&store.inner).is_ok() {}
    assert!(segments() == 1 && store.view().used_bytes > 100_000);
    disk.fail_next_syncs(0);
    keeper::round(&store.inner).unwrap();
    assert_eq!((segments(), store.view().used_bytes), (0, 0));
    let balance = store.view().balance;
    assert_eq!((balance.delivered, balance.balanced), (1, true));
    store.close().unwrap();
    let again = open(dir.path(), &disk, settings()).view().balance;
    assert_eq!(again, balance);
}
