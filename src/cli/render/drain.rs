//! How a drain ended: a table a tenant, and one line that says what is left, why, and what to do.

use std::fmt::Write;

use crate::cli::exit;
use crate::control::wire::{DrainOutcome, DrainReport, DrainedRecordings, DrainedTenant};
use crate::control::words;
use crate::model::Timestamp;

use super::table;

/// What was delivered, what is left, and why, a row a tenant.
pub fn drain_table(report: &DrainReport, now: Timestamp) -> String {
    let mut table = table(&["TENANT", "DELIVERED", "BYTES", "LEFT", "DEAD", "WHY"], 1);
    if let Some(column) = table.column_mut(5) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    for (tenant, part) in &report.tenants {
        table.add_row([
            tenant.clone(),
            words::count(part.delivered.chunks),
            words::bytes(part.delivered.bytes),
            words::count(part.left.chunks),
            words::count(part.dead + part.dead_before),
            reason(part, now),
        ]);
    }
    for (tenant, part) in &report.recordings {
        table.add_row([
            format!("{tenant} recordings"),
            words::count(part.fetched),
            "-".to_owned(),
            words::count(part.left),
            words::count(part.dead),
            recordings_reason(part, now),
        ]);
    }
    table.trim_fmt()
}

/// `drain ended: 118 chunks left, all of globex (throttled until 14:30Z). Exit 75: run again then`
pub fn drain_line(report: &DrainReport, now: Timestamp) -> String {
    let code = exit::of_drain(report.outcome);
    if report.outcome == DrainOutcome::Drained {
        return format!(
            "drained: {} delivered ({})",
            words::chunks(report.delivered.chunks),
            words::bytes(report.delivered.bytes)
        );
    }
    let mut text = format!("drain ended: {} left", words::chunks(report.left.chunks));
    let left: Vec<_> = report
        .tenants
        .iter()
        .filter(|(_, part)| part.left.chunks > 0)
        .collect();
    match left.as_slice() {
        [] => {}
        [(tenant, part)] => {
            let _ = write!(text, ", all of {tenant} ({})", reason(part, now));
        }
        several => {
            let parts: Vec<_> = several
                .iter()
                .map(|(tenant, part)| {
                    let chunks = words::count(part.left.chunks);
                    format!("{chunks} of {tenant} ({})", reason(part, now))
                })
                .collect();
            let _ = write!(text, ": {}", parts.join(", "));
        }
    }
    let dead: u64 = report.tenants.values().map(|part| part.dead).sum();
    if dead > 0 {
        let _ = write!(text, "; {} died", words::chunks(dead));
    }
    if report.unreadable > 0 {
        let _ = write!(text, "; {} unreadable", words::chunks(report.unreadable));
    }
    let timed = left.iter().any(|(_, part)| part.until.is_some());
    let advice = match report.outcome {
        DrainOutcome::DeadLeft if dead == 0 && report.unreadable > 0 => "worker fsck says where",
        outcome => advice(outcome, timed),
    };
    let _ = write!(text, ". Exit {code}: {advice}");
    text
}

fn recordings_reason(part: &DrainedRecordings, now: Timestamp) -> String {
    let reason = part.reason.trim_end_matches('.');
    match &part.until {
        Some(until) => format!("until {}: {reason}", words::moment_of(until, now)),
        None => reason.to_owned(),
    }
}

fn reason(part: &DrainedTenant, now: Timestamp) -> String {
    let word = match part.outcome {
        DrainOutcome::Drained => return String::new(),
        DrainOutcome::DeadLeft => "dead letters",
        DrainOutcome::Blocked => "blocked",
        DrainOutcome::Unreachable => "unreachable",
        DrainOutcome::Throttled => "throttled",
        DrainOutcome::Deadline => "out of time",
        DrainOutcome::Storage => "storage",
    };
    let mut text = word.to_owned();
    // When a cure comes nobody knows, and the next try is made by nobody once a drain has ended.
    let known = !matches!(
        part.outcome,
        DrainOutcome::Blocked | DrainOutcome::Unreachable
    );
    if let Some(until) = part.until.as_ref().filter(|_| known) {
        let _ = write!(text, " until {}", words::moment_of(until, now));
    }
    let told = part.reason.trim_end_matches('.');
    if !told.is_empty() && told != word && part.outcome != DrainOutcome::Throttled {
        let _ = write!(text, ": {told}");
    }
    text
}

fn advice(outcome: DrainOutcome, timed: bool) -> &'static str {
    match outcome {
        DrainOutcome::Drained => "nothing to do",
        DrainOutcome::DeadLeft => "look at them with worker dead list",
        DrainOutcome::Blocked => "cure what is named and run again",
        DrainOutcome::Unreachable => "run again when it answers",
        DrainOutcome::Throttled if timed => "run again then",
        DrainOutcome::Throttled | DrainOutcome::Deadline => "run again",
        DrainOutcome::Storage => "look at the disk, then run again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Count;
    use std::collections::BTreeMap;

    fn part(outcome: DrainOutcome, left: u64, reason: &str, until: Option<&str>) -> DrainedTenant {
        DrainedTenant {
            outcome,
            delivered: Count {
                chunks: 7,
                bytes: 7 << 20,
            },
            left: Count {
                chunks: left,
                bytes: left,
            },
            dead: 0,
            dead_before: 0,
            reason: reason.into(),
            until: until.map(str::to_owned),
        }
    }

    fn report(outcome: DrainOutcome, parts: Vec<(&str, DrainedTenant)>) -> DrainReport {
        let mut report = DrainReport {
            outcome,
            delivered: Count::default(),
            left: Count::default(),
            tenants: BTreeMap::new(),
            handed_over: false,
            recordings: BTreeMap::new(),
            unreadable: 0,
        };
        for (tenant, part) in parts {
            report.delivered.add(part.delivered);
            report.left.add(part.left);
            report.tenants.insert(tenant.into(), part);
        }
        report
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
    }

    #[test]
    fn chunks_that_cannot_be_read_are_told_and_sent_to_fsck() {
        let mut report = report(DrainOutcome::DeadLeft, vec![]);
        report.unreadable = 40;
        assert_eq!(
            drain_line(&report, now()),
            "drain ended: 0 chunks left; 40 chunks unreadable. Exit 65: worker fsck says where"
        );
    }

    #[test]
    fn a_throttled_rest_is_told_with_its_tenant_its_end_and_the_exit_code() {
        let globex = part(
            DrainOutcome::Throttled,
            118,
            "429",
            Some("2026-03-01T14:30:00Z"),
        );
        let acme = part(DrainOutcome::Drained, 0, "", None);
        let report = report(
            DrainOutcome::Throttled,
            vec![("acme", acme), ("globex", globex)],
        );
        assert_eq!(
            drain_line(&report, now()),
            "drain ended: 118 chunks left, all of globex (throttled until 14:30Z). Exit 75: run again then"
        );
    }

    #[test]
    fn several_tenants_are_told_each_with_its_reason() {
        let acme = part(DrainOutcome::Blocked, 100, "its secret is wrong.", None);
        let globex = part(DrainOutcome::Unreachable, 18, "connection refused", None);
        let report = report(
            DrainOutcome::Blocked,
            vec![("acme", acme), ("globex", globex)],
        );
        assert_eq!(
            drain_line(&report, now()),
            "drain ended: 118 chunks left: 100 of acme (blocked: its secret is wrong), 18 of globex \
             (unreachable: connection refused). Exit 69: cure what is named and run again"
        );
        assert_eq!(
            drain_table(&report, now()).lines().collect::<Vec<_>>(),
            [
                "TENANT  DELIVERED  BYTES  LEFT  DEAD  WHY",
                "acme            7  7 MiB   100     0  blocked: its secret is wrong",
                "globex          7  7 MiB    18     0  unreachable: connection refused",
            ]
        );
    }

    #[test]
    fn a_drain_that_left_nothing_says_what_it_delivered() {
        let acme = part(DrainOutcome::Drained, 0, "", None);
        let report = report(DrainOutcome::Drained, vec![("acme", acme)]);
        assert_eq!(
            drain_line(&report, now()),
            "drained: 7 chunks delivered (7 MiB)"
        );
    }
}
