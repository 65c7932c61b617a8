//! What holds the lane's route: shown, stored and logged.

use super::{Lane, ROUTE};
use crate::engine::fetch::Shared;
use crate::engine::gate::{GateEvent, Moment};
use crate::engine::hold::{HoldChange, HoldId, HoldKind};
use crate::model::HoldView;

impl Lane {
    pub fn holds(&self, at: Moment) -> Vec<HoldView> {
        let views = self.state().gate.views(at);
        views
            .into_iter()
            .filter(|hold| hold.route == Some(ROUTE))
            .collect()
    }

    /// Tells the store, and the log, what became of holds. Blocks. One that could not be stored is in force all the same.
    pub fn tell_holds(&self, shared: &Shared) {
        let (changes, events) = {
            let mut state = self.state();
            (state.gate.take_changes(), state.gate.take_events())
        };
        for event in events.iter().filter(|event| is_ours(event.id)) {
            log(event);
        }
        for change in changes {
            let told = match change {
                // The operator's is the engine's to store.
                HoldChange::Put(hold) if is_stored_here(&hold.key.name) => {
                    shared.store.put_hold(hold)
                }
                HoldChange::Remove(key) if is_stored_here(&key.name) => {
                    shared.store.remove_hold(&key)
                }
                HoldChange::Put(_) | HoldChange::Remove(_) => Ok(()),
            };
            if let Err(error) = told {
                tracing::warn!(error = &error as &dyn std::error::Error, "hold not stored");
            }
        }
    }
}

/// Whether a stored hold is this route's own.
pub fn is_stored_here(name: &str) -> bool {
    HoldId::parse(name).is_some_and(is_ours)
}

pub fn is_ours(id: HoldId) -> bool {
    id.route == Some(ROUTE)
}

pub fn is_operators(id: HoldId) -> bool {
    id.kind == HoldKind::Operator
}

fn log(event: &GateEvent) {
    let (tenant, hold) = (&event.tenant, event.id.name());
    match &event.set {
        Some(reason) if event.id.kind == HoldKind::Blocked => {
            tracing::error!(tenant.id = %tenant, hold, "recordings of tenant {tenant} are blocked: {reason}");
        }
        Some(reason) => {
            tracing::warn!(tenant.id = %tenant, hold, "recordings of tenant {tenant} wait: {reason}");
        }
        None => {
            tracing::info!(tenant.id = %tenant, hold, "recordings of tenant {tenant}: hold ended")
        }
    }
}
