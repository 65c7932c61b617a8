//! `worker --stats`, assembled from the store's counts and the engine's lanes; pure.

use std::collections::BTreeMap;

use crate::model::{
    Count, Counts, DiskUse, GateState, Snapshot, TenantId, TenantView, Timestamp, WorkersView,
};
use crate::store::{StoreView, TenantCounts};

use super::running::Lane;

/// What the numbers are made from.
pub struct Sources<'a> {
    pub host: &'a str,
    pub view: &'a StoreView,
    /// Configured tenants and tenants with a gate.
    pub lanes: &'a BTreeMap<TenantId, Lane>,
    pub workers: WorkersView,
    pub eta_full_s: Option<u64>,
    pub now: Timestamp,
}

pub fn assemble(sources: &Sources<'_>) -> Snapshot {
    let none = TenantCounts::default();
    let mut tenants = BTreeMap::new();
    let mut total = Counts::default();
    let counted: BTreeMap<&TenantId, &TenantCounts> = sources
        .view
        .tenants
        .iter()
        .map(|(tenant, counts)| (tenant, counts))
        .collect();
    let names = sources.lanes.keys().chain(counted.keys().copied());
    for tenant in names {
        if tenants.contains_key(tenant.as_str()) {
            continue;
        }
        let lane = sources.lanes.get(tenant).cloned().unwrap_or_default();
        let counts = counted.get(tenant).copied().unwrap_or(&none);
        let view = tenant_view(counts, lane, sources.now);
        total.add(&view.counts);
        tenants.insert(tenant.as_str().to_owned(), view);
    }
    let view = sources.view;
    Snapshot {
        host: sources.host.to_owned(),
        tenants,
        total,
        workers: sources.workers,
        disk: DiskUse {
            used_bytes: view.used_bytes,
            quota_bytes: view.quota_bytes,
            free_bytes: view.free_bytes,
            eta_full_s: sources.eta_full_s,
        },
        balance: view.balance,
        latched: view.latched.clone(),
        recordings: None,
    }
}

fn tenant_view(counts: &TenantCounts, lane: Lane, now: Timestamp) -> TenantView {
    let waiting = less(less(counts.live, counts.leased), counts.delayed);
    let open = lane.gate.state == GateState::Open;
    let (ready, held) = if open {
        (waiting, Count::default())
    } else {
        (Count::default(), waiting)
    };
    TenantView {
        counts: Counts {
            ready,
            held,
            delayed: counts.delayed,
            leased: counts.leased,
            confirming: counts.confirming,
            dead: counts.dead,
            delivered: counts.delivered,
        },
        oldest_age_s: counts.oldest.map(|at| now.since(at).as_secs()),
        newest_age_s: counts.newest.map(|at| now.since(at).as_secs()),
        // What the engine saw itself; else what the store remembers of others.
        last_delivery_s: lane
            .last_delivery_s
            .or_else(|| counts.last_delivery.map(|at| now.since(at).as_secs())),
        eta_empty_s: lane.eta_empty_s,
        gate: lane.gate,
        token: lane.token,
        pace: lane.pace,
        gap_wait: lane.gap_wait,
        retries_used: lane.retries_used,
    }
}

fn less(from: Count, part: Count) -> Count {
    Count {
        chunks: from.chunks.saturating_sub(part.chunks),
        bytes: from.bytes.saturating_sub(part.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::holds;

    fn count(chunks: u64) -> Count {
        Count {
            chunks,
            bytes: chunks * 10,
        }
    }

    fn view() -> StoreView {
        let counts = TenantCounts {
            live: count(10),
            leased: count(2),
            delayed: count(3),
            dead: count(1),
            oldest: Some(Timestamp(1_000)),
            ..TenantCounts::default()
        };
        StoreView {
            tenants: vec![("acme".parse().unwrap(), counts)],
            ..StoreView::default()
        }
    }

    fn snapshot(gate: crate::model::GateView) -> Snapshot {
        let lane = Lane {
            gate,
            ..Lane::default()
        };
        let lanes = BTreeMap::from([
            ("acme".parse().unwrap(), lane),
            ("globex".parse().unwrap(), Lane::default()),
        ]);
        assemble(&Sources {
            host: "rec-017",
            view: &view(),
            lanes: &lanes,
            workers: WorkersView::default(),
            eta_full_s: None,
            now: Timestamp(61_000),
        })
    }

    #[test]
    fn every_live_chunk_is_in_exactly_one_column() {
        let open = snapshot(crate::model::GateView::default());
        let acme = &open.tenants["acme"];
        assert_eq!(acme.counts.ready, count(5));
        assert_eq!(acme.counts.held, count(0));
        assert_eq!(acme.counts.backlog(), count(10));
        assert_eq!(acme.oldest_age_s, Some(60));
        assert_eq!(open.total.backlog(), count(10));
    }

    #[test]
    fn what_is_behind_a_closed_gate_is_held_and_an_idle_tenant_is_shown() {
        let acme = "acme".parse().unwrap();
        let hold = holds::operator_hold(&acme, Timestamp(0));
        let paused = snapshot(holds::gate(&acme, true, &[hold], Timestamp(0)));
        assert_eq!(paused.tenants["acme"].counts.held, count(5));
        assert_eq!(paused.tenants["acme"].counts.ready, count(0));
        assert!(paused.tenants.contains_key("globex"));
    }
}
