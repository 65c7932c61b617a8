//! The numbers that `worker --stats` shows, as plain data. Scripts rely on the names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FailureRecord, RecordingCounts, Route, SessionId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    pub chunks: u64,
    pub bytes: u64,
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
    }
}

/// Chunks by what they are now. `ready + held + delayed + leased + confirming` is the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub ready: Count,
    pub held: Count,
    pub delayed: Count,
    pub leased: Count,
    pub confirming: Count,
    pub dead: Count,
    pub delivered: Count,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.ready.add(other.ready);
        self.held.add(other.held);
        self.delayed.add(other.delayed);
        self.leased.add(other.leased);
        self.confirming.add(other.confirming);
        self.dead.add(other.dead);
        self.delivered.add(other.delivered);
    }

    /// What the host still owes the platform.
    pub fn backlog(&self) -> Count {
        let mut sum = self.ready;
        for part in [self.held, self.delayed, self.leased, self.confirming] {
            sum.add(part);
        }
        sum
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    #[default]
    Open,
    Paused,
    Blocked,
}

/// Why a tenant waits whom a person paused.
pub const PAUSED: &str = "paused by an operator";

/// One reason why a lane waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// `operator`, `throttled`, `outage`, `blocked` or `not_configured`.
    pub kind: String,
    /// `None`: all routes of the lane.
    pub route: Option<Route>,
    pub reason: String,
    /// RFC 3339; `None` if only an event ends it.
    pub until: Option<String>,
    pub since: Option<String>,
    /// The last failure behind it, if an answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<FailureRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GateView {
    pub state: GateState,
    pub holds: Vec<HoldView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// `none`, `fetching`, `valid` or `blocked`.
    pub state: String,
    pub expires_in_s: Option<u64>,
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantView {
    #[serde(flatten)]
    pub counts: Counts,
    pub oldest_age_s: Option<u64>,
    pub newest_age_s: Option<u64>,
    pub last_delivery_s: Option<u64>,
    pub eta_empty_s: Option<u64>,
    pub gate: GateView,
    pub token: Option<TokenView>,
    /// `None` where no engine runs.
    #[serde(default)]
    pub pace: Option<PaceView>,
    /// The missing sequences that keep it longest; `None` also where no engine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_wait: Option<GapWaitView>,
    /// Failures that counted against a chunk since the worker started; `None` where no engine runs.
    #[serde(default)]
    pub retries_used: Option<u64>,
}

/// Sequences that nobody has given yet, for which their session waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapWaitView {
    pub session: SessionId,
    pub first: u64,
    pub last: u64,
    /// RFC 3339: when the session goes on without them.
    pub until: String,
    /// Sessions of the tenant that wait so.
    pub sessions: u64,
}

/// What a tenant's requests are limited by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PaceView {
    /// Of everyone on this host who spends the same budget.
    pub requests_per_minute: u64,
    /// Of what is spent of the budget, as far as it can be told.
    pub share_percent: u64,
    /// What the platform's headers told: the budget, what is left of it, and for how long.
    pub allowed: Option<u64>,
    pub remaining: Option<u64>,
    pub reset_in_s: Option<u64>,
    pub window_s: Option<u64>,
    /// Sessions with work.
    pub sessions: u64,
    pub in_flight: u64,
    /// Uploads at once, at present.
    pub concurrency: u64,
    /// What a request may hold; one chunk where groups are off.
    pub group_chunks: u64,
    pub group_bytes: u64,
    pub group_interval_s: u64,
    /// Learned from the platform's refusals.
    pub group_learned_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkersView {
    pub busy: u64,
    pub idle: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskUse {
    pub used_bytes: u64,
    pub quota_bytes: u64,
    pub free_bytes: u64,
    pub eta_full_s: Option<u64>,
}

/// `enqueued = delivered + backlog + dead + purged`, in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    pub enqueued: u64,
    pub delivered: u64,
    pub backlog: u64,
    pub dead: u64,
    pub purged: u64,
    /// Those of the dead that nobody can name: `worker fsck` tells their places.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    pub balanced: bool,
}

pub fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// `worker --stats --json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub host: String,
    pub tenants: BTreeMap<String, TenantView>,
    pub total: Counts,
    pub workers: WorkersView,
    pub disk: DiskUse,
    pub balance: Balance,
    /// The storage error that stops intake, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latched: Option<String>,
    /// What is known of recordings; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<RecordingCounts>,
}
