//! What `worker demo` ends with as text.

use std::fmt::Write;

use crate::control::words;
use crate::demo::{Report, Row};

use super::table;

pub fn demo(report: &Report) -> String {
    let mut text = String::new();
    let faults = &report.faults;
    let unauthorized: u64 = report.tenants.values().map(|row| row.unauthorized).sum();
    let _ = write!(
        text,
        "\nin {} s: {}, {} × 401, {} × 429",
        report.took_ms / 1000,
        words::counted(faults.expired_tokens, "expired token"),
        unauthorized,
        faults.throttled,
    );
    if faults.scope_blocked && faults.scope_cured {
        text.push_str(", a lost scope and its cure");
    }
    if let Some(kill) = faults.kill {
        let _ = write!(
            text,
            ", a kill -9 with {} on the wire and {} waiting",
            words::chunks(kill.leased),
            kill.waiting
        );
    }
    text.push_str("\n\n");
    let _ = writeln!(text, "{}", rows(report));
    let again: u64 = report.tenants.values().map(|row| row.sent_again).sum();
    if again > 0 {
        let _ = writeln!(
            text,
            "sent again because the answer was lost, and recognised by the platform: {}",
            words::chunks(again)
        );
    }
    text.push_str(if report.identical {
        "captured = delivered, byte for byte\n"
    } else {
        "captured and delivered DIFFER\n"
    });
    text.push_str("what the platform has:\n");
    for take in &report.recordings {
        let mark = if take.identical { "" } else { "   DIFFERS" };
        let _ = writeln!(text, "  {}{mark}", take.path.display());
    }
    let _ = writeln!(
        text,
        "configuration, store and logs: {}",
        report.kept.display()
    );
    text
}

fn rows(report: &Report) -> String {
    let head = [
        "TENANT",
        "CAPTURED",
        "DELIVERED",
        "401S",
        "429S",
        "LOST",
        "DOUBLED",
    ];
    let mut table = table(&head, 1);
    let mut total = Row::default();
    for (tenant, row) in &report.tenants {
        table.add_row(cells(tenant, row));
        total.captured += row.captured;
        total.delivered += row.delivered;
        total.unauthorized += row.unauthorized;
        total.throttled += row.throttled;
        total.lost += row.lost;
        total.doubled += row.doubled;
    }
    table.add_row(cells("total", &total));
    table.trim_fmt()
}

fn cells(name: &str, row: &Row) -> [String; 7] {
    [
        name.to_owned(),
        row.captured.to_string(),
        row.delivered.to_string(),
        row.unauthorized.to_string(),
        row.throttled.to_string(),
        row.lost.to_string(),
        row.doubled.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::demo::{Faults, Kill, Take};

    fn report(identical: bool) -> Report {
        let row = Row {
            captured: 24,
            delivered: 24 - u64::from(!identical),
            lost: u64::from(!identical),
            unauthorized: 2,
            ..Row::default()
        };
        Report {
            seed: 0,
            took_ms: 21_700,
            tenants: BTreeMap::from([("acme".to_owned(), row)]),
            faults: Faults {
                expired_tokens: 9,
                unauthorized: 2,
                throttled: 1,
                forbidden: 1,
                scope_blocked: true,
                scope_cured: true,
                kill: Some(Kill {
                    leased: 6,
                    waiting: 12,
                }),
            },
            identical,
            recordings: vec![Take {
                tenant: "acme".into(),
                session: "desk-1".into(),
                bytes: 1,
                sha256: "00".into(),
                identical,
                path: PathBuf::from("/d/recordings/acme-desk-1.ts"),
            }],
            kept: PathBuf::from("/d"),
            failures: Vec::new(),
        }
    }

    #[test]
    fn a_green_demo_ends_with_faults_table_verdict_and_paths() {
        let text = demo(&report(true));
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "",
                "in 21 s: 9 expired tokens, 2 × 401, 1 × 429, a lost scope and its cure, a kill -9 with 6 chunks on the wire and 12 waiting",
                "",
                "TENANT  CAPTURED  DELIVERED  401S  429S  LOST  DOUBLED",
                "acme          24         24     2     0     0        0",
                "total         24         24     2     0     0        0",
                "captured = delivered, byte for byte",
                "what the platform has:",
                "  /d/recordings/acme-desk-1.ts",
                "configuration, store and logs: /d",
            ]
        );
    }

    #[test]
    fn a_red_demo_never_says_that_the_bytes_are_the_same() {
        let text = demo(&report(false));
        assert!(!text.contains("captured = delivered"), "{text}");
        assert!(text.contains("acme-desk-1.ts   DIFFERS"), "{text}");
    }
}
