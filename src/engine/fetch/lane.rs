//! One tenant's fetches: what is due is asked for as soon as gate, token, budget and a permit allow, in this order;
//! nothing later is held while anything earlier is waited for.

mod holds;
mod token;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

pub use holds::is_stored_here;
use holds::{is_operators, is_ours};

use super::judge::{self, Sent};
use super::pace::{self, Begun};
use super::{FetchLane, Shared};
use crate::auth::CredentialHold;
use crate::clock::Instant;
use crate::engine::gate::{Gate, Moment, Passage};
use crate::engine::hold::HoldId;
use crate::model::{
    FailureClass, RecordingId, Route, SessionId, SessionKey, TenantId, Timestamp, Token,
};
use crate::platform::fetch::{Fetch, FetchAnswer, Wish};
use crate::store::StoredHold;
use crate::store::records::{Listing, Recording};

pub const ROUTE: Route = Route::Fetch;
/// How long a probe of a block waits for a token that was minted for it.
const RENEWAL_TIME: Duration = Duration::from_secs(30);

pub struct Lane {
    pub about: FetchLane,
    state: Mutex<State>,
    /// Something to look at.
    news: Notify,
    /// The same, for whoever drains.
    pub changed: Notify,
}

/// What the lane's requests have shown.
pub struct State {
    pub gate: Gate,
    /// Requests are numbered as they begin.
    pub number: u64,
    pub in_flight: bool,
    /// The newest refusal of the route, and whose.
    pub refused: Option<(FailureClass, Option<RecordingId>)>,
    pub failing: u32,
    pub throttles: u32,
    pub given: u64,
    pub dead: u64,
    pub last_given: Option<Timestamp>,
    /// The block whose next probe has been given a fresh token.
    renewed_for: Option<Instant>,
    pub credential: Option<CredentialHold>,
}

/// What is asked for.
pub enum Job {
    One(Box<Recording>),
    List(Box<Listing>),
}

enum Step {
    Again,
    /// Until then, or something new.
    Wait(Option<Instant>),
}

pub async fn run(lane: Arc<Lane>, shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let Step::Wait(until) = lane.step(&shared).await else {
            continue;
        };
        lane.changed.notify_waiters();
        let deadline = async {
            match until {
                Some(until) => shared.clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = lane.news.notified() => {}
            () = deadline => {}
        }
    }
}

impl Lane {
    pub fn new(about: FetchLane, holds: &[StoredHold], now: Instant) -> Self {
        let tenant = &about.source.tenant;
        let mut gate = Gate::new(tenant.clone());
        for hold in holds.iter().filter(|hold| hold.key.tenant == *tenant) {
            let id = HoldId::parse(&hold.key.name);
            if id.is_some_and(|id| is_ours(id) || is_operators(id)) {
                gate.restore(hold, now);
            }
        }
        Self {
            about,
            state: Mutex::new(State {
                gate,
                number: 0,
                in_flight: false,
                refused: None,
                failing: 0,
                throttles: 0,
                given: 0,
                dead: 0,
                last_given: None,
                renewed_for: None,
                credential: None,
            }),
            news: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.about.source.tenant
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no decision panics")
    }

    pub fn stir(&self) {
        self.news.notify_one();
    }

    pub fn pause(&self, at: Moment) {
        self.state().gate.pause(at);
    }

    pub fn resume(&self, now: Instant) -> usize {
        let mut state = self.state();
        state.gate.unpause();
        state.gate.probe_now(now)
    }

    async fn step(self: &Arc<Self>, shared: &Arc<Shared>) -> Step {
        let looked = self.look(shared).await;
        let now = shared.clock.now();
        let Some(due) = looked.due else {
            return Step::Wait(looked.again);
        };
        let wall = shared.clock.wall();
        if due > wall {
            let due = now.saturating_add(due.since(wall));
            return Step::Wait(Some(looked.again.map_or(due, |again| again.min(due))));
        }
        let passage = {
            let mut state = self.state();
            state.gate.expire(now);
            state.gate.passage(ROUTE, now)
        };
        if let Passage::Closed(until) = passage {
            return Step::Wait(until);
        }
        let Some(token) = self.token(shared, passage == Passage::Probe).await else {
            return Step::Again;
        };
        let turn = pace::turn(
            &shared.pace,
            shared.clock.as_ref(),
            self.tenant(),
            Some(&shared.permits),
        );
        let (begun, _permit) = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Step::Again,
            () = self.news.notified() => return Step::Again,
            turn = turn => turn,
        };
        if let Some(job) = self.take(shared).await {
            self.serve(shared, job, token, begun).await;
        }
        Step::Again
    }

    /// Sessions that ended become recordings to compare; then, what is due.
    async fn look(self: &Arc<Self>, shared: &Arc<Shared>) -> Looked {
        let lane = Arc::clone(self);
        let at = shared.moment();
        shared
            .blocking(move |shared| {
                let (_, again) = lane.compare_ended(shared, at.wall);
                lane.tell_holds(shared);
                Looked {
                    due: shared.store.records().next_due(lane.tenant()),
                    again: again.map(|next| at.now.saturating_add(next.since(at.wall))),
                }
            })
            .await
    }

    /// Sessions that ended and owe nothing become recordings to compare. Whether there were any, and when the next may
    /// have ended by its silence. Blocks.
    pub fn compare_ended(&self, shared: &Shared, now: Timestamp) -> (bool, Option<Timestamp>) {
        if !self.about.verify {
            return (false, None);
        }
        let idle = self.about.session_idle;
        let counted = shared.store.records().counted(self.tenant(), idle, now);
        let was_ended = |session: &SessionId| {
            let (tenant, session) = (self.tenant().clone(), session.clone());
            (shared.store).session_has_ended(&SessionKey { tenant, session })
        };
        let by_operator = counted.open.into_iter().filter(was_ended);
        let mut compared = false;
        for session in counted.ended.into_iter().chain(by_operator) {
            compared |= compare_if_settled(shared, self.tenant(), session, now);
        }
        (compared, counted.next)
    }

    async fn take(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Job> {
        let tenant = self.tenant().clone();
        let wall = shared.clock.wall();
        shared
            .blocking(move |shared| {
                let records = shared.store.records();
                match records.listing(&tenant) {
                    Some(listing) if listing.job.due <= wall => Some(Job::List(Box::new(listing))),
                    _ => {
                        let taken = records.take_due(&tenant, wall)?;
                        Some(Job::One(Box::new(taken)))
                    }
                }
            })
            .await
    }

    async fn serve(self: &Arc<Self>, shared: &Arc<Shared>, job: Job, token: Token, begun: Begun) {
        let number = {
            let mut state = self.state();
            state.number += 1;
            state.in_flight = true;
            state.number
        };
        if let Some(answer) = self.ask(shared, &job, token.clone()).await {
            let sent = Sent {
                job,
                token,
                number,
                begun,
            };
            judge::settle(self, shared, sent, answer).await;
        }
        self.state().in_flight = false;
        self.changed.notify_waiters();
    }

    /// `None`: it was dropped on the wire; the recording is wanted as before.
    pub async fn ask(&self, shared: &Shared, job: &Job, token: Token) -> Option<FetchAnswer> {
        let (wish, tries) = match job {
            Job::One(recording) => (
                Wish::One(recording.id.clone()),
                recording.job.as_ref().map_or(0, |job| job.tries),
            ),
            Job::List(listing) => (
                Wish::Page {
                    since: listing.since,
                    cursor: listing.cursor.clone(),
                },
                listing.job.tries,
            ),
        };
        let fetch = Fetch {
            source: Arc::clone(&self.about.source),
            token,
            wish,
            attempt: tries.saturating_add(1),
            at: shared.clock.wall(),
        };
        // An answer that is there counts, even if the abort came with it.
        tokio::select! {
            biased;
            answer = self.about.archive.fetch(fetch) => Some(answer),
            () = shared.abort.cancelled() => None,
        }
    }
}

struct Looked {
    due: Option<Timestamp>,
    /// When a session may have ended by its silence.
    again: Option<Instant>,
}

fn compare_if_settled(
    shared: &Shared,
    tenant: &TenantId,
    session: SessionId,
    now: Timestamp,
) -> bool {
    let key = SessionKey {
        tenant: tenant.clone(),
        session,
    };
    // A trouble of the store is met, and told, by whoever uploads.
    if !matches!(shared.store.head(&key), Ok(None)) {
        return false;
    }
    let compared = shared.store.records().compare(&key, now);
    if let Err(error) = &compared {
        tracing::warn!(
            session.id = %key,
            error = error as &dyn std::error::Error,
            "the session's recording is not compared yet"
        );
    }
    compared.is_ok()
}
