//! A tenant's part of the backlog: its gate, its sessions in turn, and what its requests have shown.
//!
//! Sessions that could be served wait in queues and come out in turn; those that wait for a time stand in an
//! ordered set. An entry is valid while the session's `placed` says so; others are dropped when they come up.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::evidence::Evidence;
use super::gate::{Gate, Passage};
use super::hold::{Hold, HoldKind};
use super::limit::Limit;
use super::pace::Domain;
use super::rate::Rate;
use super::session::{Missing, OnDead, Place, Rules, Session, Wait, Work};
use crate::auth::CredentialHold;
use crate::clock::Instant;
use crate::model::{ChunkKey, Count, FailureRecord, Route, SessionId, TenantId, Timestamp};
use crate::policy::grouping::{self, Learned};
use crate::policy::retry::Limits;

/// The platform's own; the first of the routes that an upload may take.
pub const ROUTE: Route = Route::Deliver;
/// A hold of either keeps uploads. Only presigned lanes ever talk to a storage host.
pub const ROUTES: [Route; 2] = [ROUTE, Route::StoreHost];

/// What is known of the lane's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// Worth asking for.
    Unknown,
    /// Asked for; someone waits for the answer and will say so.
    Awaited,
}

/// Why a turn is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deliver,
    /// One request, to find out whether the route is well again.
    Probe,
}

/// What has happened since the engine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub delivered: Count,
    pub dead: Count,
    /// Failures that counted against their chunk.
    pub retries_used: u64,
    pub last_delivery: Option<(Instant, Timestamp)>,
}

/// The settings that a lane decides by.
#[derive(Debug, Clone, Copy)]
pub struct LaneRules {
    pub limits: Limits,
    pub sessions: Rules,
    /// Requests on the wire at most.
    pub concurrency: usize,
    pub group: grouping::Limits,
}

impl LaneRules {
    /// For a tenant that nobody configured: its lane never sends.
    pub const UNKNOWN: Self = Self {
        limits: Limits {
            max_retries: 10,
            min_retry_span: Duration::from_secs(24 * 3600),
        },
        sessions: Rules {
            gap_wait: Duration::from_secs(120),
            on_dead: OnDead::Skip,
        },
        concurrency: 1,
        group: grouping::Limits::ALONE,
    };
}

#[derive(Debug)]
pub struct Lane {
    pub tenant: TenantId,
    pub rules: LaneRules,
    pub gate: Gate,
    pub limit: Limit,
    /// Whose request budget it spends.
    pub domain: Domain,
    /// The largest request that its platform takes.
    pub learned: Learned,
    pub token: TokenState,
    /// Why its slot refused, until it gives a token again.
    pub credential: Option<CredentialHold>,
    /// The newest failure, and of which chunk.
    pub last_failure: Option<(ChunkKey, FailureRecord)>,
    /// The block whose next probe has been given a fresh token.
    renewed_for: Option<Instant>,
    pub evidence: Evidence,
    pub tally: Tally,
    pub rate: Rate,
    /// Not part of this run: its chunks stay where they are.
    pub asleep: bool,
    pub in_flight: usize,
    pub sessions: HashMap<SessionId, Session>,
    /// Sessions that were refused; those that are no more are dropped when they come up.
    refused: BTreeSet<SessionId>,
    first: VecDeque<SessionId>,
    ready: VecDeque<SessionId>,
    crashed: VecDeque<SessionId>,
    timers: BTreeSet<(Instant, SessionId)>,
}

impl Lane {
    pub fn new(tenant: TenantId, rules: LaneRules, domain: Domain) -> Self {
        Self {
            domain,
            learned: Learned::default(),
            gate: Gate::new(tenant.clone()),
            tenant,
            rules,
            limit: Limit::new(rules.concurrency),
            token: TokenState::Unknown,
            credential: None,
            last_failure: None,
            renewed_for: None,
            evidence: Evidence::default(),
            tally: Tally::default(),
            rate: Rate::default(),
            asleep: false,
            in_flight: 0,
            sessions: HashMap::new(),
            refused: BTreeSet::new(),
            first: VecDeque::new(),
            ready: VecDeque::new(),
            crashed: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// What the store says is next for a session.
    pub fn look(&mut self, id: &SessionId, work: Option<Work>, now: Instant) {
        let session = self.sessions.entry(id.clone()).or_default();
        session.look(work);
        if session.work.is_none() && !session.in_flight && !session.unread {
            self.sessions.remove(id);
            return;
        }
        self.put_in_place(id, now);
    }

    /// Moves a session to where it belongs now.
    pub fn put_in_place(&mut self, id: &SessionId, now: Instant) {
        let route_held = self.route_is_held();
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let place = session.place(now, route_held);
        if session.placed == Some(place) {
            return;
        }
        session.placed = Some(place);
        match place {
            Place::First => self.first.push_back(id.clone()),
            Place::Ready => self.ready.push_back(id.clone()),
            Place::Crashed => self.crashed.push_back(id.clone()),
            Place::Waiting(until, _) => {
                self.timers.insert((until, id.clone()));
            }
            Place::Idle | Place::InFlight | Place::Stuck(_) => {}
        }
    }

    /// After a hold of the route came or went: sessions that were refused wait, or may be the probe.
    pub fn put_all_in_place(&mut self, now: Instant) {
        for id in self.refused_sessions() {
            self.put_in_place(&id, now);
        }
    }

    /// A refusal of this session is noted.
    pub fn note_refused(&mut self, id: &SessionId) {
        self.refused.insert(id.clone());
    }

    /// The sessions with refusals in a row.
    pub fn refused_sessions(&mut self) -> Vec<SessionId> {
        let sessions = &self.sessions;
        self.refused
            .retain(|id| sessions.get(id).is_some_and(|s| s.refusals.is_some()));
        self.refused.iter().cloned().collect()
    }

    /// An outage or a block is in force.
    pub fn route_is_held(&self) -> bool {
        [HoldKind::Outage, HoldKind::Blocked]
            .into_iter()
            .any(|kind| self.hold(kind).is_some())
    }

    /// Ends what time ends: throttles and waits.
    pub fn tick(&mut self, now: Instant) {
        if self.gate.expire(now) {
            self.limit.start_again();
        }
        while let Some((until, _)) = self.timers.first() {
            if *until > now {
                break;
            }
            let Some((until, id)) = self.timers.pop_first() else {
                break;
            };
            let waits = self.sessions.get(&id).and_then(|session| session.placed);
            if matches!(waits, Some(Place::Waiting(at, _)) if at == until) {
                self.put_in_place(&id, now);
            }
        }
    }

    /// The session whose turn it is, if the lane may use it now. `crashed_one` says that a chunk
    /// which once ended the process is on the wire already.
    pub fn candidate(&mut self, now: Instant, crashed_one: bool) -> Option<(SessionId, Kind)> {
        if self.asleep {
            return None;
        }
        let kind = match self.passage(now) {
            Passage::Open if self.in_flight < self.limit.now() => Kind::Deliver,
            Passage::Probe => Kind::Probe,
            Passage::Open | Passage::Closed(_) => return None,
        };
        if self.token == TokenState::Awaited {
            return None;
        }
        let id = front(&mut self.first, &self.sessions, Place::First)
            .or_else(|| front(&mut self.ready, &self.sessions, Place::Ready))
            .or_else(|| {
                front(&mut self.crashed, &self.sessions, Place::Crashed).filter(|_| !crashed_one)
            })?;
        Some((id, kind))
    }

    /// Uploads are under way, or could be but for the budget.
    pub fn has_uploads(&mut self, now: Instant) -> bool {
        self.in_flight > 0 || self.candidate(now, false).is_some()
    }

    /// It would send more but for its own limit.
    pub fn is_full(&self, now: Instant) -> bool {
        self.in_flight >= self.limit.now()
            && self.in_flight > 0
            && !(self.first.is_empty() && self.ready.is_empty())
            && !self.asleep
            && self.passage(now) == Passage::Open
    }

    pub fn passage(&self, now: Instant) -> Passage {
        let [deliver, store_host] = ROUTES.map(|route| self.gate.passage(route, now));
        deliver.and(store_host)
    }

    /// The first hold of this kind that keeps uploads.
    pub fn hold(&self, kind: HoldKind) -> Option<&Hold> {
        ROUTES
            .into_iter()
            .find_map(|route| self.gate.get(kind, route))
    }

    /// A token would be used at once if there were one.
    pub fn wants_token(&mut self, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.token, TokenState::Unknown);
        let wants = self.candidate(now, false).is_some();
        self.token = before;
        wants
    }

    pub fn begin(&mut self, id: &SessionId, kind: Kind, now: Instant) {
        self.in_flight += 1;
        if kind == Kind::Probe {
            self.gate.probe_begins();
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.in_flight = true;
        }
        for queue in [&mut self.first, &mut self.ready, &mut self.crashed] {
            // What is left in a queue would be valid again as soon as the turn ends.
            queue.pop_front_if(|front| front == id);
        }
        self.put_in_place(id, now);
    }

    pub fn end(&mut self, id: &SessionId, kind: Kind) {
        self.in_flight -= 1;
        if kind == Kind::Probe {
            self.gate.probe_ends();
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.in_flight = false;
        }
    }

    /// Whether the probe that is due should have a token that was minted for it: once a probe.
    pub fn take_renewal(&mut self) -> bool {
        let due = self
            .gate
            .get(HoldKind::Blocked, ROUTE)
            .and_then(|hold| hold.until);
        let wanted = due.is_some() && due != self.renewed_for;
        self.renewed_for = due;
        wanted
    }

    /// Someone says that whatever was wrong is cured: what was refused may be tried at once.
    pub fn hurry(&mut self, now: Instant) {
        for id in self.refused_sessions() {
            let session = self.sessions.get_mut(&id);
            if let Some(refusals) = session.and_then(|s| s.refusals.as_mut()) {
                refusals.until = refusals.until.min(now);
            }
            self.put_in_place(&id, now);
        }
    }

    /// The missing sequences that keep it longest, with their session, and how many sessions wait so.
    pub fn longest_gap(&self) -> Option<(&SessionId, Missing, u64)> {
        let mut count = 0;
        let waits = self.sessions.iter().filter_map(|(id, session)| {
            let waits = matches!(session.placed, Some(Place::Waiting(_, Wait::Gap)));
            let missing = session.work.as_ref()?.missing.filter(|_| waits)?;
            count += 1;
            Some((id, missing))
        });
        let (id, missing) = waits.max_by_key(|(id, it)| (it.until, *id))?;
        Some((id, missing, count))
    }

    /// When something here changes by itself; `None` if only an event can change it.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.asleep {
            return None;
        }
        let timer = self.timers.first().map(|(until, _)| *until);
        match self.passage(now) {
            Passage::Closed(Some(until)) => Some(timer.map_or(until, |timer| timer.min(until))),
            _ => timer,
        }
    }
}

/// The first session of a queue that is still placed in it.
fn front(
    queue: &mut VecDeque<SessionId>,
    sessions: &HashMap<SessionId, Session>,
    place: Place,
) -> Option<SessionId> {
    while let Some(id) = queue.front() {
        if sessions.get(id).and_then(|session| session.placed) == Some(place) {
            return Some(id.clone());
        }
        queue.pop_front();
    }
    None
}
