//! What the service manager is told. Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::control::words;
use crate::model::{GateState, Snapshot};

pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Stopping takes the grace period and a little for closing the store.
pub fn stopping(grace: Duration) {
    let span = u32::try_from((grace + Duration::from_secs(30)).as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(span)]);
}

pub fn status(snapshot: &Snapshot) {
    send(&[NotifyState::Status(&status_line(snapshot))]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("service manager: {error}");
    }
}

/// One line for `systemctl status`.
pub fn status_line(snapshot: &Snapshot) -> String {
    let backlog = snapshot.total.backlog();
    let mut text = format!(
        "{} waiting ({}), {} dead",
        words::chunks(backlog.chunks),
        words::bytes(backlog.bytes),
        words::count(snapshot.total.dead.chunks)
    );
    let blocked: Vec<_> = snapshot
        .tenants
        .iter()
        .filter(|(_, view)| view.gate.state == GateState::Blocked)
        .map(|(tenant, _)| tenant.as_str())
        .collect();
    if !blocked.is_empty() {
        text.push_str(&format!("; blocked: {}", blocked.join(", ")));
    }
    if snapshot.latched.is_some() {
        text.push_str("; storage error, accepting nothing");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GateView, TenantView};

    #[test]
    fn the_status_names_who_is_blocked() {
        let mut snapshot = Snapshot::default();
        snapshot.total.ready.chunks = 1_204;
        let acme = TenantView {
            gate: GateView {
                state: GateState::Blocked,
                holds: Vec::new(),
            },
            ..TenantView::default()
        };
        snapshot.tenants.insert("acme".into(), acme);
        assert_eq!(
            status_line(&snapshot),
            "1,204 chunks waiting (0 bytes), 0 dead; blocked: acme"
        );
    }
}
