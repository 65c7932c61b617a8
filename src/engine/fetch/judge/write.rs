//! Writing down what came of a request.

use std::sync::Arc;
use std::time::Duration;

use super::{Case, Sent, waited};
use crate::engine::fetch::Shared;
use crate::engine::fetch::lane::{Job, Lane};
use crate::engine::gate::Moment;
use crate::model::{
    FailureRecord, RecordingFacts, RecordingId, RecordingState, TenantId, Timestamp,
};
use crate::platform::fetch::{Fetched, ListPage};
use crate::policy::fetch::{self as policy, About, Decision, Next};
use crate::policy::retry::Credential;
use crate::store::records::{self, Listed, Listing, Recording};

pub async fn given(lane: &Arc<Lane>, shared: &Arc<Shared>, sent: Sent, given: Fetched) {
    let now = shared.clock.wall();
    let tenant = lane.tenant().clone();
    shared
        .blocking(move |shared| {
            let records = shared.store.records();
            let written = match (sent.job, given) {
                (Job::One(taken), Fetched::One(facts)) => {
                    records.give_back(&taken, |current| keep(current, *facts, now))
                }
                (Job::List(listing), Fetched::Page(page)) => {
                    records.listed(*listing, listed(page), now).map(drop)
                }
                // The archive answers what it was asked.
                _ => Ok(()),
            };
            tell_if_unwritten(&tenant, written);
        })
        .await;
}

fn keep(recording: &mut Recording, facts: RecordingFacts, now: Timestamp) {
    recording.fetched(facts, now);
    if recording.state == RecordingState::Mismatch {
        tracing::error!(
            tenant.id = %recording.tenant,
            recording.id = %recording.id,
            "the platform's recording is not what was delivered: {}",
            recording.differences.join("; ")
        );
    }
}

fn listed(page: ListPage) -> Listed {
    Listed {
        recordings: page.recordings,
        next: page.next,
    }
}

fn tell_if_unwritten(tenant: &TenantId, written: Result<(), records::RecordsError>) {
    if let Err(error) = written {
        tracing::warn!(
            tenant.id = %tenant,
            error = &error as &dyn std::error::Error,
            "what came of a recording is not written down; it is fetched again after the next start"
        );
    }
}

pub struct Outcome {
    pub case: Case,
    pub decision: Decision,
    pub fallback_tried: bool,
    pub at: Moment,
}

pub async fn failed(lane: &Arc<Lane>, shared: &Arc<Shared>, sent: Sent, outcome: Outcome) {
    let record = &outcome.case.record;
    tracing::debug!(
        tenant.id = %lane.tenant(),
        recording.id = sent.id().map(RecordingId::as_str),
        failure.class = %record.class,
        status = record.status,
        correlation.id = record.correlation_id,
        next = ?outcome.decision.next,
        "not fetched: {}",
        record.message
    );
    if outcome.decision.next == Next::Dead {
        lane.state().dead += 1;
        tracing::warn!(
            tenant.id = %lane.tenant(),
            recording.id = sent.id().map(RecordingId::as_str),
            "the platform does not give this recording: {}",
            record.message
        );
    }
    let tenant = lane.tenant().clone();
    let lane = Arc::clone(lane);
    shared
        .blocking(move |shared| {
            // A hold is stored before the recording that shows its need is due again.
            lane.tell_holds(shared);
            let records = shared.store.records();
            let job = next_job(&sent, &outcome);
            let written = match sent.job {
                Job::One(taken) => records.give_back(&taken, |current| {
                    if outcome.decision.next == Next::Dead {
                        current.state = RecordingState::Dead;
                    }
                    current.job = Some(job);
                }),
                Job::List(listing) => records.put_listing(Listing { job, ..*listing }),
            };
            tell_if_unwritten(&tenant, written);
        })
        .await;
}

fn next_job(sent: &Sent, outcome: &Outcome) -> records::Job {
    let (case, at) = (&outcome.case, outcome.at);
    let mut job = sent.own().clone();
    let about = policy::about(&case.failed, case.purview, sent.id().is_none());
    let wait = match outcome.decision.next {
        Next::Again(wait) => wait,
        Next::Fallback | Next::Dead => Duration::ZERO,
    };
    match about {
        About::Item => {
            job.waited_ms = waited(&job, at.wall);
            job.tries = job.tries.saturating_add(1);
            job.since = at.wall;
            job.planned_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            (job.refusals, job.failures) = (0, 0);
        }
        About::Route => job.refusals = job.refusals.saturating_add(1),
        About::Silence => job.failures = job.failures.saturating_add(1),
        About::Neither => {
            let held = case.failed.credential == Some(Credential::HoldSession);
            job.refusals = job.refusals.saturating_add(u32::from(held));
        }
    }
    job.fallback_tried = outcome.fallback_tried;
    job.due = at.wall.saturating_add(wait);
    job.last = Some(FailureRecord {
        next_try_at: (outcome.decision.next != Next::Dead).then_some(job.due),
        ..case.record.clone()
    });
    job
}
