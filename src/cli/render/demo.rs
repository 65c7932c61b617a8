//! What `worker demo` ends with as text.

use std::fmt::Write;

use crate::control::words;
use crate::demo::{Report, Row};

use super::table;

pub fn demo(report: &Report) -> String {
    let mut text = String::new();
    let faults = &report.faults;
    let _ = write!(
        text,
        "\nin {} s: {}, {} × 401, {} × 429",
        report.took_ms / 1000,
        words::counted(faults.expired_tokens, "expired token"),
        faults.unauthorized,
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
    table.to_string()
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
