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
        let lines: Vec<(Key, Place)> = self.table.places().collect();
        let mut moved = Vec::with_capacity(lines.len());
        for (key, place) in lines {
            if let Some(recording) = self.read_or_forget(&key, place) {
                let place = rewrite.add(&Entry::Recording(Box::new(recording)))?;
                moved.push((key, place));
            }
        }
        for open in self.sessions.values() {
            rewrite.add(&Entry::Session(open.clone()))?;
        }
        for listing in self.listings.values().filter(|listing| !listing.done) {
            rewrite.add(&Entry::Listing(listing.clone()))?;
        }
        self.log.finish(rewrite)?;
        for (key, place) in moved {
            self.table.move_to(&key, place);
        }
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
