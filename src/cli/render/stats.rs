//! `worker --stats`, `worker tenants list` and `worker fsck` as text.

use std::fmt::Write;
use std::time::Duration;

use crate::control::words;
use crate::model::{Balance, Counts, GateState, Snapshot, TenantView, Timestamp};
use crate::store::{Damage, FsckReport};

use super::{hold_line, table};

/// The whole answer; its last line names the next command.
pub fn stats(snapshot: &Snapshot, now: Timestamp) -> String {
    let mut text = heading(snapshot);
    if let Some(latched) = &snapshot.latched {
        let _ = writeln!(text, "{latched}");
    }
    text.push_str(&counts_table(snapshot));
    text.push('\n');
    text.push_str(&hold_lines(snapshot, now));
    let _ = writeln!(text, "{}", balance_line(&snapshot.balance));
    text.push_str(&recordings_line(snapshot));
    let _ = writeln!(text, "next: {}", next_after_stats(snapshot));
    text
}

/// Only what a person should look at, or wait for.
fn recordings_line(snapshot: &Snapshot) -> String {
    let Some(counts) = snapshot.recordings else {
        return String::new();
    };
    let mut text = String::new();
    if counts.wanted > 0 {
        let _ = writeln!(
            text,
            "{} to fetch",
            words::counted(counts.wanted, "recording")
        );
    }
    if counts.mismatch > 0 {
        let _ = writeln!(
            text,
            "{} not as delivered: worker recordings list --state mismatch",
            words::counted(counts.mismatch, "recording")
        );
    }
    text
}

fn heading(snapshot: &Snapshot) -> String {
    let disk = &snapshot.disk;
    let mut text = format!(
        "host {} · store {} used, {} free on its disk",
        snapshot.host,
        words::bytes_of(disk.used_bytes, disk.quota_bytes.max(1)),
        words::bytes(disk.free_bytes)
    );
    if let Some(eta) = disk.eta_full_s {
        let _ = write!(text, ", full in {}", words::span(Duration::from_secs(eta)));
    }
    let workers = &snapshot.workers;
    if runs(snapshot) {
        let _ = write!(
            text,
            " · {} of {} workers busy",
            workers.busy,
            workers.busy + workers.idle
        );
    } else {
        text.push_str(" · no worker runs");
    }
    text.push('\n');
    text
}

/// Somebody works on this store now.
fn runs(snapshot: &Snapshot) -> bool {
    snapshot.workers.busy + snapshot.workers.idle > 0
}

fn counts_table(snapshot: &Snapshot) -> String {
    let head = [
        "TENANT",
        "GATE",
        "TOKEN",
        "WAITING",
        "BYTES",
        "HELD",
        "DELAYED",
        "SENDING",
        "DEAD",
        "DELIVERED",
        "OLDEST",
    ];
    let mut table = table(&head, 3);
    for (tenant, view) in &snapshot.tenants {
        let mut row = vec![tenant.clone(), gate_word(view).to_owned(), token_word(view)];
        row.extend(columns(&view.counts));
        row.push(age(view.oldest_age_s));
        table.add_row(row);
    }
    if snapshot.tenants.len() != 1 {
        let mut row = vec!["total".to_owned(), String::new(), String::new()];
        row.extend(columns(&snapshot.total));
        row.push(String::new());
        table.add_row(row);
    }
    table.trim_fmt()
}

fn columns(counts: &Counts) -> Vec<String> {
    let backlog = counts.backlog();
    let mut sending = counts.leased;
    sending.add(counts.confirming);
    vec![
        words::count(backlog.chunks),
        words::bytes(backlog.bytes),
        words::count(counts.held.chunks),
        words::count(counts.delayed.chunks),
        words::count(sending.chunks),
        words::count(counts.dead.chunks),
        words::count(counts.delivered.chunks),
    ]
}

fn gate_word(view: &TenantView) -> &'static str {
    match view.gate.state {
        GateState::Open => "open",
        GateState::Paused => "paused",
        GateState::Blocked => "blocked",
    }
}

fn token_word(view: &TenantView) -> String {
    match &view.token {
        None => "-".to_owned(),
        Some(token) => match token.expires_in_s {
            Some(left) if token.state == "valid" => words::span(Duration::from_secs(left)),
            _ => token.state.clone(),
        },
    }
}

fn age(seconds: Option<u64>) -> String {
    seconds.map_or_else(
        || "-".to_owned(),
        |seconds| words::span(Duration::from_secs(seconds)),
    )
}

fn hold_lines(snapshot: &Snapshot, now: Timestamp) -> String {
    let mut text = String::new();
    for (tenant, view) in &snapshot.tenants {
        for hold in &view.gate.holds {
            let line = hold_line(tenant, hold, runs(snapshot), now);
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// `7 enqueued = 4 delivered + 2 waiting + 1 dead + 0 purged`.
pub fn balance_line(balance: &Balance) -> String {
    let lost = balance.lost.map_or_else(String::new, |lost| {
        format!(" + {} lost", words::count(lost))
    });
    let unreadable = match balance.unreadable {
        0 => String::new(),
        chunks => format!(" ({} unreadable)", words::count(chunks)),
    };
    format!(
        "{} enqueued {} {} delivered + {} waiting + {} dead{unreadable} + {} purged{lost}",
        words::count(balance.enqueued),
        if balance.balanced { "=" } else { "≠" },
        words::count(balance.delivered),
        words::count(balance.backlog),
        words::count(balance.dead),
        words::count(balance.purged)
    )
}

fn next_after_stats(snapshot: &Snapshot) -> String {
    if !snapshot.balance.balanced || snapshot.balance.unreadable > 0 {
        return "worker fsck".to_owned();
    }
    let blocked = snapshot
        .tenants
        .iter()
        .find(|(_, view)| view.gate.state != GateState::Open && view.counts.backlog().chunks > 0);
    if let Some((tenant, _)) = blocked {
        return format!("worker why {tenant}");
    }
    if snapshot.total.backlog().chunks > 0 && !runs(snapshot) {
        return "worker drain".to_owned();
    }
    if snapshot.total.dead.chunks > 0 {
        return "worker dead list".to_owned();
    }
    "worker enqueue --tenant T --session S FILE".to_owned()
}

/// `worker tenants list`.
pub fn tenants(snapshot: &Snapshot, now: Timestamp) -> String {
    let mut table = table(
        &[
            "TENANT",
            "GATE",
            "TOKEN",
            "WAITING",
            "DEAD",
            "REQUESTS/MIN",
            "LEFT",
            "LAST DELIVERY",
        ],
        3,
    );
    for (tenant, view) in &snapshot.tenants {
        let last = view.last_delivery_s.map_or_else(
            || "-".to_owned(),
            |seconds| format!("{} ago", words::span(Duration::from_secs(seconds))),
        );
        table.add_row([
            tenant.clone(),
            gate_word(view).to_owned(),
            token_word(view),
            words::count(view.counts.backlog().chunks),
            words::count(view.counts.dead.chunks),
            pace_words(view).0,
            pace_words(view).1,
            last,
        ]);
    }
    format!("{}\n{}", table.trim_fmt(), hold_lines(snapshot, now))
}

/// Requests a minute, and what is left of the budget that the platform tells of.
fn pace_words(view: &TenantView) -> (String, String) {
    let Some(pace) = &view.pace else {
        return ("-".to_owned(), "-".to_owned());
    };
    let left = match (pace.remaining, pace.allowed) {
        (Some(left), Some(allowed)) => format!("{left} of {allowed}"),
        _ => "-".to_owned(),
    };
    (words::count(pace.requests_per_minute), left)
}

/// `worker fsck`.
pub fn fsck(report: &FsckReport) -> String {
    let mut text = String::new();
    for damage in &report.damaged {
        let _ = writeln!(text, "damaged: {}", damage_line(damage));
    }
    for repaired in &report.repaired {
        let _ = writeln!(text, "repaired: {}", damage_line(repaired));
    }
    let _ = writeln!(
        text,
        "{} in {} checked ({})",
        words::chunks(report.chunks_checked),
        words::counted(report.segments, "segment"),
        words::bytes(report.bytes_checked)
    );
    let _ = writeln!(text, "{}", balance_line(&report.balance));
    text
}

fn damage_line(damage: &Damage) -> String {
    let whose = match (&damage.tenant, &damage.session, damage.sequence) {
        (Some(tenant), Some(session), Some(sequence)) => format!(" {tenant}/{session}/{sequence}"),
        _ => String::new(),
    };
    let (segment, offset, reason) = (&damage.segment, damage.offset, &damage.reason);
    format!("segment {segment} at {offset}{whose}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Count, GateView, HoldView, WorkersView};

    fn snapshot() -> Snapshot {
        let count = |chunks| Count {
            chunks,
            bytes: chunks * (1 << 20),
        };
        let mut acme = TenantView {
            oldest_age_s: Some(720),
            ..TenantView::default()
        };
        acme.counts.held = count(1_204);
        acme.counts.delivered = count(7);
        acme.gate = GateView {
            state: GateState::Blocked,
            holds: vec![HoldView {
                kind: "blocked".into(),
                route: None,
                reason: "the secret is wrong".into(),
                until: None,
                since: None,
                last: None,
            }],
        };
        let mut snapshot = Snapshot {
            host: "rec-017".into(),
            ..Snapshot::default()
        };
        snapshot.total.add(&acme.counts);
        snapshot.tenants.insert("acme".into(), acme);
        snapshot.disk.quota_bytes = 50 << 30;
        snapshot.balance = Balance {
            enqueued: 1_211,
            delivered: 7,
            backlog: 1_204,
            balanced: true,
            ..Balance::default()
        };
        snapshot
    }

    #[test]
    fn stats_show_the_backlog_why_it_waits_and_what_to_do() {
        let text = stats(&snapshot(), Timestamp(0));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "host rec-017 · store 0.0 of 50.0 GiB used, 0 bytes free on its disk · no worker runs",
                "TENANT  GATE     TOKEN  WAITING    BYTES   HELD  DELAYED  SENDING  DEAD  DELIVERED  OLDEST",
                "acme    blocked  -        1,204  1.2 GiB  1,204        0        0     0          7  12 min",
                "tenant acme is blocked: the secret is wrong; nobody delivers now; to go on: worker run, or once: worker drain",
                "1,211 enqueued = 7 delivered + 1,204 waiting + 0 dead + 0 purged",
                "next: worker why acme",
            ],
            "{text}"
        );
    }

    #[test]
    fn a_balance_that_does_not_hold_is_shown_as_such_and_sends_to_fsck() {
        let mut snapshot = snapshot();
        snapshot.balance.balanced = false;
        snapshot.balance.lost = Some(3);
        snapshot.workers = WorkersView { busy: 1, idle: 0 };
        let text = stats(&snapshot, Timestamp(0));
        assert!(text.contains("1,211 enqueued ≠ 7"), "{text}");
        assert!(text.contains("+ 3 lost"), "{text}");
        assert!(text.ends_with("next: worker fsck\n"), "{text}");
    }
}
