//! Space that is kept for the hour in which there is none: enough for one ledger, one segment and what the index takes
//! when it is opened, so that what was accepted can still be settled, moved and let go. It stands while something is owed; an empty store needs none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::inner::Inner;
use crate::disk::Disk;

const NAME: &str = "reserve";
/// Both files of a ledger beside their successors; a larger one is looked at.
const LEDGER_BYTES: u64 = 1 << 20;
/// The index takes what it has ahead of its end, and may grow by as much again, before the first note is written.
const INDEX_BYTES: u64 = 2 * super::index::AHEAD_BYTES;
/// With less than this left the index could not write either, so the reserve is given to whoever needs it.
const LOW_BYTES: u64 = 4 << 20;

pub struct Reserve {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// What the file takes; 0: there is none.
    bytes: AtomicU64,
    /// It was given up and could not be made again yet.
    spent: AtomicBool,
}

impl Reserve {
    /// As an earlier process left it. On a full disk it is given up here, before anything needs space.
    pub fn find(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        let path = dir.join(NAME);
        let length = disk.open(&path).and_then(|file| file.length());
        let reserve = Self {
            path,
            disk: Arc::clone(disk),
            bytes: AtomicU64::new(length.unwrap_or(0)),
            spent: AtomicBool::new(false),
        };
        reserve.give_up_when_low();
        reserve
    }

    /// Gives the space back to the disk; whether there was some.
    pub fn spend(&self) -> bool {
        if self.bytes.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        self.spent.store(true, Ordering::Release);
        tracing::warn!(
            "the disk is full: its reserve is used, nothing is accepted until there is room again"
        );
        self.remove()
    }

    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    fn remove(&self) -> bool {
        match self.disk.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the reserve is not given back");
                false
            }
            _ => true,
        }
    }

    fn free_bytes(&self) -> u64 {
        let dir = self.path.parent().expect("it is in the store");
        self.disk.free_bytes(dir).unwrap_or(u64::MAX)
    }

    fn give_up_when_low(&self) {
        if self.bytes.load(Ordering::Acquire) > 0 && self.free_bytes() < LOW_BYTES {
            self.spend();
        }
    }

    /// Makes the file where it is missing or too small, if that leaves as much again.
    fn make(&self, wanted: u64, min_free_bytes: u64) {
        if self.bytes.load(Ordering::Acquire) >= wanted {
            return;
        }
        let enough = wanted
            .saturating_mul(2)
            .max(min_free_bytes.saturating_add(wanted));
        if self.free_bytes() < enough || !self.remove() {
            return;
        }
        let made = self
            .disk
            .create(&self.path)
            .and_then(|file| file.allocate(wanted).and_then(|()| file.sync()));
        match made {
            Ok(()) => {
                self.bytes.store(wanted, Ordering::Release);
                if self.spent.swap(false, Ordering::AcqRel) {
                    tracing::info!("there is room again: accepting");
                }
            }
            Err(error) => {
                self.remove();
                tracing::warn!(%error, "no reserve is kept");
            }
        }
    }

    /// Not one byte is left behind by a store that owes nothing.
    fn drop_unneeded(&self) {
        if self.bytes.swap(0, Ordering::AcqRel) > 0 {
            self.remove();
        }
    }
}

/// A part of each round.
pub fn keep(inner: &Inner) {
    let reserve = &inner.reserve;
    reserve.give_up_when_low();
    let owed = inner.segments().values().any(|slot| slot.book().owed() > 0);
    if owed || reserve.is_spent() {
        let ledger = inner.disk.open(&inner.dir.join("ledger.a"));
        let ledger = ledger.and_then(|file| file.length()).unwrap_or(0);
        let wanted = inner.settings.segment_bytes + INDEX_BYTES + LEDGER_BYTES.max(4 * ledger);
        reserve.make(wanted, inner.settings.min_free_bytes);
    }
    if !owed {
        reserve.drop_unneeded();
    }
}

/// At close.
pub fn drop_if_unneeded(inner: &Inner) {
    if inner
        .segments()
        .values()
        .all(|slot| slot.book().owed() == 0)
    {
        inner.reserve.drop_unneeded();
    }
}

/// Does something that needs space; where there is none, with the reserve's.
pub fn or_with_reserve<T>(inner: &Inner, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if is_full(&error) && inner.reserve.spend() => act(),
        other => other,
    }
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
