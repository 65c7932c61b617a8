//! Opening: lock, ledger, segments, notes, index, in this order; then the threads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use super::durable::Stage;
use super::error::OpenError;
use super::header::{HeaderFault, SegmentHeader};
use super::inner::{Inner, SegmentSlot, solo_name};
use super::inventory::{Inventory, inventory};
use super::layout::{FORMAT, Layout, SegmentId};
use super::ledger::{Ledger, LedgerError};
use super::lost;
use super::mend;
use super::queue::CommitQueue;
use super::recover::Survey;
use super::reindex::{clean_mark, load_delays, load_fates, name_the_nameless, open_index, rebuild};
use super::reserve::Reserve;
use super::segment::Segment;
use super::sessions::Arrivals;
use super::tail;
use super::types::{Damage, Settings};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::sabotage::stop_at;

const LOCK: &str = "lock";

/// Opens the store; its threads are not started yet.
pub fn open(
    dir: &Path,
    settings: Settings,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
) -> Result<Inner, OpenError> {
    let io_error = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    check(dir, &settings)?;
    // The lock and the index are the system's business even where a test provides the disk.
    create_private_dir(dir).map_err(io_error)?;
    let lock = take_lock(dir)?;
    let segments_dir = dir.join("segments");
    disk.create_dir(&segments_dir).map_err(io_error)?;
    let (mut ledger, mut mended) = read_ledger(disk.as_ref(), dir, &settings)?;
    let ledgers_lost = mended.len() > 1;
    let reserve = Reserve::find(&disk, dir);
    let mut found =
        inventory(&disk, &segments_dir, &mut ledger).map_err(|fault| header_error(dir, fault))?;
    let ends = tail::ends(&found, &ledger, disk.as_ref(), settings.sabotaged).map_err(io_error)?;
    stop_at("reopening");
    let mark = clean_mark(&found, &ends, &ledger);
    let arrivals = Arc::new(Arrivals::default());
    let opened = open_index(dir, &settings, &arrivals)
        .map_err(|cause| io_error(io::Error::other(cause.to_string())))?;
    let named = lost::name(
        &opened.index,
        &mut found,
        &ends,
        &mut ledger,
        (disk.as_ref(), dir),
    );
    let marked = opened.clean_mark == Some(mark);
    let (owed, read) = std::thread::scope(|scope| {
        let index = &opened.index;
        let count = move || index.ask_patiently(|tables| tables.owed_count()).ok();
        let counting = marked.then(|| scope.spawn(count));
        let place = (disk.as_ref(), dir);
        let read = mend::read_segments(&found, &ends, &mut ledger, place, !marked);
        (counting.and_then(|it| it.join().ok()).flatten(), read)
    });
    let (mut survey, mut notes) = named.and(read).map_err(|error| {
        // Nobody else lets go of it.
        drop(opened.index.close(0));
        io_error(error)
    })?;
    mended.append(&mut survey.mended);
    let are_lost = !ledger.lost_chunks.is_empty();
    remove_orphan_solos(
        (disk.as_ref(), &segments_dir),
        &found,
        &survey,
        are_lost,
        &mut mended,
    )
    .map_err(io_error)?;
    found.damage.extend(survey.damage.iter().cloned());
    if ledgers_lost {
        let reason = "both ledger files are damaged; written anew, without what was retired";
        let damage = Damage::at("ledger.a, ledger.b", 0, reason);
        found.damage.push(damage);
    }

    let index_fits = owed == Some(survey.live);
    let mut burials =
        name_the_nameless(&opened.index, &found, &mut survey, &mut notes, clock.wall())
            .map_err(io_error)?;
    burials.append(&mut survey.burials);
    if !index_fits {
        found
            .segments
            .values()
            .for_each(|(segment, _)| segment.inherit_words());
        rebuild(&opened.index, &found, &ends, &mut survey).map_err(io_error)?;
    }
    let next_number = ledger.next_number.max(survey.highest_number + 1);
    let written_running_ms = ledger.running.total_ms();
    let used = survey.books.values().map(super::inner::Book::bytes).sum();
    let unreadable = found.unreadable;
    let segments = slots(found.segments, survey.books);
    let inner = Inner {
        records: super::records::Records::new(dir, Arc::clone(&disk)),
        dir: dir.to_owned(),
        disk,
        clock,
        sabotaged: settings.sabotaged,
        settings,
        lock,
        segments: RwLock::new(segments),
        sessions: Mutex::new(survey.sessions),
        notes: Mutex::new(notes),
        ledger: Mutex::new(ledger),
        ledger_writing: Mutex::new(()),
        written_running_ms: AtomicU64::new(written_running_ms),
        holding: Mutex::new(()),
        pinning: Mutex::new(()),
        replaced: Mutex::default(),
        index: opened.index,
        index_path: opened.path,
        index_rebuilt: !index_fits,
        ages: Mutex::default(),
        commits: CommitQueue::default(),
        stage: Stage::default(),
        planned: Mutex::default(),
        next_number: AtomicU64::new(next_number),
        used: AtomicU64::new(used),
        headless: unreadable,
        latched: Mutex::new(None),
        active: Mutex::new(None),
        arrivals,
        closing: AtomicBool::new(false),
        keeper: (Mutex::new(()), Condvar::new()),
        ledger_wanted: AtomicBool::new(false),
        damage: Mutex::new(found.damage),
        mended: Mutex::new(mended),
        burials_owed: Mutex::new(burials),
        purges_owed: Mutex::default(),
        unlinking: Mutex::default(),
        placing: RwLock::default(),
        unmovable: Mutex::default(),
        reserve,
    };
    load_delays(&inner);
    load_fates(&inner);
    {
        let sessions = inner.sessions();
        let owed = sessions.by_key.iter().filter(|(_, state)| state.owed > 0);
        inner.arrivals.add(owed.map(|(key, _)| key.clone()));
    }
    Ok(inner)
}

/// Whoever may not read a recording may not read its names and failures either.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn check(dir: &Path, settings: &Settings) -> Result<(), OpenError> {
    let size = settings.segment_bytes;
    if (Layout::SMALLEST..=Layout::LARGEST).contains(&size) && size.is_multiple_of(4096) {
        return Ok(());
    }
    Err(OpenError::Settings {
        path: dir.to_owned(),
        message: format!("segment_bytes is {size}; allowed are 1 MiB to 64 MiB in steps of 4 KiB"),
    })
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let io_error = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whatever stands there is only for the message.
            let _ = (&mut file).take(200).read_to_string(&mut holder);
            let pid = holder
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok());
            let holder = match (pid, holder.split_once(' ')) {
                (Some(pid), Some((_, command))) => format!("{} (pid {pid})", command.trim()),
                _ => "another process".to_owned(),
            };
            return Err(OpenError::Held {
                path: dir.to_owned(),
                holder,
                pid,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    // The first bare word: options and their values have dashes, dots, slashes or digits.
    let is_word = |text: &String| text.chars().all(|c| c.is_ascii_lowercase());
    let command = std::env::args().skip(1).find(is_word).unwrap_or_default();
    let line = format!("{} worker {}\n", std::process::id(), command.escape_debug());
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(line.as_bytes()));
    // On a full disk the name of the holder is not worth a failure.
    drop(written);
    Ok(file)
}

/// The ledger, and which of its files are to be written anew.
fn read_ledger(
    disk: &dyn Disk,
    dir: &Path,
    settings: &Settings,
) -> Result<(Ledger, Vec<Damage>), OpenError> {
    let found = Ledger::read(disk, dir).map_err(|error| match error {
        LedgerError::Io(source) => OpenError::Io {
            path: dir.to_owned(),
            source,
        },
        LedgerError::NewerVersion(found) => OpenError::NewerFormat {
            path: dir.to_owned(),
            found: found.into(),
            known: FORMAT,
        },
    })?;
    let reason = if found.damaged.len() > 1 {
        "a ledger file is damaged, and so is the other one; it is written anew"
    } else {
        "a ledger file is damaged; the other one serves, and it is written anew"
    };
    let mended = found.damaged.into_iter().map(|name| {
        tracing::error!(file = name, "ledger file is damaged");
        Damage::at(name, 0, reason)
    });
    let mended = mended.collect();
    let mut ledger = found.ledger;
    match &ledger.host {
        Some(pinned) if *pinned != settings.host => {
            return Err(OpenError::OtherHost {
                path: dir.to_owned(),
                pinned: pinned.to_string(),
                given: settings.host.to_string(),
            });
        }
        Some(_) => {}
        None => ledger.host = Some(settings.host.clone()),
    }
    Ok((ledger, mended))
}

fn header_error(dir: &Path, fault: HeaderFault) -> OpenError {
    match fault {
        HeaderFault::Io(source) => OpenError::Io {
            path: dir.to_owned(),
            source,
        },
        HeaderFault::NewerFormat(found) => OpenError::NewerFormat {
            path: dir.to_owned(),
            found,
            known: FORMAT,
        },
        HeaderFault::Damaged => unreachable!("a damaged header is taken into the inventory"),
    }
}

fn remove_orphan_solos(
    (disk, dir): (&dyn Disk, &Path),
    found: &Inventory,
    survey: &Survey,
    are_lost: bool,
    mended: &mut Vec<Damage>,
) -> io::Result<()> {
    // While a segment cannot be read or is gone, nobody knows which files its chunks name.
    if are_lost || !found.damage.is_empty() || !survey.damage.is_empty() {
        return Ok(());
    }
    for solo in found
        .solos
        .iter()
        .filter(|solo| !survey.solos.contains(solo))
    {
        disk.remove(&dir.join(solo_name(*solo)))?;
        let reason = "no frame names this payload file; removed";
        mended.push(Damage::at(solo_name(*solo), 0, reason));
    }
    Ok(())
}

fn slots(
    segments: BTreeMap<SegmentId, (Segment, SegmentHeader)>,
    mut books: BTreeMap<SegmentId, super::inner::Book>,
) -> BTreeMap<SegmentId, Arc<SegmentSlot>> {
    segments
        .into_iter()
        .map(|(id, (segment, _))| {
            segment.close_file();
            (
                id,
                Arc::new(SegmentSlot::new(
                    segment,
                    books.remove(&id).unwrap_or_default(),
                )),
            )
        })
        .collect()
}
