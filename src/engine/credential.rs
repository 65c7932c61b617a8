//! What the store keeps of the lanes' slots, so that a command without a worker can say what blocked a tenant.
//! It is shown and never heeded: a slot that starts again tries at once, and its own state rules from then on.

use std::time::Duration;

use super::gate::Moment;
use super::hold::{HoldChange, KEPT_FROM, Words};
use super::kept::{CREDENTIAL, Text};
use crate::auth::{CredentialHold, CredentialHoldKind};
use crate::model::{TenantId, Timestamp};
use crate::store::{HoldKey, StoredHold};

/// When a hold is kept that has just begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The slot refused: only what lasts is worth a sync.
    Refused,
    /// The engine ends, and nobody else will tell of it.
    Ending,
}

/// Two holds of one cause are one hold, also over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause {
    kind: String,
    status: Option<u16>,
    code: Option<String>,
    /// Of a block; the reason of an outage counts its minutes.
    reason: Option<String>,
}

impl Cause {
    fn of(text: &Text) -> Self {
        let kind = text.kind.clone().unwrap_or_default();
        let last = text.last.as_ref();
        Self {
            status: last.and_then(|last| last.status),
            code: last.and_then(|last| last.code.clone()),
            reason: (kind == "blocked").then(|| text.words.reason.clone()),
            kind,
        }
    }
}

/// By lane number, what the store has of its slot.
#[derive(Debug, Default)]
pub struct Credentials {
    lanes: Vec<Option<StoredHold>>,
    changes: Vec<HoldChange>,
}

impl Credentials {
    pub fn new(lanes: usize) -> Self {
        Self {
            lanes: vec![None; lanes],
            changes: Vec::new(),
        }
    }

    pub fn is_one(key: &HoldKey) -> bool {
        key.name == CREDENTIAL
    }

    /// As the store gave it back; without a lane, and so without a slot, nobody would ever end it.
    pub fn restore(&mut self, lane: Option<usize>, stored: StoredHold) {
        match lane.and_then(|lane| self.lanes.get_mut(lane)) {
            Some(place) => *place = Some(stored),
            None => self.changes.push(HoldChange::Remove(stored.key)),
        }
    }

    pub fn of(&self, lane: usize) -> Option<&StoredHold> {
        self.lanes.get(lane)?.as_ref()
    }

    /// Since when the slot has refused for this cause, over restarts.
    pub fn since(&self, lane: usize, hold: &CredentialHold) -> Timestamp {
        let cause = Cause::of(&text(hold));
        match self.of(lane) {
            Some(kept) if Cause::of(&Text::read(&kept.reason)) == cause => kept.set_at,
            _ => hold.since,
        }
    }

    /// The lane's slot refuses.
    pub fn held(
        &mut self,
        lane: usize,
        tenant: &TenantId,
        hold: &CredentialHold,
        occasion: Occasion,
        at: Moment,
    ) {
        let since = self.since(lane, hold);
        let Some(place) = self.lanes.get_mut(lane) else {
            return;
        };
        let left = hold.until.since(at.now);
        let throttled = hold.kind == CredentialHoldKind::Throttled;
        let new = StoredHold {
            key: HoldKey {
                tenant: tenant.clone(),
                name: CREDENTIAL.to_owned(),
            },
            set_at: since,
            left: throttled.then_some(left),
            reason: text(hold).write(),
        };
        let known = place.as_ref().is_some_and(|old| {
            let cause = |stored: &StoredHold| Cause::of(&Text::read(&stored.reason));
            old.set_at == new.set_at && cause(old) == cause(&new)
        });
        let wanted = match occasion {
            Occasion::Ending => place.as_ref() != Some(&new),
            // The store must know the later end of a throttle.
            Occasion::Refused => (!known || throttled) && lasts(hold, left, at.wall),
        };
        if wanted {
            self.changes.push(HoldChange::Put(new.clone()));
            *place = Some(new);
        }
    }

    /// The lane's slot gives a token.
    pub fn gives(&mut self, lane: usize) {
        if let Some(kept) = self.lanes.get_mut(lane).and_then(Option::take) {
            self.changes.push(HoldChange::Remove(kept.key));
        }
    }

    pub fn has_news(&self) -> bool {
        !self.changes.is_empty()
    }

    pub fn take_changes(&mut self) -> Vec<HoldChange> {
        std::mem::take(&mut self.changes)
    }
}

fn lasts(hold: &CredentialHold, left: Duration, wall: Timestamp) -> bool {
    hold.kind == CredentialHoldKind::Blocked
        || wall.since(hold.since).saturating_add(left) >= KEPT_FROM
}

fn text(hold: &CredentialHold) -> Text {
    Text {
        words: Words::new(&hold.reason, &hold.remedy),
        kind: Some(word(hold.kind).to_owned()),
        last: hold.last.clone(),
    }
}

/// What a slot's hold is shown as: the word of the route's hold that is like it.
pub fn word(kind: CredentialHoldKind) -> &'static str {
    match kind {
        CredentialHoldKind::Outage => "outage",
        CredentialHoldKind::Throttled => "throttled",
        CredentialHoldKind::Blocked => "blocked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;

    const NOW: Instant = Instant(Duration::from_secs(500));

    fn at(seconds: i64) -> Moment {
        Moment {
            now: NOW,
            wall: Timestamp(seconds * 1000),
        }
    }

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    fn hold(kind: CredentialHoldKind, reason: &str, left: u64) -> CredentialHold {
        CredentialHold {
            kind,
            reason: reason.into(),
            remedy: "Cure it".into(),
            since: Timestamp(10_000),
            until: NOW.saturating_add(Duration::from_secs(left)),
            probes_failed: 0,
            last: None,
        }
    }

    /// What the store is told of this refusal, ten seconds after the epoch.
    fn told(credentials: &mut Credentials, hold: &CredentialHold) -> Vec<HoldChange> {
        credentials.held(0, &acme(), hold, Occasion::Refused, at(10));
        credentials.take_changes()
    }

    #[test]
    fn only_what_lasts_five_seconds_or_needs_a_person_is_stored() {
        use CredentialHoldKind as K;
        for (kind, left, stored) in [
            (K::Outage, 4, false),
            (K::Outage, 5, true),
            (K::Throttled, 4, false),
            (K::Throttled, 5, true),
            (K::Blocked, 1, true),
        ] {
            let mut credentials = Credentials::new(1);
            let told = told(&mut credentials, &hold(kind, "why", left));
            assert_eq!(!told.is_empty(), stored, "{kind:?} {left}");
        }
        let mut credentials = Credentials::new(1);
        let short = hold(K::Outage, "why", 1);
        credentials.held(0, &acme(), &short, Occasion::Ending, at(10));
        assert_eq!(credentials.take_changes().len(), 1, "nobody else tells");
    }

    #[test]
    fn a_cause_that_lasts_is_stored_once_and_another_one_anew() {
        use CredentialHoldKind as K;
        let mut credentials = Credentials::new(1);
        assert_eq!(
            told(&mut credentials, &hold(K::Outage, "down for 5 s", 9)).len(),
            1
        );
        assert_eq!(
            told(&mut credentials, &hold(K::Outage, "down for 1 min", 9)),
            []
        );
        let blocked = hold(K::Blocked, "wrong secret", 9);
        assert_eq!(told(&mut credentials, &blocked).len(), 1);
        assert_eq!(told(&mut credentials, &blocked), []);
        let disabled = hold(K::Blocked, "client disabled", 9);
        assert_eq!(told(&mut credentials, &disabled).len(), 1);
        credentials.gives(0);
        assert!(matches!(
            credentials.take_changes()[..],
            [HoldChange::Remove(_)]
        ));
        credentials.gives(0);
        assert!(!credentials.has_news());
    }

    #[test]
    fn the_same_cause_after_a_restart_goes_on_since_it_began() {
        let mut before = Credentials::new(1);
        let blocked = hold(CredentialHoldKind::Blocked, "wrong secret", 9);
        before.held(0, &acme(), &blocked, Occasion::Refused, at(10));
        let stored = before.of(0).unwrap().clone();

        let mut after = Credentials::new(1);
        after.restore(Some(0), stored);
        let mut again = blocked.clone();
        again.since = Timestamp(99_000);
        assert_eq!(told(&mut after, &again), []);
        assert_eq!(after.since(0, &again), Timestamp(10_000));
        again.reason = "client disabled".into();
        assert_eq!(after.since(0, &again), Timestamp(99_000));
    }

    #[test]
    fn a_stored_hold_of_a_tenant_without_a_lane_is_forgotten() {
        let mut credentials = Credentials::new(1);
        let blocked = hold(CredentialHoldKind::Blocked, "wrong secret", 9);
        credentials.held(0, &acme(), &blocked, Occasion::Refused, at(10));
        let stored = credentials.of(0).unwrap().clone();
        let mut after = Credentials::new(0);
        after.restore(None, stored);
        assert_eq!(after.take_changes().len(), 1);
    }

    #[test]
    fn the_store_learns_the_later_end_of_a_throttle() {
        let mut credentials = Credentials::new(1);
        let throttled = |left| hold(CredentialHoldKind::Throttled, "patience", left);
        told(&mut credentials, &throttled(60));
        let told = told(&mut credentials, &throttled(600));
        let [HoldChange::Put(stored)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(stored.left, Some(Duration::from_secs(600)));
    }
}
