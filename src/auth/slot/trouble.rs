//! A slot's failure that is not over: since when, how often, and when the next try is.

use std::time::Duration;

use super::terms::{Moment, Phase};
use crate::auth::diagnosis::Diagnosis;
use crate::auth::{CredentialHold, CredentialHoldKind};
use crate::clock::Instant;
use crate::model::Timestamp;
use crate::policy::backoff::{self, Backoff};

/// Short at first, because most outages are; its end bounds how late a cure is noticed.
const OUTAGE: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(5 * 60));
/// Longer, because each try spends the budget that is missing.
const THROTTLE: Backoff = Backoff::doubling(Duration::from_secs(5), Duration::from_secs(5 * 60));
/// Steps that a hold of another kind takes over, so that alternating failures still slow down.
const STEPS_KEPT: u32 = 3;
/// How long a probe's token is left to spread before its first use: a platform that learns of new tokens
/// late would otherwise refuse every probe.
const RIPENING: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(30));
/// Between two looks at a slot that this one waits for.
const NEVER_AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A token request failed; the next token ends it.
    Mint,
    /// The platform refused tokens; the next delivery ends it.
    Refusal,
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) diagnosis: Diagnosis,
    pub(super) origin: Origin,
    since: Timestamp,
    since_at: Instant,
    /// Failures since then, without the first.
    pub(super) probes_failed: u32,
    /// Failures that its deadline grew by.
    steps: u32,
    pub(super) next_at: Instant,
}

impl Trouble {
    /// A failure, after the one before it, if that is not over and of the same origin.
    pub(super) fn after(
        last: Option<&Self>,
        origin: Origin,
        mut diagnosis: Diagnosis,
        at: Moment,
    ) -> Self {
        let (since, since_at, probes_failed, steps) = match last.filter(|l| l.origin == origin) {
            Some(last) if last.diagnosis.kind == diagnosis.kind => (
                last.since,
                last.since_at,
                last.probes_failed.saturating_add(1),
                last.steps.saturating_add(1),
            ),
            Some(last) => (at.wall, at.now, 0, last.steps.min(STEPS_KEPT)),
            None => (at.wall, at.now, 0, 0),
        };
        let wait = match diagnosis.until {
            Some(until) => until.since(at.now).max(NEVER_AT_ONCE),
            None => wait(&diagnosis, steps, at.draw),
        };
        if let Some(record) = &mut diagnosis.record {
            record.next_try_at = Some(at.wall.saturating_add(wait));
        }
        Self {
            diagnosis,
            origin,
            since,
            since_at,
            probes_failed,
            steps,
            next_at: at.now.saturating_add(wait),
        }
    }

    /// An operator says that the cause is cured.
    pub(super) fn end_wait(&mut self, now: Instant) {
        self.next_at = now;
        self.steps = 0;
    }

    /// The phase of a slot that has this and no token.
    pub(super) fn phase(&self) -> Phase {
        match self.diagnosis.kind {
            CredentialHoldKind::Outage | CredentialHoldKind::Throttled => Phase::Waiting,
            CredentialHoldKind::Blocked => Phase::Blocked,
        }
    }

    /// How long the token of the next try is left to spread.
    pub(super) fn ripening(&self) -> Duration {
        if self.origin == Origin::Refusal && self.probes_failed > 0 {
            RIPENING.interval(self.probes_failed)
        } else {
            Duration::ZERO
        }
    }

    pub(super) fn describe(&self, now: Instant) -> CredentialHold {
        CredentialHold {
            kind: self.diagnosis.kind,
            reason: self.diagnosis.reason(now.since(self.since_at)),
            remedy: self.diagnosis.remedy.clone(),
            since: self.since,
            until: self.next_at,
            probes_failed: self.probes_failed,
            last: self.diagnosis.record.clone(),
        }
    }
}

/// How long after a failure the next try is: never earlier than the endpoint asks.
fn wait(diagnosis: &Diagnosis, steps: u32, draw: f64) -> Duration {
    let hint = diagnosis.hint.unwrap_or_default();
    let failures = steps.saturating_add(1);
    match diagnosis.kind {
        CredentialHoldKind::Blocked => backoff::half_jitter(backoff::probe_interval(steps), draw),
        CredentialHoldKind::Outage => {
            backoff::half_jitter(OUTAGE.interval(failures), draw).max(hint)
        }
        CredentialHoldKind::Throttled => {
            let own = THROTTLE.interval(failures);
            own.max(hint) + backoff::full_jitter(own, draw)
        }
    }
}
