//! `worker tenants show` as text.

use std::fmt::Write;
use std::time::Duration;

use crate::control::words;
use crate::model::{PaceView, TenantView, Timestamp};

use super::hold_line;

pub fn tenant(name: &str, view: &TenantView, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |what: &str, says: String| {
        let _ = writeln!(text, "{what:<10}{says}");
    };
    let counts = &view.counts;
    let backlog = counts.backlog();
    line(
        "backlog",
        format!(
            "{}, {}; {} dead, {} delivered",
            words::chunks(backlog.chunks),
            words::bytes(backlog.bytes),
            words::count(counts.dead.chunks),
            words::count(counts.delivered.chunks)
        ),
    );
    match &view.pace {
        Some(pace) => {
            line("requests", requests(pace));
            line(
                "uploads",
                format!("{} under way, {} at most", pace.in_flight, pace.concurrency),
            );
            line("groups", groups(pace));
            let used = view.retries_used.unwrap_or_default();
            line(
                "retries",
                format!("{} used since the worker started", words::count(used)),
            );
        }
        None => line("requests", "none: no worker runs".to_owned()),
    }
    if view.gate.holds.is_empty() {
        line("gate", "open".to_owned());
    }
    for hold in &view.gate.holds {
        let _ = writeln!(text, "{}", hold_line(name, hold, view.pace.is_some(), now));
    }
    text
}

/// `299 a minute, own share 100 %; 12 of 300 left for 41 s`.
fn requests(pace: &PaceView) -> String {
    let mut text = format!(
        "{} a minute, own share {} %",
        words::count(pace.requests_per_minute),
        pace.share_percent
    );
    let (Some(allowed), Some(remaining)) = (pace.allowed, pace.remaining) else {
        return text + "; the platform tells no budget";
    };
    let _ = write!(
        text,
        "; {} of {} left",
        words::count(remaining),
        words::count(allowed)
    );
    if let Some(reset) = pace.reset_in_s {
        let _ = write!(text, " for {}", words::span(Duration::from_secs(reset)));
    }
    text
}

fn groups(pace: &PaceView) -> String {
    if pace.group_chunks <= 1 {
        return "off: one chunk a request".to_owned();
    }
    let mut text = format!(
        "up to {}, {}, {} of recording",
        words::chunks(pace.group_chunks),
        words::bytes(pace.group_bytes),
        words::span(Duration::from_secs(pace.group_interval_s))
    );
    if let Some(learned) = pace.group_learned_bytes {
        let _ = write!(
            text,
            "; the platform takes no more than {}",
            words::bytes(learned)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> TenantView {
        TenantView {
            pace: Some(PaceView {
                requests_per_minute: 74,
                share_percent: 25,
                allowed: Some(300),
                remaining: Some(12),
                reset_in_s: Some(41),
                window_s: Some(60),
                sessions: 2000,
                in_flight: 3,
                concurrency: 8,
                group_chunks: 64,
                group_bytes: 32 << 20,
                group_interval_s: 900,
                group_learned_bytes: Some(4 << 20),
            }),
            retries_used: Some(2),
            ..TenantView::default()
        }
    }

    #[test]
    fn a_tenant_is_shown_with_what_its_requests_are_limited_by() {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        assert_eq!(
            tenant("acme", &view(), now),
            "backlog   0 chunks, 0 bytes; 0 dead, 0 delivered\n\
             requests  74 a minute, own share 25 %; 12 of 300 left for 41 s\n\
             uploads   3 under way, 8 at most\n\
             groups    up to 64 chunks, 32 MiB, 15 min of recording; the platform takes no more than 4 MiB\n\
             retries   2 used since the worker started\n\
             gate      open\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let now = Timestamp(0);
        let idle = TenantView::default();
        assert!(tenant("acme", &idle, now).contains("no worker runs"));
        let mut silent = view();
        let pace = silent.pace.as_mut().unwrap();
        (pace.allowed, pace.remaining, pace.group_chunks) = (None, None, 1);
        let text = tenant("acme", &silent, now);
        assert!(
            text.contains("tells no budget") && text.contains("one chunk a request"),
            "{text}"
        );
    }
}
