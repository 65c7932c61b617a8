//! From an answer to what is known of the recording: facts are gathered, `policy::fetch` decides, and the decision is
//! applied to the gate and written down.

mod fallback;
mod write;

use std::sync::Arc;
use std::time::Duration;

use super::lane::{Job, Lane, ROUTE, State};
use super::pace::Begun;
use super::{Shared, words};
use crate::auth::needs_user;
use crate::engine::gate::{Moment, Trial};
use crate::engine::hold::HoldKind;
use crate::engine::pace::SOON;
use crate::engine::words::{Client, add_fate};
use crate::model::{
    FailureClass, FailureRecord, Missing, RecordingId, SessionId, SessionKey, Timestamp, Token,
};
use crate::platform::fetch::{FETCH_SCOPES, FetchAnswer, Fetched, organizations};
use crate::platform::{Failure, Limits};
use crate::policy::fetch::{self as policy, About, Decision, Failed, Item, Next, Purview, Route};
use crate::policy::retry::{Credential, RouteHold, pause};
use crate::store::records;

/// A request that was answered.
pub struct Sent {
    pub job: Job,
    pub token: Token,
    pub number: u64,
    pub begun: Begun,
}

impl Sent {
    fn id(&self) -> Option<&RecordingId> {
        match &self.job {
            Job::One(recording) => Some(&recording.id),
            Job::List(_) => None,
        }
    }

    fn own(&self) -> &records::Job {
        match &self.job {
            Job::One(recording) => recording.job.as_ref().expect("what is wanted has a job"),
            Job::List(listing) => &listing.job,
        }
    }
}

pub async fn settle(lane: &Arc<Lane>, shared: &Arc<Shared>, sent: Sent, answer: FetchAnswer) {
    let source = Arc::clone(&lane.about.token);
    let limits = answer.limits;
    sent.begun.heard(&limits, shared.clock.now());
    match answer.fetched {
        Fetched::Failed(failure) => {
            failed(lane, shared, sent, *failure, limits).await;
        }
        given => {
            source.accepted(sent.token.generation, &as_session(lane, &sent));
            let number = sent.number;
            write::given(lane, shared, sent, given).await;
            note_given(lane, shared, number);
            heed_budget(lane, shared, number, &limits);
        }
    }
}

/// A slot tells the platform's 401s apart by whom they met.
fn as_session(lane: &Lane, sent: &Sent) -> SessionKey {
    let name = sent.id().map_or("list-of-recordings", RecordingId::as_str);
    SessionKey {
        tenant: lane.tenant().clone(),
        session: name
            .parse::<SessionId>()
            .expect("an id is as safe as a session's name"),
    }
}

fn note_given(lane: &Lane, shared: &Shared, number: u64) {
    let mut state = lane.state();
    state.refused = None;
    state.failing = 0;
    state.throttles = 0;
    state.given += 1;
    state.last_given = Some(shared.clock.wall());
    for kind in [HoldKind::Outage, HoldKind::Blocked] {
        state.gate.disproved(kind, ROUTE, number);
    }
}

async fn failed(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    sent: Sent,
    failure: Failure,
    limits: Limits,
) {
    let mut case = Case::of(lane, shared, &sent, failure).await;
    let mut decision = decide(lane, shared, &sent, &case);
    let mut fallback_tried = sent.own().fallback_tried;
    if decision.next == Next::Fallback {
        let needs_user = case.purview.needs_user;
        match fallback::ask(lane, shared, &sent).await {
            fallback::Other::Given(given) => {
                let number = sent.number;
                write::given(lane, shared, sent, given).await;
                note_given(lane, shared, number);
                return;
            }
            fallback::Other::Unanswered(failure) => case = Case::of_other(*failure),
            // Its word counts: the first token is not the one that this platform answers.
            fallback::Other::Refused(failure) if needs_user => case = Case::of_other(*failure),
            fallback::Other::Refused(_) => fallback_tried = true,
            // It stops: what is wanted stays as it was.
            fallback::Other::NotHad(None) if needs_user => return,
            fallback::Other::NotHad(why) => {
                if let Some(why) = why {
                    case.record.message = words::without_fallback(why, &case.record.message);
                }
            }
        }
        case.purview.fallback = false;
        decision = decide(lane, shared, &sent, &case);
    }
    let at = shared.moment();
    hold_route(lane, shared, &sent, &case, decision, at);
    heed_budget(lane, shared, sent.number, &limits);
    let outcome = write::Outcome {
        case,
        decision,
        fallback_tried,
        at,
    };
    write::failed(lane, shared, sent, outcome).await;
}

/// A failure with what is known of its token.
struct Case {
    record: FailureRecord,
    failed: Failed,
    purview: Purview,
    /// It met the other kind of token.
    of_other: bool,
}

impl Case {
    async fn of(lane: &Lane, shared: &Shared, sent: &Sent, failure: Failure) -> Self {
        let mut record = failure.record;
        let source = lane.about.token.as_ref();
        let unauthorized = record.class == FailureClass::Unauthorized;
        let credential = unauthorized.then(|| {
            let alone = is_alone(lane, shared);
            let fate = source.fate(sent.token.generation);
            let session = as_session(lane, sent);
            let credential = fallback::reject(source, session, &sent.token, &record, alone);
            add_fate(&mut record, fate);
            credential
        });
        let purview = match record.class {
            FailureClass::PurviewPending => purview(lane, sent, &mut record),
            FailureClass::Forbidden if needs_user(&record.message) => Purview {
                needs_user: true,
                fallback: lane.about.fallback.is_some(),
                ..Purview::default()
            },
            _ => Purview::default(),
        };
        Self {
            failed: Failed {
                class: record.class,
                status: record.status,
                hint: failure.retry_after,
                credential,
            },
            record,
            purview,
            of_other: false,
        }
    }

    /// What the other kind of token met.
    fn of_other(failure: Failure) -> Self {
        Self {
            failed: Failed {
                class: failure.record.class,
                status: failure.record.status,
                hint: failure.retry_after,
                credential: None,
            },
            record: failure.record,
            purview: Purview::default(),
            of_other: true,
        }
    }
}

/// What the token says of itself, where the platform names its purview.
fn purview(lane: &Lane, sent: &Sent, record: &mut FailureRecord) -> Purview {
    let granted = lane.about.token.granted_scopes();
    let lacking: Vec<&str> = granted.map_or_else(Vec::new, |granted| {
        let lacks = |scope: &&str| !granted.iter().any(|has| has == scope);
        FETCH_SCOPES.into_iter().filter(lacks).collect()
    });
    let named = organizations(&sent.token);
    let other = lane.about.organization.as_ref().zip(named.as_ref());
    let other_organization = other.is_some_and(|(own, named)| !named.contains(own));
    if !lacking.is_empty() {
        let scopes = lacking.join(" ");
        record.message = format!("the token lacks the scope {scopes}: {}", record.message);
        record.missing = Some(Missing::Scope(scopes));
    } else if let (true, Some((own, named))) = (other_organization, other) {
        record.message = words::other_organization(own, named);
    }
    Purview {
        needs_user: false,
        lacks_scope: !lacking.is_empty(),
        other_organization,
        fallback: lane.about.fallback.is_some()
            && !sent.own().fallback_tried
            && sent.id().is_some(),
    }
}

fn is_alone(lane: &Lane, shared: &Shared) -> bool {
    let records = shared.store.records();
    let listing = u64::from(records.listing(lane.tenant()).is_some());
    records.counts(lane.tenant()).wanted + listing <= 1
}

fn decide(lane: &Lane, shared: &Shared, sent: &Sent, case: &Case) -> Decision {
    let own = sent.own();
    let listing = sent.id().is_none();
    let about = policy::about(&case.failed, case.purview, listing);
    let holds_item = case.failed.credential == Some(Credential::HoldSession);
    let item = Item {
        listing,
        tries: own.tries + u32::from(about == About::Item),
        refusals: own.refusals + u32::from(about == About::Route || holds_item),
        failures: own.failures + u32::from(about == About::Silence),
        waited: Duration::from_millis(waited(own, shared.clock.wall())),
    };
    let alone = is_alone(lane, shared);
    let mut state = lane.state();
    state.failing = match about {
        About::Silence => state.failing.saturating_add(1),
        _ => 0,
    };
    if case.failed.class == FailureClass::Throttled {
        state.throttles = state.throttles.saturating_add(1);
    }
    let alike = state.refused.as_ref();
    let route = Route {
        outage: state.gate.get(HoldKind::Outage, ROUTE).is_some(),
        blocked: state.gate.get(HoldKind::Blocked, ROUTE).is_some(),
        refused_alike: alike.is_some_and(|(class, whose)| {
            *class == case.failed.class && whose.as_ref() != sent.id()
        }),
        alone,
        works: state.last_given.is_some_and(|given| given >= own.since),
        failing: state.failing,
        throttles: state.throttles,
    };
    if about == About::Route {
        state.refused = Some((case.failed.class, sent.id().cloned()));
    }
    drop(state);
    policy::decide(
        &case.failed,
        case.purview,
        &item,
        &route,
        shared.chance.draw(),
    )
}

/// With the wait that this answer ended, as far as it was planned: what it was longer, the route was closed.
fn waited(job: &records::Job, now: Timestamp) -> u64 {
    let since = u64::try_from(now.since(job.since).as_millis()).unwrap_or(u64::MAX);
    job.waited_ms.saturating_add(since.min(job.planned_ms))
}

fn hold_route(
    lane: &Lane,
    shared: &Shared,
    sent: &Sent,
    case: &Case,
    decision: Decision,
    at: Moment,
) {
    let other = lane.about.fallback.as_ref();
    let source = other.filter(|_| case.of_other).unwrap_or(&lane.about.token);
    let whose = words::Whose {
        tenant: lane.tenant(),
        has_fallback: other.is_some(),
        client: Client {
            id: source.client_id(),
            granted: source.granted_scopes(),
        },
    };
    let mut state = lane.state();
    let trial = Trial {
        number: sent.number,
        youngest: state.number,
        words: words::of(&case.record, &whose),
        record: Some(case.record.clone()),
        draw: shared.chance.draw(),
    };
    let answered = policy::about(&case.failed, case.purview, sent.id().is_none()) != About::Silence;
    let State { gate, .. } = &mut *state;
    if answered {
        gate.disproved(HoldKind::Outage, ROUTE, sent.number);
    }
    match decision.route {
        Some(RouteHold::Throttle(wait)) => {
            gate.throttle(ROUTE, wait, &trial, at);
            sent.begun.refused(wait, at.now);
        }
        Some(RouteHold::Outage) => gate.hold_until_probe(HoldKind::Outage, ROUTE, &trial, at),
        Some(RouteHold::Block) => gate.hold_until_probe(HoldKind::Blocked, ROUTE, &trial, at),
        None => {}
    }
    if decision.route != Some(RouteHold::Block) {
        gate.probe_again(HoldKind::Blocked, ROUTE, &trial, at.now);
    }
}

/// Nothing is left of a budget that is not given again soon; what comes back within minutes is the pacer's business.
fn heed_budget(lane: &Lane, shared: &Shared, number: u64, limits: &Limits) {
    let (Some(0), Some(reset_in)) = (limits.remaining, limits.reset_in) else {
        return;
    };
    if reset_in <= SOON {
        return;
    }
    let draw = shared.chance.draw();
    let mut state = lane.state();
    let trial = Trial {
        number,
        youngest: state.number,
        words: words::budget_used_up(),
        record: None,
        draw,
    };
    let wait = pause(Some(reset_in), 1, draw);
    state.gate.throttle(ROUTE, wait, &trial, shared.moment());
}
