//! Recordings in the order that is shown, a page at a time.

use std::io;

use super::Book;
use crate::store::records::table::Rank;
use crate::store::records::types::{Cursor, Page, Recording, RecordingFilter};

impl Book {
    pub fn page(
        &mut self,
        filter: &RecordingFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> io::Result<Page> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "no such page");
        let mut after: Option<Rank> = match after {
            None => None,
            Some(Cursor(text)) => Some(serde_json::from_str(text).map_err(|_| bad())?),
        };
        let mut recordings = Vec::new();
        while recordings.len() < limit {
            let lines = self.table.page(filter, after.as_ref(), limit);
            let whole = lines.len() < limit;
            for (rank, place) in lines {
                let found = self.read_or_forget(&rank.2, place);
                after = Some(rank);
                let meant =
                    |found: &Recording| filter.session.is_none() || found.session == filter.session;
                recordings.extend(found.filter(meant));
                if recordings.len() == limit {
                    break;
                }
            }
            if whole && recordings.len() < limit {
                return Ok(Page {
                    recordings,
                    next: None,
                });
            }
        }
        let cursor = serde_json::to_string(&after).expect("plain data is JSON");
        Ok(Page {
            recordings,
            next: Some(Cursor(cursor)),
        })
    }
}
