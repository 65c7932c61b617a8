//! One `[tenants.NAME.delivery]` table: how a tenant wants its chunks sent.

use std::time::Duration;

use super::section::Section;
use crate::policy::grouping;

/// How a tenant's chunks are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Counted failures before a chunk is dead.
    pub max_retries: u32,
    /// And they must span at least this.
    pub min_retry_span: Duration,
    /// How long a missing sequence is waited for.
    pub gap_wait: Duration,
    pub on_dead: OnDead,
    pub refresh: Refresh,
    /// `false`: the first 401 blocks the tenant until an operator resumes it. Nothing is dropped either way.
    pub retry_on_401: bool,
    /// What one request may hold.
    pub group: grouping::Limits,
    /// The platform's request budget, where its headers tell none or tell it late.
    pub requests_per_minute: Option<u64>,
    /// Recordings at once that this host expects, for `check`.
    pub sessions: Option<u64>,
    /// Requests in flight for this tenant.
    pub concurrency: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// The session goes on and declares the gap.
    Skip,
    /// The session waits for a person.
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Before the token ends.
    Ahead,
    /// When the platform says 401.
    On401,
}

/// Ten counted failures over a day: a chunk that others overtook ten times has its own trouble.
pub const DEFAULT_MAX_RETRIES: u32 = 10;
/// Six bits in the state word hold the count.
const MAX_RETRIES_CEILING: u64 = 60;
/// No chunk dies of a fault that a working day can repair.
pub const DEFAULT_MIN_RETRY_SPAN: Duration = Duration::from_secs(24 * 3600);
/// Longer than a restart of the capture side, shorter than a person's patience.
pub const DEFAULT_GAP_WAIT: Duration = Duration::from_secs(120);
/// Half of the default pool, so that two busy tenants share it.
pub const DEFAULT_CONCURRENCY: u32 = 8;

/// A platform's largest request is smaller; and so many keys and receipts still fit an answer.
const GROUP_BYTES_CEILING: u64 = 1 << 30;
const GROUP_CHUNKS_CEILING: u64 = 1024;

const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);
const DAY_SECONDS: u64 = 86_400;

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_retries: DEFAULT_MAX_RETRIES,
            min_retry_span: DEFAULT_MIN_RETRY_SPAN,
            gap_wait: DEFAULT_GAP_WAIT,
            on_dead: OnDead::Skip,
            refresh: Refresh::Ahead,
            retry_on_401: true,
            group: grouping::Limits::default(),
            requests_per_minute: None,
            sessions: None,
            concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

/// A key with a complaint keeps its default.
pub fn read(section: Section<'_, '_>) -> Delivery {
    let default = Delivery::default();
    // Order within a session is a promise, not a setting; the key states it.
    section.choice("order", &[("session", ())]);
    section.one_spelling("max_retries", "maxRetries");
    section.one_spelling("retry_on_401", "retryOn401");
    section.one_spelling("interval_seconds", "intervalSeconds");
    let retries = section
        .count("max_retries", 1..=MAX_RETRIES_CEILING)
        .or_else(|| section.count("maxRetries", 1..=MAX_RETRIES_CEILING));
    let delivery = Delivery {
        max_retries: retries
            .and_then(|retries| u32::try_from(retries).ok())
            .unwrap_or(default.max_retries),
        min_retry_span: section
            .duration("min_retry_span", Duration::ZERO..=MONTH)
            .unwrap_or(default.min_retry_span),
        gap_wait: section
            .duration("gap_wait", Duration::ZERO..=WEEK)
            .unwrap_or(default.gap_wait),
        on_dead: section
            .choice("on_dead", &[("skip", OnDead::Skip), ("hold", OnDead::Hold)])
            .unwrap_or(default.on_dead),
        refresh: section
            .choice(
                "refresh_policy",
                &[("ahead", Refresh::Ahead), ("on_401", Refresh::On401)],
            )
            .unwrap_or(default.refresh),
        retry_on_401: section
            .flag("retry_on_401")
            .or_else(|| section.flag("retryOn401"))
            .unwrap_or(default.retry_on_401),
        group: group(&section),
        requests_per_minute: section.count("requests_per_minute", 1..=1_000_000),
        sessions: section.count("sessions", 1..=1_000_000),
        concurrency: section
            .count("concurrency", 1..=1024)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.concurrency),
    };
    // Asked for even when our own spelling stands there, so that it counts as known.
    for theirs in ["maxRetries", "retryOn401", "intervalSeconds"] {
        section.know(theirs);
    }
    section.finish();
    delivery
}

/// `group = "off"`, or a table; `intervalSeconds` and `interval_seconds` replace its `max_interval`.
fn group(section: &Section<'_, '_>) -> grouping::Limits {
    let default = grouping::Limits::default();
    let seconds = section
        .count("interval_seconds", 1..=DAY_SECONDS)
        .or_else(|| section.count("intervalSeconds", 1..=DAY_SECONDS))
        .map(Duration::from_secs);
    if section.is_text("group") {
        return match section.choice("group", &[("off", grouping::Limits::ALONE)]) {
            Some(alone) => alone,
            None => default,
        };
    }
    let mut limits = grouping::Limits {
        max_interval: seconds.unwrap_or(default.max_interval),
        ..default
    };
    let Some(table) = section.section("group") else {
        return limits;
    };
    if seconds.is_some() && table.has("max_interval") {
        let theirs = match section.has("interval_seconds") {
            true => "interval_seconds",
            false => "intervalSeconds",
        };
        table.complain(format!(
            "{theirs} is another spelling of \"max_interval\": keep one"
        ));
    }
    let spans = Duration::from_secs(1)..=Duration::from_secs(DAY_SECONDS);
    if let Some(interval) = table.duration("max_interval", spans) {
        limits.max_interval = interval;
    }
    if let Some(bytes) = table.size("max_bytes", 1..=GROUP_BYTES_CEILING) {
        limits.max_bytes = bytes;
    }
    if let Some(chunks) = table.count("max_chunks", 1..=GROUP_CHUNKS_CEILING) {
        limits.max_chunks = u32::try_from(chunks).unwrap_or(default.max_chunks);
    }
    table.finish();
    limits
}
