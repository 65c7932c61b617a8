//! What can be asked about recordings, and the answers. Blocking.

use serde::{Deserialize, Serialize};

use crate::model::{RecordingId, RecordingState, TenantId, Timestamp};
use crate::store::records::{Cursor, Page, Recording, RecordingFilter, RecordsError, Wanted};

use super::answer::unknown_tenant;
use super::refusal::{Code, Refusal, chain};
use super::running::Holder;
use super::wire::{Mismatch, SessionWhy};

/// An operation on recordings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum RecordingsRequest {
    /// Asks the platform for these.
    Fetch {
        tenant: TenantId,
        ids: Vec<RecordingId>,
    },
    /// For those of our own sessions since then, and for those that the platform lists.
    FetchSince { tenant: TenantId, since: Timestamp },
    /// A page of what is known.
    List {
        filter: RecordingFilter,
        after: Option<Cursor>,
        limit: usize,
    },
    /// Everything known of one, under every tenant that has it.
    Show {
        tenant: Option<TenantId>,
        id: RecordingId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "with", rename_all = "snake_case")]
pub enum RecordingsReply {
    Wanted(FetchView),
    Page(Page),
    Shown(Vec<Recording>),
}

/// `worker recordings fetch --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchView {
    pub tenant: TenantId,
    pub added: u64,
    pub already: u64,
    /// The platform's list is walked, too.
    pub listing: bool,
    /// A worker runs that does it now.
    pub running: bool,
}

/// No page is longer: its records are in memory for a moment.
const PAGE_MAX: usize = 1000;
/// Nor is a request: it has to fit into the socket's bound.
pub const IDS_MAX: usize = 250;

/// # Errors
/// An unknown tenant, too many ids at once, or the record log's.
pub fn answer(holder: &Holder, request: RecordingsRequest) -> Result<RecordingsReply, Refusal> {
    let records = holder.store.records();
    let now = holder.clock.wall();
    match request {
        RecordingsRequest::Fetch { tenant, ids } => {
            configured(holder, &tenant)?;
            if ids.len() > IDS_MAX {
                let message = format!("{} ids at once; possible are {IDS_MAX}", ids.len());
                return Err(Refusal::new(Code::BadInput, message));
            }
            let wanted = records.want(&tenant, &ids, now)?;
            Ok(fetch_view(holder, tenant, wanted, false))
        }
        RecordingsRequest::FetchSince { tenant, since } => {
            configured(holder, &tenant)?;
            let listing = holder.config.tenants[&tenant]
                .recordings
                .list_path
                .is_some();
            let wanted = records.want_since(&tenant, since, listing, now)?;
            Ok(fetch_view(holder, tenant, wanted, listing))
        }
        RecordingsRequest::List {
            filter,
            after,
            limit,
        } => {
            let page = records.page(&filter, after.as_ref(), limit.clamp(1, PAGE_MAX));
            Ok(RecordingsReply::Page(page.map_err(RecordsError::from)?))
        }
        RecordingsRequest::Show { tenant, id } => {
            let tenants = match tenant {
                Some(tenant) => vec![tenant],
                None => holder.config.tenants.keys().cloned().collect(),
            };
            let found = tenants.iter().filter_map(|tenant| records.get(tenant, &id));
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                let message = format!("nothing is known of recording {id}");
                return Err(Refusal::new(Code::NotFound, message));
            }
            Ok(RecordingsReply::Shown(found))
        }
    }
}

/// Shown at once.
const MISMATCHES: usize = 3;

/// Recordings of the session, or else of the tenant, that are not as they were delivered. There are few of them, so that
/// looking at each is cheap.
pub fn mismatches(
    holder: &Holder,
    tenant: &TenantId,
    session: Option<&SessionWhy>,
) -> Result<Vec<Mismatch>, Refusal> {
    let filter = RecordingFilter {
        tenant: Some(tenant.clone()),
        session: session.map(|about| about.session.clone()),
        since: None,
        state: Some(RecordingState::Mismatch),
    };
    let records = holder.store.records();
    let page = records.page(&filter, None, MISMATCHES);
    let found = page.map_err(RecordsError::from)?.recordings.into_iter();
    let mismatch = |recording: Recording| Mismatch {
        recording: recording.id,
        session: recording.session,
        differences: recording.differences,
    };
    Ok(found.map(mismatch).collect())
}

/// Only a configured tenant can be asked.
fn configured(holder: &Holder, tenant: &TenantId) -> Result<(), Refusal> {
    if holder.config.tenants.contains_key(tenant) {
        return Ok(());
    }
    Err(unknown_tenant(holder, tenant.as_str()))
}

fn fetch_view(holder: &Holder, tenant: TenantId, wanted: Wanted, listing: bool) -> RecordingsReply {
    RecordingsReply::Wanted(FetchView {
        tenant,
        added: wanted.added,
        already: wanted.already,
        listing,
        running: holder.running.is_some(),
    })
}

impl From<RecordsError> for Refusal {
    fn from(error: RecordsError) -> Self {
        let code = match &error {
            RecordsError::Full => Code::Full,
            RecordsError::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidInput => {
                Code::BadInput
            }
            RecordsError::Io(_) => Code::Storage,
        };
        Self::new(code, chain(&error))
    }
}
