//! The limit domains of an engine: lanes that spend the same request budget share a pacer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fetch::Pace;
use super::gate::Moment;
use super::scheduler::{Scheduler, Turn};
use super::shared::Shared;
use crate::clock::Instant;
use crate::model::{PaceView, Route, TenantId};
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

    pub fn next_upload(&mut self, domain: Domain, now: Instant) -> Next {
        self.pacers[domain.0].next_upload(now.0)
    }

    pub fn begin(&mut self, domain: Domain, number: u64, route: Route, now: Instant) {
        self.pacers[domain.0].begin(number, route, now.0);
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

/// A budget that is given again within this is only waited for.
pub const SOON: Duration = Duration::from_secs(120);
/// Uploads are not kept longer than this by a refusal that a fetch met: they find out for themselves, by one request.
const HEARSAY: Duration = Duration::from_secs(60);

impl Scheduler {
    fn domain_of(&self, tenant: &TenantId) -> Option<Domain> {
        self.lane_of(tenant).map(|lane| self.lanes[lane].domain)
    }

    /// A fetch begins, or is told when to ask again; always begins if it `must`.
    fn begin_fetch(
        &mut self,
        domain: Domain,
        must: bool,
        now: Instant,
    ) -> Result<u64, Option<Instant>> {
        let mut lanes = self.lanes.iter_mut().filter(|lane| lane.domain == domain);
        let uploads_wait = lanes.any(|lane| lane.has_uploads(now));
        let next = match must {
            true => Next::Now,
            false => self.pacers.pacers[domain.0].next_fetch(uploads_wait, now.0),
        };
        match next {
            Next::Now => {}
            Next::At(at) => return Err(Some(Instant(at))),
            Next::Event => return Err(None),
        }
        self.youngest += 1;
        self.pacers.begin(domain, self.youngest, Route::Fetch, now);
        Ok(self.youngest)
    }

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

/// The budgets of an engine, for its fetches.
pub struct Budgets(pub Arc<Shared>);

impl Budgets {
    /// `None`: the engine knows no such tenant, and what nobody counts is not paced.
    fn of<T>(
        &self,
        tenant: &TenantId,
        work: impl FnOnce(&mut Scheduler, Domain) -> T,
    ) -> Option<T> {
        let mut core = self.0.core();
        let domain = core.domain_of(tenant)?;
        Some(work(&mut core, domain))
    }
}

impl Pace for Budgets {
    fn begin(&self, tenant: &TenantId, now: Instant) -> Result<u64, Option<Instant>> {
        let begun = self.of(tenant, |core, domain| core.begin_fetch(domain, false, now));
        begun.unwrap_or(Ok(0))
    }

    fn charge(&self, tenant: &TenantId, now: Instant) -> u64 {
        let begun = self.of(tenant, |core, domain| core.begin_fetch(domain, true, now));
        begun.and_then(Result::ok).unwrap_or_default()
    }

    fn wait(&self, tenant: &TenantId) {
        self.of(tenant, |core, domain| {
            core.pacers.pacers[domain.0].fetch_waits();
        });
    }

    fn withdraw(&self, tenant: &TenantId) {
        self.of(tenant, |core, domain| {
            core.pacers.pacers[domain.0].fetch_withdraws();
        });
        self.0.wake.notify_one();
    }

    fn heard(&self, tenant: &TenantId, number: u64, limits: &Limits, now: Instant) {
        self.of(tenant, |core, domain| {
            core.pacers.heard(domain, number, limits, now);
        });
    }

    fn refused(&self, tenant: &TenantId, until: Instant) {
        let most = self.0.clock.now().saturating_add(HEARSAY);
        self.of(tenant, |core, domain| {
            core.pacers.pause(domain, until.min(most));
        });
    }

    fn end(&self, tenant: &TenantId, number: u64) {
        self.of(tenant, |core, domain| core.pacers.end(domain, number));
        self.0.stir();
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
