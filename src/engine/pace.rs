//! The limit domains of an engine: lanes that spend the same request budget share a pacer.

use std::collections::HashMap;
use std::time::Duration;

use super::gate::Moment;
use super::scheduler::{Scheduler, Turn};
use crate::clock::Instant;
use crate::model::{PaceView, Route};
use crate::platform::Limits;
use crate::policy::pacing::{Next, Pacer, Told, View};

/// A limit domain, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Domain(usize);

#[derive(Debug, Default)]
pub struct Pacers {
    pacers: Vec<Pacer>,
    by_name: HashMap<String, Domain>,
}

impl Pacers {
    /// A domain of one lane.
    pub fn own(&mut self) -> Domain {
        self.pacers.push(Pacer::default());
        Domain(self.pacers.len() - 1)
    }

    /// The domain of this name; the first that joins it sets what it begins with.
    pub fn join(&mut self, name: &str, pacer: impl FnOnce() -> Pacer) -> Domain {
        if let Some(domain) = self.by_name.get(name) {
            return *domain;
        }
        self.pacers.push(pacer());
        let domain = Domain(self.pacers.len() - 1);
        self.by_name.insert(name.to_owned(), domain);
        domain
    }

    pub fn next(&mut self, domain: Domain, now: Instant) -> Next {
        self.pacers[domain.0].next(now.0)
    }

    pub fn begin(&mut self, domain: Domain, number: u64, now: Instant) {
        self.pacers[domain.0].begin(number, Route::Deliver, now.0);
    }

    pub fn end(&mut self, domain: Domain, number: u64) {
        self.pacers[domain.0].end(number);
    }

    pub fn pause(&mut self, domain: Domain, until: Instant) {
        self.pacers[domain.0].pause(until.0);
    }

    pub fn heard(&mut self, domain: Domain, number: u64, limits: &Limits, now: Instant) {
        let told = Told {
            allowed: limits.allowed,
            remaining: limits.remaining,
            reset_in: limits.reset_in,
        };
        self.pacers[domain.0].heard(number, told, now.0);
    }

    pub fn view(&self, domain: Domain, now: Instant) -> View {
        self.pacers[domain.0].view(now.0)
    }
}

impl Scheduler {
    /// What the answer to a turn, or its absence, told of its domain's budget.
    pub fn heard(&mut self, turn: &Turn, limits: &Limits, at: Moment) {
        let domain = self.lanes[turn.lane].domain;
        self.pacers.heard(domain, turn.number, limits, at.now);
    }

    /// The lane spends the budget of a domain that others may spend too.
    pub fn join_domain(&mut self, lane: usize, name: &str, pacer: impl FnOnce() -> Pacer) {
        self.lanes[lane].domain = self.pacers.join(name, pacer);
    }

    /// Every lane that spends the same budget.
    pub fn lanes_of(&self, domain: Domain) -> Vec<usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes
            .filter(|(_, lane)| lane.domain == domain)
            .map(|(number, _)| number)
            .collect()
    }

    pub fn pace(&self, number: usize, now: Instant) -> PaceView {
        let lane = &self.lanes[number];
        let domain = self.pacers.view(lane.domain, now);
        let group = lane.rules.group;
        let seconds = |span: Duration| u64::try_from(span.as_millis().div_ceil(1000)).unwrap_or(0);
        let with_work = lane.sessions.values().filter(|s| s.work.is_some());
        PaceView {
            requests_per_minute: domain.requests_per_minute.round() as u64,
            share_percent: (domain.share * 100.0).round() as u64,
            allowed: domain.allowed,
            remaining: domain.remaining,
            reset_in_s: domain.reset_in.map(seconds),
            window_s: domain.window.map(seconds),
            sessions: with_work.count() as u64,
            in_flight: lane.in_flight as u64,
            concurrency: lane.limit.now() as u64,
            group_chunks: u64::from(group.max_chunks),
            group_bytes: group.max_bytes,
            group_interval_s: seconds(group.max_interval),
            group_learned_bytes: lane.learned.limit(now.0),
        }
    }
}
