//! A drain's report for the command line, from the engine's report and the store's counts.

use std::collections::BTreeMap;

use crate::control::wire::{DrainOutcome, DrainReport, DrainedTenant};
use crate::engine;
use crate::model::{Count, TenantId, Timestamp};
use crate::store::{Store, StoreView};

/// The engine's report in the words of the wire.
pub fn report_of(report: engine::DrainReport) -> DrainReport {
    let tenants = report.tenants.into_iter().map(|(tenant, part)| {
        let part = DrainedTenant {
            outcome: outcome(part.outcome),
            delivered: part.delivered,
            left: part.left,
            dead: part.dead,
            dead_before: part.dead_before,
            reason: part.reason,
            until: part.until.as_ref().map(Timestamp::to_string),
        };
        (tenant.to_string(), part)
    });
    DrainReport {
        outcome: outcome(report.outcome),
        delivered: report.delivered,
        left: report.left,
        tenants: tenants.collect(),
        handed_over: false,
        recordings: BTreeMap::new(),
        unreadable: 0,
    }
}

/// Damaged chunks without a name are no tenant's, and no drain that left them is done.
pub fn tell_unreadable(report: &mut DrainReport, unreadable: u64) {
    report.unreadable = unreadable;
    if unreadable > 0 && report.outcome == DrainOutcome::Drained {
        report.outcome = DrainOutcome::DeadLeft;
    }
}

/// What each tenant's platform has of this store, since its beginning.
pub fn delivered(store: &Store) -> BTreeMap<TenantId, Count> {
    let tenants = store.view().tenants;
    let delivered = tenants
        .into_iter()
        .map(|(tenant, counts)| (tenant, counts.delivered));
    delivered.collect()
}

/// What this process delivered of a drain that goes on elsewhere, and what it left there.
pub fn handed_over(
    only: Option<&TenantId>,
    before: &BTreeMap<TenantId, Count>,
    view: &StoreView,
) -> DrainReport {
    let mut report = DrainReport {
        outcome: DrainOutcome::Deadline,
        delivered: Count::default(),
        left: Count::default(),
        tenants: BTreeMap::new(),
        handed_over: true,
        recordings: BTreeMap::new(),
        unreadable: 0,
    };
    let mut now = BTreeMap::new();
    for (tenant, counts) in &view.tenants {
        if only.is_some_and(|only| only != tenant) {
            continue;
        }
        let mut left = counts.live;
        left.add(counts.confirming);
        report.left.add(left);
        let part = DrainedTenant {
            outcome: DrainOutcome::Deadline,
            delivered: Count::default(),
            left,
            dead: 0,
            dead_before: 0,
            reason: String::new(),
            until: None,
        };
        report.tenants.insert(tenant.to_string(), part);
        now.insert(tenant.clone(), counts.delivered);
    }
    count_from(&mut report, before, &now);
    report
}

/// Sets what was delivered to the difference of two counts of the store.
pub fn count_from(
    report: &mut DrainReport,
    before: &BTreeMap<TenantId, Count>,
    now: &BTreeMap<TenantId, Count>,
) {
    report.delivered = Count::default();
    for (tenant, count) in now {
        let Some(part) = report.tenants.get_mut(tenant.as_str()) else {
            continue;
        };
        let former = before.get(tenant).copied().unwrap_or_default();
        part.delivered = Count {
            chunks: count.chunks.saturating_sub(former.chunks),
            bytes: count.bytes.saturating_sub(former.bytes),
        };
        report.delivered.add(part.delivered);
    }
}

fn outcome(outcome: engine::DrainOutcome) -> DrainOutcome {
    match outcome {
        engine::DrainOutcome::Drained => DrainOutcome::Drained,
        engine::DrainOutcome::DeadLeft => DrainOutcome::DeadLeft,
        engine::DrainOutcome::Blocked => DrainOutcome::Blocked,
        engine::DrainOutcome::Unreachable => DrainOutcome::Unreachable,
        engine::DrainOutcome::Throttled => DrainOutcome::Throttled,
        engine::DrainOutcome::Deadline => DrainOutcome::Deadline,
        engine::DrainOutcome::Storage => DrainOutcome::Storage,
    }
}
