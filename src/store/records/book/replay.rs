//! What the log says when it is read from the beginning.

use std::collections::HashMap;

use crate::model::{SessionKey, TenantId};
use crate::store::records::log::{Log, Place};
use crate::store::records::table::{self, Table};
use crate::store::records::tally::Tally;
use crate::store::records::types::{Entry, Listing, OpenSession, Part};
use crate::store::types::Damage;

pub fn damage(offset: u64, reason: String) -> Damage {
    Damage {
        segment: "records/log".to_owned(),
        offset,
        tenant: None,
        session: None,
        sequence: None,
        reason,
    }
}

/// Adds a delivered chunk to what is counted of its session; `before` is what was counted when it seemed to have ended.
pub fn count(
    sessions: &mut HashMap<SessionKey, OpenSession>,
    key: SessionKey,
    part: Part,
    before: impl FnOnce() -> Option<Tally>,
) {
    let open = sessions.entry(key).or_insert_with(|| OpenSession {
        tenant: part.tenant,
        session: part.session,
        recording: part.recording.clone(),
        tally: before().unwrap_or_default(),
        last: false,
        at: part.at,
    });
    open.recording = part.recording;
    open.tally.add(part.sequence, part.bytes, part.digest);
    open.last |= part.last;
    open.at = open.at.max(part.at);
}

/// What the log says when it is read from the beginning.
#[derive(Default)]
pub struct Replayed {
    pub table: Table,
    pub sessions: HashMap<SessionKey, OpenSession>,
    pub listings: HashMap<TenantId, Listing>,
}

impl Replayed {
    pub fn take(&mut self, log: &Log, place: Place, entry: Entry) {
        match entry {
            Entry::Recording(recording) => {
                if let (Some(own), Some(session)) = (&recording.own, &recording.session) {
                    // It ended, unless more was delivered since.
                    let session = SessionKey {
                        tenant: recording.tenant.clone(),
                        session: session.clone(),
                    };
                    let open = self.sessions.get(&session);
                    if open.is_some_and(|open| open.tally.chunks() <= own.chunks()) {
                        self.sessions.remove(&session);
                    }
                }
                self.table.put(&recording, place);
            }
            Entry::Part(part) => {
                let key = SessionKey {
                    tenant: part.tenant.clone(),
                    session: part.session.clone(),
                };
                let line = self.table.get(&table::key(&part.tenant, &part.recording));
                let before = || match log.read(line?.place).ok()? {
                    Entry::Recording(recording) => recording.own,
                    _ => None,
                };
                count(&mut self.sessions, key, part, before);
            }
            Entry::Session(open) => {
                let key = SessionKey {
                    tenant: open.tenant.clone(),
                    session: open.session.clone(),
                };
                self.sessions.insert(key, open);
            }
            Entry::Listing(listing) => {
                self.listings.insert(listing.tenant.clone(), listing);
            }
        }
    }
}
