//! Drain: works until nothing inside the fence is owed, or what is left is stuck. The fence is the highest
//! enqueue number at the start, with what stands before it in its sessions.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lane::Tally;
use super::session::Session;
use super::shared::{End, Shared};
pub use super::standing::DrainOutcome;
use super::standing::{Before, Reason, Standing, out_of_time, standing};
use crate::auth::{CredentialHold, CredentialHoldKind};
use crate::clock::Instant;
use crate::model::{Count, TenantId, Timestamp};
use crate::store::TenantCounts;

/// What a drain is asked to do.
#[derive(Debug, Clone)]
pub struct DrainSettings {
    /// `None`: all.
    pub tenants: Option<Vec<TenantId>>,
    /// Ends the drain whatever is left; `None`: no limit.
    pub timeout: Option<Duration>,
    /// A lane that can do nothing for longer than this is left behind.
    pub patience: Duration,
}

impl DrainSettings {
    pub const PATIENCE: Duration = Duration::from_secs(60);
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainProgress {
    pub delivered: Count,
    pub left: Count,
}

/// One tenant's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainedTenant {
    pub outcome: DrainOutcome,
    pub delivered: Count,
    pub left: Count,
    /// Chunks that died in this drain.
    pub dead: u64,
    /// Dead letters from before.
    pub dead_before: u64,
    /// Why something is left; empty otherwise.
    pub reason: String,
    /// When it goes on by itself.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    pub outcome: DrainOutcome,
    pub delivered: Count,
    pub left: Count,
    pub tenants: BTreeMap<TenantId, DrainedTenant>,
}

/// Between two looks, however much happens: a look counts what is owed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// And without anything happening: some waits end by time alone.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A lane in a drain.
struct Part {
    lane: usize,
    tenant: TenantId,
    before: Before,
    tally: Tally,
    before_counts: TenantCounts,
    standing: Standing,
}

struct Drain {
    shared: Arc<Shared>,
    fence: u64,
    settings: DrainSettings,
    deadline: Option<Instant>,
    /// What the store counted when the drain began.
    stored: Stored,
    parts: Vec<Part>,
}

pub async fn drain(
    shared: &Arc<Shared>,
    settings: DrainSettings,
    progress: &watch::Sender<DrainProgress>,
    ended: impl Future<Output = End>,
) -> DrainReport {
    let mut changes = shared.changes.subscribe();
    let mut drain = Drain::begin(shared, settings).await;
    let work = async {
        loop {
            changes.mark_unchanged();
            let looked_at = shared.clock.now();
            let working = drain.look().await;
            drain.show(progress);
            if !working {
                return;
            }
            let again = looked_at.saturating_add(LOOK_AGAIN);
            let again = drain.deadline.map_or(again, |end| end.min(again));
            tokio::select! {
                _ = changes.changed() => {
                    let pause = looked_at.saturating_add(LOOK_INTERVAL);
                    shared.clock.sleep_until(pause).await;
                }
                () = shared.clock.sleep_until(again) => {}
            }
        }
    };
    let end = tokio::select! {
        () = work => None,
        end = ended => Some(end),
    };
    if let Some(end) = end {
        drain.cut_short(&end);
    }
    drain.report().await
}

impl Drain {
    async fn begin(shared: &Arc<Shared>, settings: DrainSettings) -> Self {
        let fence = shared.blocking(fence).await;
        let stored = counts(shared).await;
        let now = shared.clock.now();
        let deadline = settings.timeout.map(|timeout| now.saturating_add(timeout));
        let wanted = |tenant: &TenantId| match &settings.tenants {
            Some(tenants) => tenants.contains(tenant),
            None => true,
        };
        let lanes: Vec<(usize, TenantId)> = {
            let core = shared.core();
            let awake = core.lanes.iter().enumerate().filter(|(_, l)| !l.asleep);
            awake.map(|(n, lane)| (n, lane.tenant.clone())).collect()
        };
        let mut parts = Vec::new();
        for (lane, tenant) in lanes.into_iter().filter(|(_, tenant)| wanted(tenant)) {
            let credential = credential(shared, lane);
            let mut core = shared.core();
            parts.push(Part {
                lane,
                before: Before::of(&core.lanes[lane], credential.as_ref()),
                tally: core.lanes[lane].tally,
                before_counts: of(&stored, &tenant),
                standing: Standing::Working,
                tenant,
            });
            // Whoever drains wants to know now, not at the next probe.
            core.probe_now(lane, now);
            drop(core);
            if credential.is_some_and(|hold| hold.kind != CredentialHoldKind::Throttled) {
                shared.lanes[lane].token.retry_now();
            }
        }
        shared.stir();
        Self {
            shared: Arc::clone(shared),
            fence,
            settings,
            deadline,
            stored,
            parts,
        }
    }

    /// Whether any lane is still at work.
    async fn look(&mut self) -> bool {
        self.adopt_unknown_lanes();
        let mut working = false;
        for number in 0..self.parts.len() {
            if self.parts[number].standing == Standing::Done {
                continue;
            }
            let standing = self.stand(number).await;
            working |= standing == Standing::Working;
            self.parts[number].standing = standing;
        }
        working
    }

    /// Lanes of tenants that nobody configured appear with their first chunk.
    fn adopt_unknown_lanes(&mut self) {
        if self.settings.tenants.is_some() {
            return;
        }
        let core = self.shared.core();
        for lane in self.shared.lanes.len()..core.lanes.len() {
            if self.parts.iter().all(|part| part.lane != lane) {
                self.parts.push(Part {
                    lane,
                    tenant: core.lanes[lane].tenant.clone(),
                    before: Before::default(),
                    tally: Tally::default(),
                    before_counts: of(&self.stored, &core.lanes[lane].tenant),
                    standing: Standing::Working,
                });
            }
        }
    }

    async fn stand(&self, number: usize) -> Standing {
        let part = &self.parts[number];
        let now = self.shared.clock.now();
        let credential = credential(&self.shared, part.lane);
        let seen_owing = {
            let core = self.shared.core();
            let lane = &core.lanes[part.lane];
            let inside = |session: &Session| {
                let work = session.work.as_ref();
                session.has_news() || work.is_some_and(|work| work.number <= self.fence)
            };
            lane.sessions.values().any(inside)
        };
        if !seen_owing && self.owed(&part.tenant).await == 0 {
            return Standing::Done;
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let core = self.shared.core();
            return Standing::Stuck(out_of_time(&core.lanes[part.lane]));
        }
        let core = self.shared.core();
        let lane = &core.lanes[part.lane];
        let patience = self.settings.patience;
        standing(lane, credential.as_ref(), &part.before, patience, now)
    }

    /// Counts the tenant's chunks, so it is asked only where no session is known to owe anything.
    async fn owed(&self, tenant: &TenantId) -> u64 {
        let (tenant, fence) = (tenant.clone(), self.fence);
        let owed = self
            .shared
            .blocking(move |shared| {
                let owed = shared.store.owed_through(&tenant, fence);
                if let Err(error) = &owed {
                    shared.heed(error);
                }
                owed
            })
            .await;
        owed.unwrap_or(1)
    }

    /// From the tallies alone: counting the store at every look would cost more than the drain.
    fn show(&self, progress: &watch::Sender<DrainProgress>) {
        let mut shown = DrainProgress::default();
        for part in &self.parts {
            let (delivered, dead) = self.settled(part);
            shown.delivered.add(delivered);
            if part.standing != Standing::Done {
                shown
                    .left
                    .add(less(less(backlog(&part.before_counts), delivered), dead));
            }
        }
        progress.send_replace(shown);
    }

    /// The engine ended under the drain.
    fn cut_short(&mut self, end: &End) {
        let (outcome, words) = match end {
            End::IndexLost(cause) => (
                DrainOutcome::Storage,
                format!("the store's index is lost ({cause}); run again"),
            ),
            End::Fault(cause) => (DrainOutcome::Storage, cause.clone()),
            End::Stopped => (DrainOutcome::Deadline, "stopped".to_owned()),
        };
        for part in &mut self.parts {
            if part.standing != Standing::Done {
                part.standing = Standing::Stuck(Reason {
                    outcome,
                    words: words.clone(),
                    until: None,
                });
            }
        }
    }

    async fn report(self) -> DrainReport {
        let stored = counts(&self.shared).await;
        let mut report = DrainReport {
            outcome: DrainOutcome::Drained,
            delivered: Count::default(),
            left: Count::default(),
            tenants: BTreeMap::new(),
        };
        for part in &self.parts {
            let drained = self.drained(part, &stored);
            report.outcome = report.outcome.max(drained.outcome);
            report.delivered.add(drained.delivered);
            report.left.add(drained.left);
            report.tenants.insert(part.tenant.clone(), drained);
        }
        report
    }

    fn drained(&self, part: &Part, stored: &Stored) -> DrainedTenant {
        // One count of the store for both, so that they add up while others go on delivering.
        let counts = of(stored, &part.tenant);
        let (_, died) = self.settled(part);
        let dead = died.chunks;
        let mut drained = DrainedTenant {
            outcome: match dead {
                0 => DrainOutcome::Drained,
                _ => DrainOutcome::DeadLeft,
            },
            delivered: less(counts.delivered, part.before_counts.delivered),
            left: counts.confirming,
            dead,
            dead_before: part.before_counts.dead.chunks,
            reason: match counts.confirming.chunks {
                0 => String::new(),
                _ => NOT_TAKEN_IN.to_owned(),
            },
            until: None,
        };
        if let Standing::Stuck(reason) = &part.standing {
            let at = self.shared.moment();
            drained.outcome = reason.outcome;
            drained.left = backlog(&counts);
            drained.reason = reason.words.clone();
            drained.until = reason
                .until
                .map(|until| at.wall.saturating_add(until.since(at.now)));
        }
        drained
    }

    /// What was delivered and what died since the drain began.
    fn settled(&self, part: &Part) -> (Count, Count) {
        let now = self.shared.core().lanes[part.lane].tally;
        let before = part.tally;
        (
            less(now.delivered, before.delivered),
            less(now.dead, before.dead),
        )
    }
}

fn less(from: Count, part: Count) -> Count {
    Count {
        chunks: from.chunks.saturating_sub(part.chunks),
        bytes: from.bytes.saturating_sub(part.bytes),
    }
}

/// What a drain says of chunks that it has no more to do for.
const NOT_TAKEN_IN: &str = "stored there, and not yet taken in";

/// The slot's hold. None while it is being tried again: then there is something to wait for.
fn credential(shared: &Shared, lane: usize) -> Option<CredentialHold> {
    shared.lanes.get(lane).and_then(|parts| parts.token.hold())
}

/// The highest enqueue number given, once the scheduler has heard of everything up to it. Blocks.
fn fence(shared: &Shared) -> u64 {
    let fence = shared.store.last_number();
    // The index answers behind its own news of what arrived; an error is met again at the first look.
    let _answered = shared.ask_index();
    shared.take_arrivals();
    fence
}

type Stored = BTreeMap<TenantId, TenantCounts>;

async fn counts(shared: &Arc<Shared>) -> Stored {
    shared
        .blocking(|shared| shared.store.view().tenants.into_iter().collect())
        .await
}

fn of(stored: &Stored, tenant: &TenantId) -> TenantCounts {
    stored.get(tenant).cloned().unwrap_or_default()
}

fn backlog(counts: &TenantCounts) -> Count {
    let mut backlog = counts.live;
    backlog.add(counts.confirming);
    backlog
}
