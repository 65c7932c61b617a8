//! The record log on real files and on a disk that loses power: what was promised is there, what is damaged costs itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::disk::RealDisk;
use crate::disk::simulated::SimulatedDisk;
use crate::model::{Digest, RecordingFacts, RecordingState};

const NOW: Timestamp = Timestamp(1_772_359_200_000);
const HOUR: Duration = Duration::from_secs(3600);

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn id(name: &str) -> RecordingId {
    name.parse().unwrap()
}

fn ids(names: &[&str]) -> Vec<RecordingId> {
    names.iter().map(|name| id(name)).collect()
}

fn open(dir: &Path) -> Records {
    Records::new(dir, Arc::new(RealDisk))
}

fn part(session: &str, sequence: u64, last: bool, at: Timestamp) -> Part {
    Part {
        tenant: tenant("acme"),
        session: session.parse().unwrap(),
        recording: id(&format!("r-{session}")),
        sequence,
        bytes: 10,
        digest: Digest::of(&sequence.to_le_bytes()),
        last,
        at,
    }
}

fn session(name: &str) -> SessionKey {
    SessionKey {
        tenant: tenant("acme"),
        session: name.parse().unwrap(),
    }
}

fn names(records: &Records, filter: RecordingFilter) -> Vec<String> {
    let page = records.page(&filter, None, 1000).unwrap();
    page.recordings
        .iter()
        .map(|one| one.id.to_string())
        .collect()
}

fn all(records: &Records) -> Vec<String> {
    names(records, RecordingFilter::default())
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("records/log")
}

fn counting(records: &Records) {
    records.count_for(BTreeSet::from([tenant("acme")]));
}

#[test]
fn a_store_that_knows_no_recordings_has_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path());
    assert_eq!(records.next_due(&tenant("acme")), None);
    assert_eq!(records.total(), RecordingCounts::default());
    records.maintain().unwrap();
    assert!(!dir.path().join("records").exists());
}

#[test]
fn a_torn_tail_is_dropped_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path())
        .want(&tenant("acme"), &ids(&["a", "b"]), NOW)
        .unwrap();
    let whole = std::fs::read(log_of(dir.path())).unwrap();
    for cut in 1..200 {
        std::fs::write(log_of(dir.path()), &whole[..whole.len() - cut]).unwrap();
        let records = open(dir.path());
        let left = all(&records);
        assert!(
            left == ["a"] || left == ["a", "b"] || left == ["b", "a"],
            "cut {cut}: {left:?}"
        );
        records.want(&tenant("acme"), &ids(&["c"]), NOW).unwrap();
        let again = open(dir.path());
        assert_eq!(all(&again).len(), left.len() + 1, "cut {cut}");
        assert_eq!(again.damage(), [], "cut {cut}: a tail is no damage");
    }
}

#[test]
fn a_flipped_bit_costs_one_recording_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let wanted: Vec<_> = (0..20).map(|n| id(&format!("r-{n}"))).collect();
    open(dir.path())
        .want(&tenant("acme"), &wanted, NOW)
        .unwrap();
    let whole = std::fs::read(log_of(dir.path())).unwrap();
    for at in (16..whole.len() - 400).step_by(37) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(log_of(dir.path()), &bytes).unwrap();
        let records = open(dir.path());
        let left = all(&records).len();
        assert!(left >= 19, "byte {at}: {left} left");
        assert_eq!(records.damage().len(), usize::from(left == 19), "byte {at}");
    }
}

#[test]
fn a_file_of_another_kind_is_set_aside_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("records")).unwrap();
    std::fs::write(log_of(dir.path()), b"REELAYRC\x09 from the future").unwrap();
    let records = open(dir.path());
    assert_eq!(all(&records), [""; 0]);
    records.want(&tenant("acme"), &ids(&["a"]), NOW).unwrap();
    assert_eq!(all(&open(dir.path())), ["a"]);
    assert!(dir.path().join("records/log.unreadable").exists());
}

#[test]
fn what_was_answered_survives_a_power_cut_at_any_moment() {
    for seed in 0..60 {
        let disk = SimulatedDisk::new(seed);
        let store = Path::new("/store");
        let on = || Records::new(store, Arc::new(disk.clone()));
        let mut promised = Vec::new();
        disk.cut_power_after(3 + seed as u32 % 40);
        {
            let records = on();
            for number in 0..30 {
                let name = id(&format!("r-{number}"));
                if records
                    .want(&tenant("acme"), std::slice::from_ref(&name), NOW)
                    .is_ok()
                {
                    promised.push(name);
                }
            }
        }
        disk.restart_after_power_cut();
        let records = on();
        for name in &promised {
            assert!(
                records.get(&tenant("acme"), name).is_some(),
                "seed {seed}: {name}"
            );
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_promised_until_a_fresh_file_has_it() {
    let disk = SimulatedDisk::new(7);
    let store = Path::new("/store");
    let records = Records::new(store, Arc::new(disk.clone()));
    let acme = tenant("acme");
    records.want(&acme, &ids(&["a"]), NOW).unwrap();
    disk.fail_next_syncs(1);
    assert!(records.want(&acme, &ids(&["b"]), NOW).is_err());
    records.want(&acme, &ids(&["c"]), NOW).unwrap();
    assert_eq!(disk.faults().syncs_failed, 1);
    disk.restart_after_power_cut();
    let after = Records::new(store, Arc::new(disk));
    for name in ["a", "c"] {
        assert!(after.get(&acme, &id(name)).is_some(), "{name}");
    }
}

#[test]
fn a_log_that_is_mostly_superseded_is_replaced_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let records = open(dir.path());
    counting(&records);
    let wanted: Vec<_> = (0..200).map(|n| id(&format!("r-{n}"))).collect();
    records.delivered(part("s1", 0, false, NOW));
    for round in 0..60 {
        let now = NOW.saturating_add(HOUR * round);
        records.want(&acme, &wanted, now).unwrap();
        let taken = records.take_due(&acme, now).unwrap();
        records
            .give_back(&taken, |one| one.fetched(RecordingFacts::default(), now))
            .unwrap();
        records.delivered(part("s1", u64::from(round), false, now));
    }
    let before = std::fs::metadata(log_of(dir.path())).unwrap().len();
    let listed = records
        .page(&RecordingFilter::default(), None, 1000)
        .unwrap();
    records.maintain().unwrap();
    let after = std::fs::metadata(log_of(dir.path())).unwrap().len();
    assert!(after * 4 < before, "{before} to {after}");
    for records in [records, open(dir.path())] {
        let again = records
            .page(&RecordingFilter::default(), None, 1000)
            .unwrap();
        assert_eq!(again, listed);
        let Counted { ended, next, .. } = records.counted(&acme, HOUR, NOW);
        assert_eq!(
            (ended.len(), next.is_some()),
            (0, true),
            "the open session is kept"
        );
    }
}

#[test]
fn a_recording_in_hand_is_not_given_twice_and_comes_back_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let records = open(dir.path());
    records.want(&acme, &ids(&["a"]), NOW).unwrap();
    assert!(records.take_due(&acme, NOW).is_some());
    assert!(records.take_due(&acme, NOW).is_none());
    assert_eq!(records.counts(&acme).wanted, 1);
    assert_eq!(records.next_due(&tenant("globex")), None);
    assert!(open(dir.path()).take_due(&acme, NOW).is_some());
}

#[test]
fn an_id_that_is_named_twice_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path());
    let wanted = records
        .want(&tenant("acme"), &ids(&["a", "a"]), NOW)
        .unwrap();
    assert_eq!(
        wanted,
        Wanted {
            added: 1,
            already: 0
        }
    );
    assert_eq!(records.counts(&tenant("acme")).wanted, 1);
}

#[test]
fn an_answer_that_is_older_than_the_question_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let records = open(dir.path());
    counting(&records);
    records.delivered(part("s1", 0, true, NOW));
    records.want(&acme, &ids(&["r-s1"]), NOW).unwrap();
    let taken = records.take_due(&acme, NOW).unwrap();
    records.compare(&session("s1"), NOW).unwrap();
    records
        .give_back(&taken, |one| one.fetched(RecordingFacts::default(), NOW))
        .unwrap();
    let now = records.get(&acme, &id("r-s1")).unwrap();
    assert_eq!(now.state, RecordingState::Wanted);
    assert!(now.own.is_some());
    assert!(records.take_due(&acme, NOW).is_some());
}

#[test]
fn a_session_goes_on_counting_where_it_seemed_to_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    {
        let records = open(dir.path());
        counting(&records);
        assert!(
            records.delivered(part("s1", 0, false, NOW)),
            "a count began"
        );
        assert!(!records.delivered(part("s1", 1, false, NOW)));
        assert!(
            records.delivered(part("s1", 3, true, NOW)),
            "it says that it ended"
        );
    }
    let records = open(dir.path());
    counting(&records);
    let ended = records.counted(&acme, HOUR, NOW).ended;
    assert_eq!(ended.len(), 1);
    records.compare(&session("s1"), NOW).unwrap();
    assert_eq!(records.counted(&acme, HOUR, NOW), Counted::default());
    let own = |records: &Records| records.get(&acme, &id("r-s1")).unwrap().own.unwrap();
    assert_eq!((own(&records).chunks(), own(&records).bytes()), (3, 30));
    // A redriven chunk comes late, and once more after a crash.
    records.delivered(part("s1", 2, false, NOW));
    let records = open(dir.path());
    counting(&records);
    records.delivered(part("s1", 2, false, NOW));
    let later = NOW.saturating_add(HOUR);
    let ended = records.counted(&acme, HOUR, later).ended;
    assert_eq!(ended.len(), 1, "by its silence");
    records.compare(&session("s1"), later).unwrap();
    assert_eq!(own(&records).chunks(), 4);
    assert_eq!(own(&open(dir.path())).chunks(), 4);
}

#[test]
fn since_means_our_own_sessions_of_that_time_that_are_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let records = open(dir.path());
    records.delivered(part("old", 0, false, Timestamp(NOW.0 - 10 * 86_400_000)));
    records.delivered(part("new", 0, false, NOW));
    records.delivered(part("had", 0, false, NOW));
    records.want(&acme, &ids(&["r-had"]), NOW).unwrap();
    let taken = records.take_due(&acme, NOW).unwrap();
    records
        .give_back(&taken, |one| one.fetched(RecordingFacts::default(), NOW))
        .unwrap();
    let since = Timestamp(NOW.0 - 7 * 86_400_000);
    let wanted = records.want_since(&acme, since, false, NOW).unwrap();
    assert_eq!(
        wanted,
        Wanted {
            added: 1,
            already: 0
        }
    );
    let filter = RecordingFilter {
        state: Some(RecordingState::Wanted),
        ..RecordingFilter::default()
    };
    assert_eq!(names(&records, filter), ["r-new"]);
    let again = records.want_since(&acme, since, false, NOW).unwrap();
    assert_eq!(
        again,
        Wanted {
            added: 0,
            already: 1
        }
    );
}

#[test]
fn a_listing_survives_a_restart_in_its_middle() {
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    {
        let records = open(dir.path());
        records.want_since(&acme, NOW, true, NOW).unwrap();
        let listing = records.listing(&acme).unwrap();
        let page = Listed {
            recordings: vec![(id("a"), None)],
            next: Some("c1".into()),
        };
        records.listed(listing, page, NOW).unwrap();
    }
    let records = open(dir.path());
    let listing = records.listing(&acme).unwrap();
    assert_eq!(listing.cursor.as_deref(), Some("c1"));
    records.listed(listing, Listed::default(), NOW).unwrap();
    assert_eq!(records.listing(&acme), None);
    assert_eq!(open(dir.path()).listing(&acme), None);
}

#[test]
fn pages_go_through_everything_once_in_the_order_of_tenant_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path());
    for number in 0..25_i64 {
        for name in ["globex", "acme"] {
            let mut part = part(
                &format!("s{number}"),
                0,
                false,
                Timestamp(NOW.0 - number * 60_000),
            );
            part.tenant = tenant(name);
            records.delivered(part);
        }
    }
    let filter = RecordingFilter::default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = records.page(&filter, after.as_ref(), 7).unwrap();
        assert!(page.recordings.len() <= 7);
        seen.extend(page.recordings.into_iter().map(|one| (one.tenant, one.at)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.is_sorted());
    let of_session = RecordingFilter {
        session: Some("s3".parse().unwrap()),
        ..RecordingFilter::default()
    };
    assert_eq!(names(&records, of_session).len(), 2);
    assert!(records.page(&filter, Some(&Cursor("x".into())), 1).is_err());
}

/// A million of each, in B-trees whose nodes are two thirds full: 82 MiB.
#[test]
fn a_recording_takes_a_fixed_few_bytes_of_memory() {
    let line = size_of::<table::Key>() + size_of::<table::Line>();
    let due = size_of::<(u16, u32, table::Key)>();
    assert!(line + due <= 52, "{line} + {due}");
}

/// Whatever is done in whatever order, with restarts in between, a plain map says the same.
#[test]
fn the_log_says_what_a_plain_map_says() {
    let seed = std::env::var("REELAY_SEED")
        .map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("REELAY_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let mut records = open(dir.path());
    let mut plain: BTreeMap<String, RecordingState> = BTreeMap::new();
    for step in 0..800_i64 {
        let now = Timestamp(NOW.0 + step * 1000);
        let name = format!("r-{}", random.u32(0..40));
        match random.u32(0..10) {
            0..4 => {
                records.want(&acme, &ids(&[&name]), now).unwrap();
                plain.insert(name, RecordingState::Wanted);
            }
            4..8 => {
                if let Some(taken) = records.take_due(&acme, now) {
                    let dead = random.bool();
                    records
                        .give_back(&taken, |one| {
                            if dead {
                                one.state = RecordingState::Dead;
                            } else {
                                one.fetched(RecordingFacts::default(), now);
                            }
                        })
                        .unwrap();
                    let state = if dead {
                        RecordingState::Dead
                    } else {
                        RecordingState::Fetched
                    };
                    plain.insert(taken.id.to_string(), state);
                }
            }
            8 => records.maintain().unwrap(),
            _ => records = open(dir.path()),
        }
        if step % 50 == 49 {
            let page = records
                .page(&RecordingFilter::default(), None, 1000)
                .unwrap();
            let found: BTreeMap<_, _> = page
                .recordings
                .into_iter()
                .map(|one| (one.id.to_string(), one.state))
                .collect();
            assert_eq!(found, plain, "seed {seed}, step {step}");
            let wanted = plain
                .values()
                .filter(|state| **state == RecordingState::Wanted)
                .count();
            assert_eq!(
                records.counts(&acme).wanted,
                wanted as u64,
                "seed {seed}, step {step}"
            );
        }
    }
}
