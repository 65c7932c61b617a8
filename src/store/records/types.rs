//! What the record log holds.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::model::{
    Digest, FailureRecord, RecordingFacts, RecordingId, RecordingState, SessionId, TenantId,
    Timestamp,
};

/// Everything known of one recording. Written whole; the youngest one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    pub tenant: TenantId,
    pub id: RecordingId,
    pub state: RecordingState,
    /// The session of this host that it is made of, as far as a receipt said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Its time: the session's last delivery from here, else its start as the platform tells it, else when it was
    /// asked for.
    pub at: Timestamp,
    /// The fetch that is to be done, or the last one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<RecordingFacts>,
    /// What this host delivered of it, once its session ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Tally>,
    /// In which way the two differ; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

impl Recording {
    pub fn new(tenant: TenantId, id: RecordingId, at: Timestamp) -> Self {
        Self {
            tenant,
            id,
            state: RecordingState::Known,
            session: None,
            at,
            job: None,
            fetched_at: None,
            facts: None,
            own: None,
            differences: Vec::new(),
        }
    }

    /// Asks for its metadata, from the beginning.
    pub fn want(&mut self, now: Timestamp) {
        self.state = RecordingState::Wanted;
        self.job = Some(Job::due_at(now));
    }

    /// The platform gave its metadata: kept, and compared where this host knows what it delivered.
    pub fn fetched(&mut self, facts: RecordingFacts, now: Timestamp) {
        self.differences = match &self.own {
            Some(own) => own.differences(&facts),
            None => Vec::new(),
        };
        self.state = match &self.own {
            None => RecordingState::Fetched,
            Some(_) if self.differences.is_empty() => RecordingState::Verified,
            Some(_) => RecordingState::Mismatch,
        };
        if self.session.is_none()
            && let Some(started) = facts.started_at
        {
            self.at = started;
        }
        self.facts = Some(facts);
        self.fetched_at = Some(now);
        self.job = None;
    }
}

/// A fetch that is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub due: Timestamp,
    /// Answers that spoke of this recording and did not give it.
    pub tries: u32,
    /// Refusals of the route in a row that this recording met.
    pub refusals: u32,
    /// Requests that got no answer, in a row.
    pub failures: u32,
    /// The waits between such answers, as they were planned: what the route was open for it.
    pub waited_ms: u64,
    /// The present wait as planned, and when it began.
    pub planned_ms: u64,
    pub since: Timestamp,
    /// The other kind of token was tried for it.
    #[serde(default)]
    pub fallback_tried: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<FailureRecord>,
}

impl Job {
    pub fn due_at(now: Timestamp) -> Self {
        Self {
            due: now,
            tries: 0,
            refusals: 0,
            failures: 0,
            waited_ms: 0,
            planned_ms: 0,
            since: now,
            fallback_tried: false,
            last: None,
        }
    }
}

/// The platform's list is to be walked, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub tenant: TenantId,
    pub since: Timestamp,
    /// Where the next page begins; `None`: at the beginning.
    pub cursor: Option<String>,
    pub job: Job,
    pub done: bool,
}

/// A chunk of ours that the platform named in a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub tenant: TenantId,
    pub session: SessionId,
    pub recording: RecordingId,
    pub sequence: u64,
    pub bytes: u64,
    #[serde(with = "digest_text")]
    pub digest: Digest,
    pub last: bool,
    pub at: Timestamp,
}

/// A session whose end is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    pub tenant: TenantId,
    pub session: SessionId,
    pub recording: RecordingId,
    pub tally: Tally,
    pub last: bool,
    pub at: Timestamp,
}

/// The sessions of a tenant whose deliveries are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// They said so, or were silent for long enough.
    pub ended: Vec<SessionId>,
    pub open: Vec<SessionId>,
    /// When the next will have been silent for long enough.
    pub next: Option<Timestamp>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Recording(Box<Recording>),
    Part(Part),
    Session(OpenSession),
    Listing(Listing),
}

/// Which recordings are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingFilter {
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    pub since: Option<Timestamp>,
    pub state: Option<RecordingState>,
}

/// Where a page ended: the next one begins behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// Recordings in the order of tenant and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub recordings: Vec<Recording>,
    /// `None`: that was the last page.
    pub next: Option<Cursor>,
}

/// What asking for recordings did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    pub added: u64,
    /// Asked for before and not done yet: they are tried now.
    pub already: u64,
}

mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::Digest;

    pub fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}
