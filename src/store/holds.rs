//! Holds of lanes, kept durably as notes.

use std::time::Duration;

use super::Store;
use super::error::StoreError;
use super::record::{Hold, Note};
use super::types::{HoldKey, StoredHold};
use crate::clock::Deadline;

impl Store {
    /// Keeps a hold durably under its key, replacing the former one.
    pub fn put_hold(&self, hold: StoredHold) -> Result<(), StoreError> {
        let StoredHold {
            key,
            set_at,
            left,
            reason,
        } = hold;
        let until = left.map(|left| Deadline::after(self.inner.clock.as_ref(), left));
        self.inner
            .commits
            .note(Note::Hold(Hold {
                key,
                set_at,
                until,
                reason,
            }))
            .map(drop)
    }

    /// Forgets a hold durably; one that is not there is no error.
    pub fn remove_hold(&self, key: &HoldKey) -> Result<(), StoreError> {
        if !matches!(self.inner.notes().holds.get(key), Some((Some(_), _))) {
            return Ok(());
        }
        self.inner
            .commits
            .note(Note::HoldEnd(key.clone()))
            .map(drop)
    }

    /// The holds in force; those whose time is over are left out.
    pub fn holds(&self) -> Vec<StoredHold> {
        let clock = self.inner.clock.as_ref();
        let notes = self.inner.notes();
        let holds = notes
            .holds
            .values()
            .filter_map(|(hold, _)| hold.as_ref())
            .map(|hold| StoredHold {
                key: hold.key.clone(),
                set_at: hold.set_at,
                left: hold.until.map(|until| until.left(clock)),
                reason: hold.reason.clone(),
            });
        holds
            .filter(|hold| hold.left != Some(Duration::ZERO))
            .collect()
    }
}
