//! Recordings in the order that is shown, a page at a time. Finding what comes next walks the whole table, so it is done
//! for many pages at once.

use std::collections::VecDeque;
use std::io;

use super::Book;
use crate::store::records::table::Rank;
use crate::store::records::types::{Cursor, Page, Recording, RecordingFilter};

/// How far is looked ahead: a megabyte, and a walk for so many recordings.
const AHEAD: usize = 16 * 1024;

/// What comes next for whoever goes on with this filter from there.
pub struct Ahead {
    filter: RecordingFilter,
    from: Option<Rank>,
    ranks: VecDeque<Rank>,
}

impl Book {
    pub fn page(
        &mut self,
        filter: &RecordingFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> io::Result<Page> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "no such page");
        let mut from: Option<Rank> = match after {
            None => None,
            Some(Cursor(text)) => Some(serde_json::from_str(text).map_err(|_| bad())?),
        };
        let goes_on = |ahead: &Ahead| ahead.from == from && ahead.filter == *filter;
        // A first page is always looked up anew.
        let ahead = self
            .ahead
            .take()
            .filter(|ahead| from.is_some() && goes_on(ahead));
        let mut ranks = ahead.map_or_else(VecDeque::new, |ahead| ahead.ranks);
        let mut recordings = Vec::new();
        while recordings.len() < limit {
            if ranks.is_empty() {
                ranks = self.table.page(filter, from.as_ref(), AHEAD).into();
            }
            let Some(rank) = ranks.pop_front() else {
                return Ok(Page {
                    recordings,
                    next: None,
                });
            };
            let line = self.table.get(&rank.2);
            let found = line.and_then(|line| self.read_or_forget(&rank.2, line.place));
            from = Some(rank);
            recordings.extend(found.filter(|found| is_meant(filter, found)));
        }
        let cursor = serde_json::to_string(&from).expect("plain data is JSON");
        self.ahead = Some(Ahead {
            filter: filter.clone(),
            from,
            ranks,
        });
        Ok(Page {
            recordings,
            next: Some(Cursor(cursor)),
        })
    }
}

/// The rest of a filter: what memory does not tell, and what may have changed since it was looked ahead.
fn is_meant(filter: &RecordingFilter, found: &Recording) -> bool {
    let of_session = filter.session.is_none() || found.session == filter.session;
    of_session && filter.state.is_none_or(|state| state == found.state)
}
