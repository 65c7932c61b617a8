//! `worker drain` in a process of its own: an engine that delivers what stands before the fence, and ends.

use std::time::Duration;

use crate::control::Refusal;
use crate::control::running::Holder;
use crate::control::wire::{DrainOutcome, DrainReport, DrainSpec};
use crate::model::Snapshot;

use super::Role;
use super::hold::{self, Held, Purpose};

/// Drains and lets go of the store.
///
/// # Errors
/// The engine does not start, the socket cannot be made, or the store does not close.
pub fn drain(
    mut holder: Holder,
    spec: DrainSpec,
    watch: Option<&(dyn Fn(&Snapshot) + Send + Sync)>,
) -> Result<Held<DrainReport>, Refusal> {
    let runtime = hold::runtime()?;
    let held = runtime.block_on(async {
        let role = Role {
            command: "drain",
            only: spec.tenant.clone(),
        };
        let running = super::start(&holder, role).await?;
        holder.running = Some(running.clone());
        let work = Box::pin(async move { running.drain(spec).await });
        hold::hold(holder, Purpose { work, watch }).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    held
}

/// One report of a drain that went on under another holder.
#[must_use]
pub fn joined(first: DrainReport, second: DrainReport) -> DrainReport {
    let mut whole = second;
    whole.delivered.add(first.delivered);
    for (tenant, part) in first.tenants {
        match whole.tenants.get_mut(&tenant) {
            Some(later) => {
                later.delivered.add(part.delivered);
                later.dead += part.dead;
                later.dead_before = part.dead_before;
            }
            None => {
                whole.tenants.insert(tenant, part);
            }
        }
    }
    let died = whole.tenants.values().any(|part| part.dead > 0);
    if whole.outcome == DrainOutcome::Drained && died {
        whole.outcome = DrainOutcome::DeadLeft;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::DrainedTenant;
    use crate::model::Count;
    use std::collections::BTreeMap;

    fn report(outcome: DrainOutcome, delivered: u64, dead: u64) -> DrainReport {
        let delivered = Count {
            chunks: delivered,
            bytes: 0,
        };
        let acme = DrainedTenant {
            outcome,
            delivered,
            left: Count::default(),
            dead,
            dead_before: dead,
            reason: String::new(),
            until: None,
        };
        DrainReport {
            outcome,
            delivered,
            left: Count::default(),
            tenants: BTreeMap::from([("acme".to_owned(), acme)]),
            handed_over: false,
        }
    }

    #[test]
    fn a_drain_that_changed_hands_is_told_as_one() {
        let first = report(DrainOutcome::Deadline, 5, 1);
        let whole = joined(first, report(DrainOutcome::Drained, 3, 0));
        assert_eq!(whole.delivered.chunks, 8);
        assert_eq!(whole.tenants["acme"].delivered.chunks, 8);
        assert_eq!(whole.outcome, DrainOutcome::DeadLeft);
    }
}
