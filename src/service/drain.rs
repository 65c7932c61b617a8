//! `worker drain` in a process of its own: an engine that delivers what stands before the fence, and ends.

use std::time::Duration;

use crate::control::Refusal;
use crate::control::running::Holder;
use crate::control::wire::{DrainOutcome, DrainReport, DrainSpec, DrainedTenant};
use crate::model::Count;

use super::Role;
use super::hold::{self, Held, Purpose, Watch};

/// Drains and lets go of the store.
///
/// # Errors
/// The engine does not start, the socket cannot be made, or the store does not close.
pub fn drain(
    mut holder: Holder,
    spec: DrainSpec,
    watch: Option<Watch<'_>>,
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
    for (tenant, part) in first.tenants {
        match whole.tenants.get_mut(&tenant) {
            Some(later) => {
                let between = between(&part, later);
                for count in [part.delivered, between] {
                    later.delivered.add(count);
                    whole.delivered.add(count);
                }
                later.dead += part.dead;
                later.dead_before = part.dead_before;
            }
            None => {
                whole.delivered.add(part.delivered);
                whole.left.add(part.left);
                whole.tenants.insert(tenant, part);
            }
        }
    }
    for (tenant, part) in first.recordings {
        if let Some(later) = whole.recordings.get_mut(&tenant) {
            later.fetched += part.fetched;
            later.dead += part.dead;
        }
    }
    let died = whole.tenants.values().any(|part| part.dead > 0);
    if whole.outcome == DrainOutcome::Drained && died {
        whole.outcome = DrainOutcome::DeadLeft;
    }
    whole
}

/// What the next holder delivered before it was asked for the rest: what was left and is neither reported nor
/// left any more. Chunks that arrived meanwhile hide as many.
fn between(first: &DrainedTenant, later: &DrainedTenant) -> Count {
    let seen = later.delivered.chunks + later.left.chunks + later.dead;
    let bytes = later.delivered.bytes + later.left.bytes;
    Count {
        chunks: first.left.chunks.saturating_sub(seen),
        bytes: first.left.bytes.saturating_sub(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            recordings: BTreeMap::new(),
            unreadable: 0,
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

    #[test]
    fn what_the_next_holder_delivered_before_it_was_asked_is_counted() {
        let mut first = report(DrainOutcome::Deadline, 2, 0);
        let left = Count {
            chunks: 7,
            bytes: 0,
        };
        first.tenants.get_mut("acme").unwrap().left = left;
        let whole = joined(first, report(DrainOutcome::Drained, 4, 0));
        assert_eq!(whole.delivered.chunks, 9);
        assert_eq!(whole.tenants["acme"].delivered.chunks, 9);
    }
}
