//! Who sends next, decided without waiting for anything: lanes, their sessions, and the limits that all share.
//! The shell asks, does, and reports back; every wait is a point in time that it is told.

use std::collections::{HashMap, VecDeque};

use super::budget::ByteBudget;
use super::gate::{GateEvent, Moment};
use super::group;
use super::hold::{HoldChange, HoldKind};
use super::lane::{Kind, Lane, LaneRules, ROUTE, TokenState};
use super::pace::Pacers;
use super::session::{Session, Work};
use crate::auth::CredentialHold;
use crate::clock::Instant;
use crate::model::{ChunkKey, SessionId, SessionKey, TenantId};
use crate::policy::fairness::Fairness;
use crate::policy::grouping;
use crate::policy::pacing::Next;
use crate::store::{Head, StoredHold};

/// The right to send the next chunk of one session. Ends with [`Scheduler::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub lane: usize,
    pub tenant: TenantId,
    pub session: SessionId,
    pub sequence: u64,
    /// Of the first chunk; of all its parts once they are taken.
    pub bytes: u64,
    /// Chunks in the request.
    pub parts: u32,
    /// What it may take.
    pub most: grouping::Limits,
    pub kind: Kind,
    /// Which try of the chunk it is, from 1.
    pub attempt: u32,
    /// Requests are numbered as they begin.
    pub number: u64,
    pub begun_at: Instant,
    /// It was on the wire once when the process ended.
    pub(super) crashed: bool,
    /// What it costs of the byte budget.
    pub(super) cost: u64,
}

impl Turn {
    pub fn chunk_key(&self) -> ChunkKey {
        ChunkKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
            sequence: self.sequence,
        }
    }

    pub fn session_key(&self) -> SessionKey {
        SessionKey {
            tenant: self.tenant.clone(),
            session: self.session.clone(),
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Not yet begun: asking again gives the same.
    Turn(Turn),
    /// Nothing before then, or before an event.
    Wait(Option<Instant>),
}

#[derive(Debug)]
pub struct Scheduler {
    pub(super) lanes: Vec<Lane>,
    by_tenant: HashMap<TenantId, usize>,
    pub(super) fairness: Fairness,
    pub(super) pacers: Pacers,
    workers: usize,
    in_flight: usize,
    bytes: ByteBudget,
    /// The number of the youngest turn.
    pub(super) youngest: u64,
    /// A chunk that once ended the process is on the wire.
    crashed_one: bool,
    /// An upload waits for something to happen, perhaps for a fetch whose turn it is.
    gave_way: bool,
    unread: VecDeque<(usize, SessionId)>,
    changes: VecDeque<HoldChange>,
    events: Vec<GateEvent>,
}

impl Scheduler {
    pub fn new(workers: usize, bytes: u64) -> Self {
        Self {
            lanes: Vec::new(),
            by_tenant: HashMap::new(),
            fairness: Fairness::default(),
            pacers: Pacers::default(),
            bytes: ByteBudget::new(bytes),
            workers: workers.max(1),
            in_flight: 0,
            youngest: 0,
            crashed_one: false,
            gave_way: false,
            unread: VecDeque::new(),
            changes: VecDeque::new(),
            events: Vec::new(),
        }
    }

    pub fn add_lane(&mut self, tenant: TenantId, rules: LaneRules) -> usize {
        let number = self.lanes.len();
        self.by_tenant.insert(tenant.clone(), number);
        let domain = self.pacers.own();
        self.lanes.push(Lane::new(tenant, rules, domain));
        number
    }

    pub fn lane_of(&self, tenant: &TenantId) -> Option<usize> {
        self.by_tenant.get(tenant).copied()
    }

    /// A stored hold takes effect again.
    pub fn restore(&mut self, stored: &StoredHold, now: Instant) {
        if let Some(number) = self.lane_of(&stored.key.tenant) {
            let lane = &mut self.lanes[number];
            lane.gate.restore(stored, now);
            lane.limit.start_again();
            // What blocked it is not known any more; a backlog that was refused whole must not lose a
            // chunk at every start.
            lane.evidence.condemned_one |= lane.hold(HoldKind::Blocked).is_some();
            self.collect_changes(number);
        }
    }

    /// The store has news of a session. A tenant that nobody configured gets a lane that waits.
    pub fn arrived(&mut self, key: SessionKey, at: Moment) {
        let lane = self
            .lane_of(&key.tenant)
            .unwrap_or_else(|| self.add_unknown(key.tenant, at));
        let session = self.lanes[lane]
            .sessions
            .entry(key.session.clone())
            .or_default();
        if !session.unread {
            session.unread = true;
            self.unread.push_back((lane, key.session));
        }
    }

    /// Sessions whose head must be read from the store, at most `most`. Those on the wire are read when they end.
    pub fn take_unread(&mut self, most: usize) -> Vec<(usize, SessionKey)> {
        let mut taken = Vec::new();
        for _ in 0..self.unread.len().min(most + self.in_flight) {
            let Some((lane, session)) = self.unread.pop_front() else {
                break;
            };
            let Some(entry) = self.lanes[lane].sessions.get_mut(&session) else {
                continue;
            };
            if entry.in_flight {
                self.unread.push_back((lane, session));
                continue;
            }
            entry.unread = false;
            entry.reading = true;
            let tenant = self.lanes[lane].tenant.clone();
            taken.push((lane, SessionKey { tenant, session }));
        }
        taken
    }

    /// What the store says is next for a session.
    pub fn look(&mut self, lane: usize, id: &SessionId, head: Option<&Head>, at: Moment) {
        let lane = &mut self.lanes[lane];
        let work = head.map(|head| Work::of(head, lane.rules.sessions, at.now, at.wall));
        lane.look(id, work, at.now);
    }

    pub fn pick(&mut self, now: Instant) -> Pick {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].tick(now);
            self.collect_changes(lane);
        }
        if self.in_flight >= self.workers {
            return Pick::Wait(None);
        }
        let mut candidates = Vec::new();
        let mut full = Vec::new();
        let mut paced: Option<Instant> = None;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let Some((session, kind)) = lane.candidate(now, self.crashed_one) else {
                if lane.is_full(now) {
                    full.push(number);
                }
                continue;
            };
            match self.pacers.next_upload(lane.domain, now) {
                Next::Now => candidates.push((number, session, kind)),
                Next::At(at) => paced = Some(paced.map_or(Instant(at), |p| p.min(Instant(at)))),
                Next::Event => self.gave_way = true,
            }
        }
        let can_send: Vec<usize> = candidates.iter().map(|(lane, ..)| *lane).collect();
        let Some(lane) = self.fairness.choose(&can_send, &full) else {
            let wakes = self.lanes.iter().filter_map(|lane| lane.next_wake(now));
            return Pick::Wait(wakes.chain(paced).min());
        };
        let (_, session, kind) = candidates
            .into_iter()
            .find(|(number, ..)| *number == lane)
            .expect("fairness chooses among the candidates");
        let turn = self.turn(lane, session, kind, now);
        if !self.bytes.has_room(turn.cost) {
            // Whoever ends makes room. Nobody smaller goes first, or the large would wait for ever.
            return Pick::Wait(None);
        }
        Pick::Turn(turn)
    }

    /// Whether an upload gave way since this was asked.
    pub fn take_gave_way(&mut self) -> bool {
        std::mem::take(&mut self.gave_way)
    }

    fn turn(&self, lane: usize, session: SessionId, kind: Kind, now: Instant) -> Turn {
        let entry = &self.lanes[lane].sessions[&session];
        let work = entry.work.as_ref().expect("a candidate has work");
        let most = group::most(&self.lanes[lane], entry, work, kind, now);
        let cost = match most.is_alone() {
            true => work.bytes,
            false => most.max_bytes,
        };
        Turn {
            lane,
            tenant: self.lanes[lane].tenant.clone(),
            sequence: work.sequence,
            bytes: work.bytes,
            parts: 1,
            most,
            cost: ByteBudget::cost(cost),
            kind,
            attempt: entry.tries.sent.max(work.counted).saturating_add(1),
            number: self.youngest + 1,
            begun_at: now,
            crashed: work.crashes > 0,
            session,
        }
    }

    /// Begins a turn that was picked a moment ago, unless something changed since.
    pub fn begin_if_unchanged(&mut self, turn: &Turn) -> bool {
        let unchanged = matches!(self.pick(turn.begun_at), Pick::Turn(again) if again == *turn);
        if unchanged {
            self.begin(turn);
        }
        unchanged
    }

    pub fn begin(&mut self, turn: &Turn) {
        self.in_flight += 1;
        self.youngest = turn.number;
        self.crashed_one |= turn.crashed;
        self.lanes[turn.lane].begin(&turn.session, turn.kind, turn.begun_at);
        self.fairness.charge(turn.lane, turn.bytes);
        self.bytes.take(turn.cost);
        let domain = self.lanes[turn.lane].domain;
        let (number, at) = (turn.number, turn.begun_at);
        self.pacers.begin(domain, number, ROUTE, at);
    }

    /// The turn is over; `head` is what the store says is next, `Err` if it could not be asked.
    pub fn finish(&mut self, turn: &Turn, head: Result<Option<&Head>, Rest>, at: Moment) {
        self.in_flight -= 1;
        self.crashed_one &= !turn.crashed;
        self.bytes.give_back(turn.cost);
        let domain = self.lanes[turn.lane].domain;
        self.pacers.end(domain, turn.number);
        let lane = &mut self.lanes[turn.lane];
        lane.end(&turn.session, turn.kind);
        match head {
            Ok(head) => self.look(turn.lane, &turn.session, head, at),
            Err(Rest(rest)) => {
                if let Some(session) = lane.sessions.get_mut(&turn.session) {
                    session.rest_until = Some(at.now.saturating_add(rest));
                }
                lane.put_in_place(&turn.session, at.now);
                self.arrived(turn.session_key(), at);
            }
        }
        self.collect_changes(turn.lane);
    }

    /// The lane has no token now; someone waits for one.
    pub fn token_awaited(&mut self, lane: usize) {
        self.lanes[lane].token = TokenState::Awaited;
    }

    /// The slot refuses; whoever waits goes on waiting.
    pub fn token_held(&mut self, lane: usize, hold: CredentialHold) {
        self.lanes[lane].credential = Some(hold);
    }

    /// The wait is over. After a hold of the slot one request goes first.
    pub fn token_may_be_had(&mut self, lane: usize, had: bool) {
        let lane = &mut self.lanes[lane];
        lane.token = TokenState::Unknown;
        if had && lane.credential.take().is_some() {
            lane.limit.start_again();
        }
    }

    /// Whether the lane was paused before.
    pub fn pause(&mut self, lane: usize, at: Moment) -> bool {
        let was = !self.lanes[lane].gate.pause(at);
        self.collect_changes(lane);
        was
    }

    /// How many holds went or are tried now.
    pub fn resume(&mut self, lane: usize, now: Instant) -> usize {
        let gate = &mut self.lanes[lane].gate;
        let touched = usize::from(gate.unpause()) + gate.probe_now(now);
        self.lanes[lane].hurry(now);
        self.collect_changes(lane);
        touched
    }

    /// Brings the probes of the lane forward to now.
    pub fn probe_now(&mut self, lane: usize, now: Instant) {
        self.lanes[lane].gate.probe_now(now);
        self.lanes[lane].hurry(now);
    }

    /// What the store must be told of holds, oldest first.
    pub fn take_changes(&mut self) -> Vec<HoldChange> {
        self.changes.drain(..).collect()
    }

    /// What the log should say of holds, oldest first.
    pub fn take_events(&mut self) -> Vec<GateEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn has_news(&self) -> bool {
        !self.changes.is_empty() || !self.events.is_empty()
    }

    /// No other session of the turn's lane has work that could be tried.
    pub fn is_alone(&self, turn: &Turn) -> bool {
        !self.lanes[turn.lane]
            .sessions
            .iter()
            .any(|(id, session)| *id != turn.session && session.can_be_tried())
    }

    pub fn take_renewal(&mut self, lane: usize) -> bool {
        self.lanes[lane].take_renewal()
    }

    pub fn wants_token(&mut self, lane: usize, now: Instant) -> bool {
        self.lanes[lane].wants_token(now)
    }

    pub fn set_asleep(&mut self, lane: usize, asleep: bool) {
        self.lanes[lane].asleep = asleep;
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    pub fn session(&self, lane: usize, id: &SessionId) -> Option<&Session> {
        self.lanes[lane].sessions.get(id)
    }

    pub(super) fn collect_changes(&mut self, lane: usize) {
        let gate = &mut self.lanes[lane].gate;
        self.changes.extend(gate.take_changes());
        self.events.extend(gate.take_events());
    }

    fn add_unknown(&mut self, tenant: TenantId, at: Moment) -> usize {
        let lane = self.add_lane(tenant, LaneRules::UNKNOWN);
        self.lanes[lane].gate.not_configured(at);
        lane
    }
}

/// The session rests: something on this side went wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest(pub std::time::Duration);

#[cfg(test)]
mod tests;
