//! Draining fetches: until nothing is wanted, or what is left waits for longer than the drain's patience.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Lane, ROUTE};
use super::{Fetcher, Shared};
use crate::auth::CredentialHoldKind;
use crate::clock::Instant;
use crate::engine::gate::Passage;
use crate::engine::hold::HoldKind;
use crate::model::{TenantId, Timestamp};

/// Between two looks, however little is heard of.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// One tenant's part of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchDrained {
    pub fetched: u64,
    pub left: u64,
    pub dead: u64,
    /// Why something is left; empty otherwise.
    pub reason: String,
    /// When it goes on by itself.
    pub until: Option<Timestamp>,
}

/// What was given and what was given up before a drain began; by default nothing was.
#[derive(Debug, Clone, Default)]
pub struct Marks(BTreeMap<TenantId, (u64, u64)>);

/// A lane's numbers when the drain began.
struct Before {
    given: u64,
    dead: u64,
    /// Failed probes of its block and its outage.
    probes: [u32; 2],
    credential: u32,
}

enum Standing {
    Done,
    Working,
    Stuck(String, Option<Instant>),
}

impl Fetcher {
    pub fn marks(&self) -> Marks {
        let lanes = self.lanes.values();
        let marks = lanes.map(|lane| {
            let state = lane.state();
            (lane.tenant().clone(), (state.given, state.dead))
        });
        Marks(marks.collect())
    }

    /// Ends when nothing is wanted any more, or what is left is stuck. Dropping it stops nothing but the waiting.
    pub async fn drain(
        &self,
        since: &Marks,
        only: Option<&TenantId>,
        timeout: Option<Duration>,
        patience: Duration,
    ) -> BTreeMap<TenantId, FetchDrained> {
        let start = self.shared.clock.now();
        let end = timeout.map(|timeout| start.saturating_add(timeout));
        let lanes = self.lanes.values();
        let lanes: Vec<_> = lanes
            .filter(|lane| only.is_none_or(|only| only == lane.tenant()))
            .map(|lane| {
                let mark = since.0.get(lane.tenant()).copied().unwrap_or_default();
                (lane, Before::begin(lane, mark, start))
            })
            .collect();
        let mut drained = BTreeMap::new();
        for (lane, before) in lanes {
            let standing = self.wait(lane, &before, end, patience).await;
            let part = self.part(lane, &before, standing).await;
            if part != FetchDrained::default() {
                drained.insert(lane.tenant().clone(), part);
            }
        }
        drained
    }

    async fn wait(
        &self,
        lane: &Arc<Lane>,
        before: &Before,
        end: Option<Instant>,
        patience: Duration,
    ) -> Standing {
        let clock = &self.shared.clock;
        loop {
            let changed = lane.changed.notified();
            let now = clock.now();
            let standing = stand(&self.shared, lane, before, patience).await;
            if !matches!(standing, Standing::Working) {
                return standing;
            }
            if end.is_some_and(|end| now >= end) {
                return Standing::Stuck("out of time".to_owned(), None);
            }
            let again = now.saturating_add(LOOK_AGAIN);
            tokio::select! {
                () = changed => {}
                () = clock.sleep_until(end.map_or(again, |end| end.min(again))) => {}
                () = self.shared.stop.cancelled() => return Standing::Stuck("stopped".to_owned(), None),
            }
        }
    }

    async fn part(&self, lane: &Arc<Lane>, before: &Before, standing: Standing) -> FetchDrained {
        let at = self.shared.moment();
        let tenant = lane.tenant().clone();
        let left = self
            .shared
            .blocking(move |shared| wanted(shared, &tenant))
            .await;
        let state = lane.state();
        let (reason, until) = match standing {
            Standing::Stuck(reason, until) => (reason, until),
            Standing::Done | Standing::Working => (String::new(), None),
        };
        FetchDrained {
            fetched: state.given - before.given,
            left,
            dead: state.dead - before.dead,
            reason,
            until: until.map(|until| at.wall.saturating_add(until.since(at.now))),
        }
    }
}

fn wanted(shared: &Shared, tenant: &TenantId) -> u64 {
    let records = shared.store.records();
    records.counts(tenant).wanted + u64::from(records.listing(tenant).is_some())
}

impl Before {
    /// Whoever drains wants to know now, not at the next probe.
    fn begin(lane: &Lane, (given, dead): (u64, u64), now: Instant) -> Self {
        let mut state = lane.state();
        state.gate.probe_now(now);
        let probes = [HoldKind::Blocked, HoldKind::Outage].map(|kind| {
            state
                .gate
                .get(kind, ROUTE)
                .map_or(0, |hold| hold.probes_failed)
        });
        let credential = lane.about.token.hold().map_or(0, |hold| hold.probes_failed);
        let before = Self {
            given,
            dead,
            probes,
            credential,
        };
        drop(state);
        lane.stir();
        before
    }
}

async fn stand(
    shared: &Arc<Shared>,
    lane: &Arc<Lane>,
    before: &Before,
    patience: Duration,
) -> Standing {
    let tenant = lane.tenant().clone();
    let looked = Arc::clone(lane);
    let (ended, wanted, due) = shared
        .blocking(move |shared| {
            let (ended, _) = looked.compare_ended(shared, shared.clock.wall());
            let due = shared.store.records().next_due(&tenant);
            (ended, wanted(shared, &tenant), due)
        })
        .await;
    if ended {
        lane.stir();
    }
    if wanted == 0 {
        return Standing::Done;
    }
    let at = shared.moment();
    let within = at.now.saturating_add(patience);
    let state = lane.state();
    if state.in_flight {
        return Standing::Working;
    }
    let gate = &state.gate;
    if let Some(hold) = gate.get(HoldKind::Operator, ROUTE) {
        return Standing::Stuck(hold.words.line(), None);
    }
    let tried = [(HoldKind::Blocked, 1), (HoldKind::Outage, 3)];
    for ((kind, enough), before) in tried.into_iter().zip(before.probes) {
        if let Some(hold) = gate.get(kind, ROUTE)
            && hold.probes_failed >= before + enough
        {
            return Standing::Stuck(hold.words.line(), hold.until);
        }
    }
    if let Passage::Closed(Some(until)) = gate.passage(ROUTE, at.now)
        && until > within
    {
        let longest = gate.holds().max_by_key(|(_, hold)| hold.until);
        let words = longest.map_or_else(String::new, |(_, hold)| hold.words.line());
        return Standing::Stuck(words, Some(until));
    }
    if let Some(hold) = &state.credential {
        let given_up =
            hold.kind == CredentialHoldKind::Blocked && hold.probes_failed > before.credential;
        if given_up || hold.until > within {
            return Standing::Stuck(hold.reason.clone(), Some(hold.until));
        }
    }
    let due_at = due.map(|due| at.now.saturating_add(due.since(at.wall)));
    match due_at {
        Some(due) if due > within => {
            let words = "the platform does not give them yet; they are asked for again".to_owned();
            Standing::Stuck(words, Some(due))
        }
        _ => Standing::Working,
    }
}
