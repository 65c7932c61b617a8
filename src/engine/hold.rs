//! A hold: one reason why a lane, or one of its routes, waits; and the form in which it outlives a restart.

use std::time::Duration;

use super::kept::Text;
use crate::clock::Instant;
use crate::model::{FailureClass, FailureRecord, HoldView, Route, TenantId, Timestamp};
use crate::store::{HoldKey, StoredHold};

/// A hold shorter than this is not worth a sync: losing it costs one early request.
pub const KEPT_FROM: Duration = Duration::from_secs(5);

/// Who set a hold, and so who may remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldKind {
    /// An operator paused the lane. Ends: an operator resumes it.
    Operator,
    /// The platform asked for patience. Ends: its time.
    Throttled,
    /// The platform does not answer. Ends: any definite answer to a probe.
    Outage,
    /// The platform refuses for a reason that someone must cure. Ends: a delivered probe.
    Blocked,
    /// The configuration does not know the tenant. Ends: a restart with another one.
    NotConfigured,
}

impl HoldKind {
    const ALL: [Self; 5] = [
        Self::Operator,
        Self::Throttled,
        Self::Outage,
        Self::Blocked,
        Self::NotConfigured,
    ];

    /// The word used in JSON, logs and stored holds.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Throttled => "throttled",
            Self::Outage => "outage",
            Self::Blocked => "blocked",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// One hold a kind and route; `None` closes every route of the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId {
    pub kind: HoldKind,
    pub route: Option<Route>,
}

impl HoldId {
    pub fn name(self) -> String {
        let route = match self.route {
            None => "all",
            Some(Route::Deliver) => "deliver",
            Some(Route::Fetch) => "fetch",
            Some(Route::StoreHost) => "store_host",
        };
        format!("{}:{route}", self.kind.word())
    }

    /// `None` for a name that another version wrote.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, route) = name.split_once(':')?;
        let kind = HoldKind::ALL.into_iter().find(|k| k.word() == kind)?;
        let route = match route {
            "all" => None,
            "deliver" => Some(Route::Deliver),
            "fetch" => Some(Route::Fetch),
            "store_host" => Some(Route::StoreHost),
            _ => return None,
        };
        Some(Self { kind, route })
    }

    pub fn stored_key(self, tenant: &TenantId) -> HoldKey {
        HoldKey {
            tenant: tenant.clone(),
            name: self.name(),
        }
    }
}

/// What a hold says to an operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// One sentence without its full stop: what is wrong.
    pub reason: String,
    /// What to change; empty if there is nothing to do but wait.
    pub remedy: String,
}

impl Words {
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }

    /// Both in one line.
    pub fn line(&self) -> String {
        if self.remedy.is_empty() {
            self.reason.clone()
        } else {
            format!("{}. {}", self.reason, self.remedy)
        }
    }
}

/// A hold in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub words: Words,
    /// The youngest request that was sent before it was set; results of older ones say nothing about it.
    pub set_after: u64,
    pub since: Timestamp,
    /// The end of a throttle; the next probe of an outage or a block; `None`: only an event ends it.
    pub until: Option<Instant>,
    pub probes_failed: u32,
    /// What caused it, where a refusal did.
    pub class: Option<FailureClass>,
    /// The last failure behind it.
    pub last: Option<FailureRecord>,
    /// The store has it.
    pub kept: bool,
}

impl Hold {
    /// A hold that begins now and that nothing but an event ends.
    pub fn new(words: Words, wall: Timestamp) -> Self {
        Self {
            words,
            set_after: 0,
            since: wall,
            until: None,
            probes_failed: 0,
            class: None,
            last: None,
            kept: false,
        }
    }

    /// A probe that is due does not end the hold; a throttle's time does.
    pub fn has_ended(&self, kind: HoldKind, now: Instant) -> bool {
        kind == HoldKind::Throttled && self.until.is_none_or(|until| until <= now)
    }

    /// For the store. A block or an outage lasts until a probe ends it, and a restart probes at once.
    pub fn stored(&self, id: HoldId, tenant: &TenantId, now: Instant) -> StoredHold {
        let ends = self.until.filter(|_| id.kind == HoldKind::Throttled);
        StoredHold {
            key: id.stored_key(tenant),
            set_at: self.since,
            left: ends.map(|until| until.since(now)),
            reason: self.text().write(),
        }
    }

    fn text(&self) -> Text {
        Text {
            words: self.words.clone(),
            kind: None,
            last: self.last.clone(),
        }
    }

    /// As the store gave it back. `None` if another version wrote it.
    pub fn restored(stored: &StoredHold, now: Instant) -> Option<(HoldId, Self)> {
        let id = HoldId::parse(&stored.key.name)?;
        let until = match id.kind {
            HoldKind::Throttled => Some(now.saturating_add(stored.left?)),
            HoldKind::Outage | HoldKind::Blocked => Some(now),
            HoldKind::Operator | HoldKind::NotConfigured => None,
        };
        let text = Text::read(&stored.reason);
        let mut hold = Self::new(text.words, stored.set_at);
        hold.last = text.last;
        hold.until = until;
        hold.kept = true;
        Some((id, hold))
    }

    pub fn view(&self, id: HoldId, now: Instant, wall: Timestamp) -> HoldView {
        let until = self
            .until
            .map(|until| wall.saturating_add(until.since(now)).to_string());
        HoldView {
            kind: id.kind.word().to_owned(),
            route: id.route,
            reason: self.words.line(),
            until,
            since: Some(self.since.to_string()),
            last: self.last.clone(),
        }
    }
}

/// What the store must be told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldChange {
    Put(StoredHold),
    Remove(HoldKey),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(Duration::from_secs(500));
    const DELIVER: Option<Route> = Some(Route::Deliver);

    fn tenant() -> TenantId {
        "acme".parse().unwrap()
    }

    #[test]
    fn every_hold_reads_back_the_name_it_is_stored_under() {
        for kind in HoldKind::ALL {
            for route in [None, DELIVER, Some(Route::Fetch), Some(Route::StoreHost)] {
                let id = HoldId { kind, route };
                assert_eq!(HoldId::parse(&id.name()), Some(id));
            }
        }
        for foreign in ["", "throttled", "throttled:moon", "frozen:all"] {
            assert_eq!(HoldId::parse(foreign), None);
        }
    }

    #[test]
    fn a_throttle_comes_back_with_what_is_left_of_it() {
        let id = HoldId {
            kind: HoldKind::Throttled,
            route: DELIVER,
        };
        let mut hold = Hold::new(Words::new("patience", ""), Timestamp(7));
        hold.until = Some(NOW.saturating_add(Duration::from_secs(3600)));
        let mut stored = hold.stored(id, &tenant(), NOW);
        assert_eq!(stored.left, Some(Duration::from_secs(3600)));

        let start = Instant(Duration::from_secs(9));
        stored.left = Some(Duration::from_secs(600));
        let (back, restored) = Hold::restored(&stored, start).unwrap();
        assert_eq!(back, id);
        assert_eq!(
            restored.until,
            Some(start.saturating_add(Duration::from_secs(600)))
        );
    }

    #[test]
    fn a_block_comes_back_with_its_words_and_since_and_is_probed_at_once() {
        let id = HoldId {
            kind: HoldKind::Blocked,
            route: DELIVER,
        };
        let words = Words::new("its token lacks the scope a", "Add it");
        let mut hold = Hold::new(words.clone(), Timestamp(7));
        hold.until = Some(NOW.saturating_add(Duration::from_secs(900)));
        let stored = hold.stored(id, &tenant(), NOW);
        let (_, restored) = Hold::restored(&stored, NOW).unwrap();
        assert_eq!(restored.words, words);
        assert_eq!(restored.since, Timestamp(7));
        assert_eq!(restored.until, Some(NOW));
        let view = restored.view(id, NOW, Timestamp(99));
        assert_eq!(view.reason, "its token lacks the scope a. Add it");
    }
}
