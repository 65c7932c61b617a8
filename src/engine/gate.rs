//! A lane's gate: a set of holds, open where the set is empty. Deadlines merge by the later one, only its
//! owner removes a hold, and a result of a request sent before a hold was set says nothing about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::hold::{Hold, HoldChange, HoldId, HoldKind, KEPT_FROM, Words};
use crate::clock::Instant;
use crate::model::{
    FailureClass, FailureRecord, GateState, GateView, HoldView, PAUSED, Route, TenantId, Timestamp,
};
use crate::policy::probe;
use crate::store::StoredHold;

/// Whether a route may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Open,
    /// One request, to find out.
    Probe,
    /// Until then at least; `None`: until an event.
    Closed(Option<Instant>),
}

impl Passage {
    /// Through both of two routes.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed(None), _) | (_, Self::Closed(None)) => Self::Closed(None),
            (Self::Closed(one), Self::Closed(two)) => Self::Closed(one.max(two)),
            (Self::Closed(until), _) | (_, Self::Closed(until)) => Self::Closed(until),
            (Self::Probe, _) | (_, Self::Probe) => Self::Probe,
            (Self::Open, Self::Open) => Self::Open,
        }
    }
}

/// The moment of a change, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    pub wall: Timestamp,
}

impl Moment {
    pub fn new(now: Instant, wall: Timestamp) -> Self {
        Self { now, wall }
    }
}

/// A failed request, as far as a hold is concerned.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The request's number, and that of the youngest one sent so far.
    pub number: u64,
    pub youngest: u64,
    pub words: Words,
    pub record: Option<FailureRecord>,
    pub draw: f64,
}

/// A hold came or went: for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateEvent {
    pub tenant: TenantId,
    pub id: HoldId,
    /// Why it came; `None`: it went.
    pub set: Option<String>,
}

#[derive(Debug)]
pub struct Gate {
    tenant: TenantId,
    holds: BTreeMap<HoldId, Hold>,
    /// A probe is on the wire.
    probing: bool,
    changes: Vec<HoldChange>,
    events: Vec<GateEvent>,
}

impl Gate {
    pub fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            holds: BTreeMap::new(),
            probing: false,
            changes: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn restore(&mut self, stored: &StoredHold, now: Instant) {
        match Hold::restored(stored, now) {
            Some((id, hold)) => {
                self.holds.insert(id, hold);
            }
            // Nobody else would ever remove what nobody understands.
            None => self.changes.push(HoldChange::Remove(stored.key.clone())),
        }
    }

    /// What the store must be told since the last call.
    pub fn take_changes(&mut self) -> Vec<HoldChange> {
        std::mem::take(&mut self.changes)
    }

    /// What the log should say since the last call.
    pub fn take_events(&mut self) -> Vec<GateEvent> {
        std::mem::take(&mut self.events)
    }

    fn tell(&mut self, id: HoldId, set: Option<String>) {
        self.events.push(GateEvent {
            tenant: self.tenant.clone(),
            id,
            set,
        });
    }

    pub fn get(&self, kind: HoldKind, route: Route) -> Option<&Hold> {
        [Some(route), None]
            .into_iter()
            .find_map(|route| self.holds.get(&HoldId { kind, route }))
    }

    pub fn holds(&self) -> impl Iterator<Item = (HoldId, &Hold)> {
        self.holds.iter().map(|(id, hold)| (*id, hold))
    }

    pub fn passage(&self, route: Route, now: Instant) -> Passage {
        let mut probe = false;
        let mut closed: Option<Option<Instant>> = None;
        for (id, hold) in &self.holds {
            if id.route.is_some_and(|of| of != route) || hold.has_ended(id.kind, now) {
                continue;
            }
            let due = hold.until.is_some_and(|until| until <= now);
            if due && matches!(id.kind, HoldKind::Outage | HoldKind::Blocked) {
                probe = true;
                continue;
            }
            closed = Some(match (closed, hold.until) {
                (Some(None), _) | (_, None) => None,
                (None, until) => until,
                (Some(Some(earlier)), Some(until)) => Some(earlier.max(until)),
            });
        }
        match closed {
            Some(until) => Passage::Closed(until),
            None if probe && self.probing => Passage::Closed(None),
            None if probe => Passage::Probe,
            None => Passage::Open,
        }
    }

    pub fn probe_begins(&mut self) {
        self.probing = true;
    }

    pub fn probe_ends(&mut self) {
        self.probing = false;
    }

    /// `false` if it was paused already.
    pub fn pause(&mut self, at: Moment) -> bool {
        let id = HoldId {
            kind: HoldKind::Operator,
            route: None,
        };
        if self.holds.contains_key(&id) {
            return false;
        }
        let words = Words::new(PAUSED, "");
        self.tell(id, Some(words.line()));
        let mut hold = Hold::new(words, at.wall);
        keep(&mut self.changes, &self.tenant, id, &mut hold, at);
        self.holds.insert(id, hold);
        true
    }

    pub fn not_configured(&mut self, at: Moment) {
        let id = HoldId {
            kind: HoldKind::NotConfigured,
            route: None,
        };
        let words = Words::new(
            "the configuration does not name this tenant",
            format!("Add [tenants.{}] and start again", self.tenant),
        );
        self.tell(id, Some(words.line()));
        self.holds.insert(id, Hold::new(words, at.wall));
    }

    /// The operator's hold goes. Whether there was one.
    pub fn unpause(&mut self) -> bool {
        self.remove(HoldId {
            kind: HoldKind::Operator,
            route: None,
        })
    }

    /// Brings the probes of blocks and outages forward to now. How many there are.
    pub fn probe_now(&mut self, now: Instant) -> usize {
        let mut brought = 0;
        for (id, hold) in &mut self.holds {
            if matches!(id.kind, HoldKind::Blocked | HoldKind::Outage) {
                hold.until = Some(now);
                brought += 1;
            }
        }
        brought
    }

    /// The route waits until `wait` from now, or longer if it does already.
    pub fn throttle(&mut self, route: Route, wait: Duration, trial: &Trial, at: Moment) {
        let id = HoldId {
            kind: HoldKind::Throttled,
            route: Some(route),
        };
        let until = at.now.saturating_add(wait);
        if !self.holds.contains_key(&id) {
            self.tell(id, Some(trial.words.line()));
        }
        let hold = self
            .holds
            .entry(id)
            .or_insert_with(|| Hold::new(trial.words.clone(), at.wall));
        if hold.until.is_some_and(|earlier| earlier >= until) {
            return;
        }
        hold.until = Some(until);
        hold.words = trial.words.clone();
        hold.last = trial.record.clone().or(hold.last.take());
        if wait >= KEPT_FROM {
            // Again at every extension: the store must know the later end.
            hold.kept = false;
            keep(&mut self.changes, &self.tenant, id, hold, at);
        }
    }

    /// Sets a block or an outage, or notes that its probe failed.
    pub fn hold_until_probe(&mut self, kind: HoldKind, route: Route, trial: &Trial, at: Moment) {
        let id = HoldId {
            kind,
            route: Some(route),
        };
        let class = trial.record.as_ref().map(|record| record.class);
        let old = self.holds.get(&id).map(|hold| (hold.set_after, hold.class));
        if old.is_some_and(|(set_after, _)| trial.number <= set_after) {
            return;
        }
        if old.is_none_or(|(_, old)| old != class) {
            self.tell(id, Some(trial.words.line()));
        }
        let hold = self
            .holds
            .entry(id)
            .or_insert_with(|| Hold::new(trial.words.clone(), at.wall));
        match old {
            None => hold.set_after = trial.youngest,
            Some((_, old)) => {
                hold.probes_failed += 1;
                // The store's copy gives another reason.
                hold.kept &= old == class;
            }
        }
        hold.class = class;
        hold.words = trial.words.clone();
        hold.last = trial.record.clone();
        let wait = probe::wait(hold.probes_failed, trial.draw);
        hold.until = Some(at.now.saturating_add(wait));
        if kind == HoldKind::Blocked || wait >= KEPT_FROM {
            keep(&mut self.changes, &self.tenant, id, hold, at);
        }
    }

    /// The probe said nothing about this hold: the next one comes after the same wait.
    pub fn probe_again(&mut self, kind: HoldKind, route: Route, trial: &Trial, now: Instant) {
        let route = Some(route);
        if let Some(hold) = self.holds.get_mut(&HoldId { kind, route })
            && trial.number > hold.set_after
        {
            let wait = probe::wait(hold.probes_failed, trial.draw);
            hold.until = Some(now.saturating_add(wait));
        }
    }

    /// Request `number` shows that the hold's cause is gone. Whether it was removed.
    pub fn disproved(&mut self, kind: HoldKind, route: Route, number: u64) -> bool {
        let id = HoldId {
            kind,
            route: Some(route),
        };
        let sent_later = self
            .holds
            .get(&id)
            .is_some_and(|hold| number > hold.set_after);
        sent_later && self.remove(id)
    }

    /// Removes the throttles whose time has come. Whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let ended: Vec<HoldId> = self
            .holds
            .iter()
            .filter(|(id, hold)| hold.has_ended(id.kind, now))
            .map(|(id, _)| *id)
            .collect();
        for id in &ended {
            self.remove(*id);
        }
        !ended.is_empty()
    }

    /// The class behind a block of the route.
    pub fn blocked_by(&self, route: Route) -> Option<FailureClass> {
        self.get(HoldKind::Blocked, route)
            .map(|hold| hold.class.unwrap_or(FailureClass::Endpoint))
    }

    pub fn views(&self, at: Moment) -> Vec<HoldView> {
        self.holds()
            .filter(|(id, hold)| !hold.has_ended(id.kind, at.now))
            .map(|(id, hold)| hold.view(id, at.now, at.wall))
            .collect()
    }

    fn remove(&mut self, id: HoldId) -> bool {
        let Some(hold) = self.holds.remove(&id) else {
            return false;
        };
        if hold.kept {
            self.changes
                .push(HoldChange::Remove(id.stored_key(&self.tenant)));
        }
        self.tell(id, None);
        true
    }
}

fn keep(changes: &mut Vec<HoldChange>, tenant: &TenantId, id: HoldId, hold: &mut Hold, at: Moment) {
    if !hold.kept {
        hold.kept = true;
        changes.push(HoldChange::Put(hold.stored(id, tenant, at.now)));
    }
}

/// Blocked if anything needs a person, else paused if anything waits, else open.
pub fn gate_view(holds: Vec<HoldView>) -> GateView {
    let needs_a_person = [HoldKind::Blocked.word(), HoldKind::NotConfigured.word()];
    let state = if holds.is_empty() {
        GateState::Open
    } else if holds
        .iter()
        .any(|hold| needs_a_person.contains(&hold.kind.as_str()))
    {
        GateState::Blocked
    } else {
        GateState::Paused
    };
    GateView { state, holds }
}

#[cfg(test)]
mod tests;
