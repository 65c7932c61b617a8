//! One hold in one line: what is wrong, until when, and what to do.

use crate::control::words;
use crate::model::{HoldView, PAUSED, Timestamp};

/// The longest that a blocked route waits between two probes.
const PROBED_WITHIN: &str = "15 min";

/// What to do where nobody works on the store: a hold ends by nothing there.
const NOBODY: &str = "nobody delivers now; to go on: worker run, or once: worker drain";

/// `running`: somebody works on the store now.
pub fn hold_line(tenant: &str, hold: &HoldView, running: bool, now: Timestamp) -> String {
    let reason = hold.reason.trim_end_matches('.');
    let until = hold
        .until
        .as_deref()
        .map(|until| words::moment_of(until, now));
    let kind = hold.kind.as_str();
    match (kind, until) {
        ("blocked", _) if !running => format!("tenant {tenant} is blocked: {reason}; {NOBODY}"),
        ("throttled", Some(until)) if !running => {
            format!("tenant {tenant} is throttled until {until}: {reason}; {NOBODY}")
        }
        ("outage" | "throttled", _) if !running => {
            format!("tenant {tenant} waits: {reason}; {NOBODY}")
        }
        ("operator", _) => {
            format!("tenant {tenant} is {PAUSED}; to go on: worker tenants resume {tenant}")
        }
        ("not_configured", _) => format!(
            "tenant {tenant} is not configured; its chunks are kept. Add [tenants.{tenant}] and start the worker again"
        ),
        ("blocked", _) => format!(
            "tenant {tenant} is blocked: {reason}; delivery resumes by itself within {PROBED_WITHIN}, or now: worker tenants resume {tenant}"
        ),
        ("throttled", Some(until)) => {
            format!("tenant {tenant} is throttled until {until}: {reason}")
        }
        (_, Some(until)) => format!("tenant {tenant} waits: {reason}; next try at {until}"),
        (_, None) => format!("tenant {tenant} waits: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, reason: &str, until: Option<&str>) -> String {
        let hold = HoldView {
            kind: kind.into(),
            route: None,
            reason: reason.into(),
            until: until.map(str::to_owned),
            since: None,
            last: None,
        };
        hold_line(
            "acme",
            &hold,
            true,
            Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
        )
    }

    #[test]
    fn a_missing_scope_is_told_with_the_cure() {
        let reason = "its token lacks the scope analytics:screenrecordings:write \
                      (granted: screenshare:read). Add it to client 5b1c9e";
        assert_eq!(
            line("blocked", reason, Some("2026-03-01T12:15:00Z")),
            "tenant acme is blocked: its token lacks the scope analytics:screenrecordings:write \
             (granted: screenshare:read). Add it to client 5b1c9e; delivery resumes by itself \
             within 15 min, or now: worker tenants resume acme"
        );
    }

    #[test]
    fn where_nobody_works_a_hold_promises_nothing() {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        for (kind, said) in [
            ("blocked", "tenant acme is blocked: wrong secret"),
            ("outage", "tenant acme waits: wrong secret"),
            (
                "throttled",
                "tenant acme is throttled until 14:30Z: wrong secret",
            ),
        ] {
            let hold = HoldView {
                kind: kind.into(),
                route: None,
                reason: "wrong secret".into(),
                until: Some("2026-03-01T14:30:00Z".into()),
                since: None,
                last: None,
            };
            assert_eq!(
                hold_line("acme", &hold, false, now),
                format!("{said}; nobody delivers now; to go on: worker run, or once: worker drain")
            );
        }
    }

    #[test]
    fn a_wait_tells_its_end() {
        assert_eq!(
            line(
                "throttled",
                "429 too.many.requests",
                Some("2026-03-01T14:30:00Z")
            ),
            "tenant acme is throttled until 14:30Z: 429 too.many.requests"
        );
        assert_eq!(
            line("outage", "connection refused", None),
            "tenant acme waits: connection refused"
        );
    }
}
