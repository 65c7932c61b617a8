//! Keeping the file: durable, small, and honest about what of it does not read.

use std::io;
use std::sync::Arc;

use super::replay::damage;
use super::{Book, SESSION_BYTES};
use crate::store::records::log::{Log, Place};
use crate::store::records::table::Key;
use crate::store::records::types::Entry;
use crate::store::types::Damage;

/// A smaller file is not worth replacing.
const COMPACT_FROM: u64 = 1 << 20;

impl Book {
    pub fn maintain(&mut self) -> io::Result<()> {
        let live = self.table.live_bytes + SESSION_BYTES * self.sessions.len() as u64;
        let mostly_dead = self.log.length() >= COMPACT_FROM && live * 2 < self.log.length();
        if self.log.is_broken() || mostly_dead {
            return self.rewrite();
        }
        self.log.sync()
    }

    /// Writes what is in force into a fresh file, which takes the place of the old one.
    pub fn rewrite(&mut self) -> io::Result<()> {
        let mut rewrite = self.log.rewrite()?;
        // Places alone, in the order of keys: a million of anything more would be felt.
        let mut moved: Vec<Place> = Vec::with_capacity(self.table.len());
        let mut at: Option<Key> = None;
        while let Some((key, place)) = self.table.next(at.as_ref()) {
            at = Some(key);
            if let Some(recording) = self.read_or_forget(&key, place) {
                moved.push(rewrite.add(&Entry::Recording(Box::new(recording)))?);
            }
        }
        for open in self.sessions.values() {
            rewrite.add(&Entry::Session(open.clone()))?;
        }
        for listing in self.listings.values().filter(|listing| !listing.done) {
            rewrite.add(&Entry::Listing(listing.clone()))?;
        }
        self.log.finish(rewrite)?;
        self.table.move_all(&moved);
        Ok(())
    }

    pub fn damage(&mut self) -> Vec<Damage> {
        let mut found = self.damage.clone();
        let again = |offset, reason| {
            if found.iter().all(|known| known.offset != offset) {
                found.push(damage(offset, reason));
            }
        };
        drop(Log::open(
            &self.store,
            Arc::clone(&self.disk),
            |_, _, _| {},
            again,
        ));
        found
    }
}
