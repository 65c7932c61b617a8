//! What the engine shows of itself: gates, tokens, rates, and why something waits.

use std::collections::BTreeMap;

use super::credential;
use super::gate::{Moment, gate_view};
use super::hold::Words;
use super::kept;
use super::lane::Lane;
use super::scheduler::Scheduler;
use super::session::{Place, Stuck, Wait};
use super::shared::Shared;
use crate::auth::CredentialHold;
use crate::model::{
    ChunkKey, FailureRecord, GapWaitView, GateView, HoldView, PaceView, SessionId, TenantId,
    Timestamp, TokenView,
};

/// One lane now.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneView {
    pub gate: GateView,
    pub token: Option<TokenView>,
    pub pace: PaceView,
    pub gap_wait: Option<GapWaitView>,
    pub last_delivery_s: Option<u64>,
    /// Since the engine started.
    pub retries_used: u64,
    /// Over the last two minutes; `None` if nothing was delivered in them.
    pub bytes_per_second: Option<f64>,
    /// The newest failure, and of which chunk.
    pub last_failure: Option<(ChunkKey, FailureRecord)>,
}

impl LaneView {
    /// How long `bytes` take at the present rate.
    pub fn eta_s(&self, bytes: u64) -> Option<u64> {
        self.bytes_per_second
            .map(|rate| (bytes as f64 / rate.max(1.0)).ceil() as u64)
    }
}

/// Why a lane or a session waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub gate: GateView,
    /// What happens next.
    pub next: String,
    pub next_at: Option<Timestamp>,
    /// What a person can do; empty if there is nothing to do but wait.
    pub remedy: String,
    pub last_failure: Option<FailureRecord>,
}

pub fn lanes(shared: &Shared) -> BTreeMap<TenantId, LaneView> {
    let count = shared.core().lanes.len();
    (0..count)
        .map(|number| {
            // Sources are asked outside the lock: they have one of their own.
            let slot = Slot::of(shared, number);
            let core = shared.core();
            let lane = &core.lanes[number];
            let view = LaneView {
                gate: gate(shared, lane, &slot),
                token: slot.token,
                pace: core.pace(number, shared.clock.now()),
                gap_wait: gap_wait(shared, lane),
                last_delivery_s: lane
                    .tally
                    .last_delivery
                    .map(|(at, _)| shared.clock.now().since(at).as_secs()),
                retries_used: lane.tally.retries_used,
                bytes_per_second: lane.rate.bytes_per_second(shared.clock.now()),
                last_failure: lane.last_failure.clone(),
            };
            (lane.tenant.clone(), view)
        })
        .collect()
}

/// The missing sequences that keep the lane longest.
fn gap_wait(shared: &Shared, lane: &Lane) -> Option<GapWaitView> {
    if lane.asleep {
        return None;
    }
    let (id, missing, sessions) = lane.longest_gap()?;
    let at = shared.moment();
    let until = at.wall.saturating_add(missing.until.since(at.now));
    Some(GapWaitView {
        session: id.clone(),
        first: missing.first,
        last: missing.last,
        until: until.to_string(),
        sessions,
    })
}

/// A lane's slot now; tenants that nobody configured have none.
#[derive(Default)]
struct Slot {
    number: usize,
    token: Option<TokenView>,
    hold: Option<CredentialHold>,
}

impl Slot {
    fn of(shared: &Shared, number: usize) -> Self {
        let source = shared.lanes.get(number).map(|parts| &parts.token);
        Self {
            number,
            token: source.map(|source| source.view()),
            hold: source.and_then(|source| source.hold()),
        }
    }

    fn has_a_token(&self) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| token.state == "valid")
    }
}

fn gate(shared: &Shared, lane: &Lane, slot: &Slot) -> GateView {
    let at = shared.moment();
    let mut holds = lane.gate.views(at);
    // A slot that is being tried again has no hold for that moment; its lane still waits for it.
    let hold = slot.hold.as_ref().or(lane.credential.as_ref());
    let credentials = shared.credentials();
    if let Some(hold) = hold {
        let since = credentials.since(slot.number, hold);
        holds.push(credential_view(hold, since, at));
    } else if let Some(kept) = credentials.of(slot.number)
        && !slot.has_a_token()
    {
        // What blocked it before this start, until its slot has tried.
        holds.push(kept::view(kept, at.wall));
    }
    gate_view(holds)
}

fn credential_view(hold: &CredentialHold, since: Timestamp, at: Moment) -> HoldView {
    HoldView {
        kind: credential::word(hold.kind).to_owned(),
        route: None,
        reason: Words::new(&hold.reason, &hold.remedy).line(),
        until: Some(at.wall.saturating_add(hold.until.since(at.now)).to_string()),
        since: Some(since.to_string()),
        last: hold.last.clone(),
    }
}

pub fn why(shared: &Shared, tenant: &TenantId, session: Option<&SessionId>) -> Option<Why> {
    let number = shared.core().lane_of(tenant)?;
    let slot = Slot::of(shared, number);
    let core = shared.core();
    let lane = &core.lanes[number];
    let gate = gate(shared, lane, &slot);
    let last_failure = lane.last_failure.as_ref().map(|(_, record)| record.clone());
    let mut why = Why {
        next: "it is sent when its turn comes".to_owned(),
        next_at: None,
        remedy: String::new(),
        last_failure,
        gate,
    };
    if let Some(id) = session {
        say_session(shared, &core, number, id, &mut why)?;
    }
    if let Some(hold) = why.gate.holds.first() {
        why.next = format!("its lane waits: {}", hold.reason);
        why.next_at = hold
            .until
            .as_deref()
            .and_then(|until| Timestamp::parse(until).ok());
        why.remedy = match hold.kind.as_str() {
            "operator" | "blocked" => format!("worker tenants resume {tenant}"),
            _ => String::new(),
        };
    }
    Some(why)
}

fn say_session(
    shared: &Shared,
    core: &Scheduler,
    lane: usize,
    id: &SessionId,
    why: &mut Why,
) -> Option<()> {
    let session = core.session(lane, id)?;
    let refused = session.refusals.as_ref().and_then(|r| r.record.clone());
    why.last_failure = refused.or_else(|| {
        let (key, record) = core.lanes[lane].last_failure.as_ref()?;
        (key.session == *id).then(|| record.clone())
    });
    let now = shared.clock.now();
    let (next, until) = match session.placed.unwrap_or(Place::Idle) {
        Place::Idle => ("nothing of it is owed", None),
        Place::InFlight => ("it is being sent", None),
        Place::First | Place::Ready => ("it is sent when its turn comes", None),
        Place::Crashed => (
            "its chunk was being sent when the process ended, and goes last",
            None,
        ),
        Place::Waiting(until, wait) => (wait.sentence(), Some(until)),
        Place::Stuck(stuck) => (stuck.sentence(), None),
    };
    why.next = next.to_owned();
    why.next_at = until.map(|until| shared.clock.wall().saturating_add(until.since(now)));
    if let Place::Stuck(Stuck::BehindDead(sequence)) = session.placed? {
        let tenant = &core.lanes[lane].tenant;
        why.remedy = format!("worker dead redrive {tenant} {id} {sequence}, or purge");
    }
    Some(())
}

impl Wait {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Gap => "a missing sequence is waited for",
            Self::Backoff => "its chunk failed and is tried again",
            Self::Refused => "its chunk was refused and is tried again alone",
            Self::Rest => "it is tried again",
        }
    }
}

impl Stuck {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Crashes(_) => "the process ended five times while its chunk was being sent",
            Self::BehindDead(_) => "a dead letter stands before it and on_dead is hold",
        }
    }
}
