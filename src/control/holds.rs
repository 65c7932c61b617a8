//! Holds as the store keeps them, read back into what is shown: what a lane's gate is when no engine runs.

use crate::engine::stored_hold_view;
use crate::model::{GateState, GateView, HoldView, PAUSED, TenantId, Timestamp};
use crate::store::{HoldKey, StoredHold};

/// The name of the hold that `worker tenants pause` sets: kind and route, as the engine spells them.
pub const OPERATOR: &str = "operator:all";

/// The key of a tenant's operator hold.
pub fn operator_key(tenant: &TenantId) -> HoldKey {
    HoldKey {
        tenant: tenant.clone(),
        name: OPERATOR.to_owned(),
    }
}

pub fn operator_hold(tenant: &TenantId, now: Timestamp) -> StoredHold {
    StoredHold {
        key: operator_key(tenant),
        set_at: now,
        reason: PAUSED.to_owned(),
        left: None,
    }
}

/// A tenant's gate from its stored holds. A hold whose time is over no longer closes it.
pub fn gate(tenant: &TenantId, configured: bool, holds: &[StoredHold], now: Timestamp) -> GateView {
    let mut views: Vec<HoldView> = holds
        .iter()
        .filter(|hold| hold.key.tenant == *tenant)
        .filter(|hold| hold.left.is_none_or(|left| !left.is_zero()))
        .map(|hold| stored_hold_view(hold, now))
        .collect();
    if !configured {
        views.push(HoldView {
            kind: "not_configured".to_owned(),
            route: None,
            reason: format!("no [tenants.{tenant}] in the configuration"),
            until: None,
            since: None,
            last: None,
        });
    }
    GateView {
        state: state(&views),
        holds: views,
    }
}

/// Blocked if anything waits for a person or a configuration, else paused if anything waits at all.
pub fn state(holds: &[HoldView]) -> GateState {
    let blocks = |hold: &HoldView| matches!(hold.kind.as_str(), "blocked" | "not_configured");
    if holds.iter().any(blocks) {
        GateState::Blocked
    } else if holds.is_empty() {
        GateState::Open
    } else {
        GateState::Paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hold(name: &str, left: Option<u64>) -> StoredHold {
        StoredHold {
            key: HoldKey {
                tenant: "acme".parse().unwrap(),
                name: name.into(),
            },
            set_at: Timestamp(0),
            reason: "why\ndo".into(),
            left: left.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_gate_is_blocked_before_paused_before_open() {
        let acme = "acme".parse().unwrap();
        let now = Timestamp(0);
        let state = |holds: &[StoredHold]| gate(&acme, true, holds, now).state;
        assert_eq!(state(&[]), GateState::Open);
        assert_eq!(
            state(&[hold("throttled:deliver", Some(0))]),
            GateState::Open
        );
        assert_eq!(
            state(&[hold("throttled:deliver", Some(5))]),
            GateState::Paused
        );
        assert_eq!(state(&[hold("operator:all", None)]), GateState::Paused);
        assert_eq!(
            state(&[hold("operator:all", None), hold("blocked:deliver", Some(5))]),
            GateState::Blocked
        );
        assert_eq!(gate(&acme, false, &[], now).state, GateState::Blocked);
        let other = "globex".parse().unwrap();
        assert_eq!(
            gate(&other, true, &[hold("operator:all", None)], now).state,
            GateState::Open
        );
    }
}
