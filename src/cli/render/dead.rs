//! Dead letters as text.

use std::fmt::Write;

use crate::control::wire::DeadView;
use crate::control::words;
use crate::model::Timestamp;

use super::table;
use super::why::failure_lines;

pub fn dead_letters(letters: &[DeadView], now: Timestamp) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = table(
        &["TENANT", "SESSION", "SEQUENCE", "REASON", "DIED", "BYTES"],
        5,
    );
    for letter in letters {
        table.add_row([
            letter.tenant.to_string(),
            letter.session.to_string(),
            letter.sequence.to_string(),
            letter.reason.word().to_owned(),
            words::moment_of(&letter.died_at, now),
            letter
                .about
                .as_ref()
                .map_or_else(|| "-".to_owned(), |about| words::count(about.bytes)),
        ]);
    }
    table.trim_fmt()
}

/// One dead letter with its history, oldest first.
pub fn letter(letter: &DeadView, now: Timestamp) -> String {
    let mut text = format!(
        "{}: dead since {} ({})\n",
        letter.key(),
        words::moment_of(&letter.died_at, now),
        letter.reason.word(),
    );
    match &letter.about {
        Some(about) => {
            let bytes = words::count(about.bytes);
            let _ = writeln!(
                text,
                "  {bytes} bytes of {}, recorded from {}\n  {}",
                about.media_type, about.started_at, about.digest
            );
        }
        None => text.push_str("  its record is damaged\n"),
    }
    let first = letter.history.first().map_or(1, |failure| failure.attempt);
    if first > 1 {
        let _ = writeln!(
            text,
            "  before these, {}: as part of a group, which is no evidence against one chunk, or longer ago than is kept",
            words::counted(u64::from(first - 1), "request")
        );
    }
    for failure in &letter.history {
        text.push_str(&failure_lines(failure, now).replacen("last failure", "failure", 1));
        if !failure.body.is_empty() {
            let _ = writeln!(text, "  body: {}", failure.body);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeadReason, FailureClass, FailureRecord};

    fn dead_after(attempt: u32) -> String {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let record = FailureRecord {
            at: now,
            class: FailureClass::Rejected,
            status: Some(422),
            code: None,
            correlation_id: None,
            fields: Vec::new(),
            missing: None,
            message: String::new(),
            body: String::new(),
            token_generation: None,
            token_fingerprint: None,
            attempt,
            next_try_at: None,
        };
        let view = DeadView {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
            sequence: 7,
            reason: DeadReason::Rejected,
            died_at: now.to_string(),
            about: None,
            history: vec![record],
        };
        letter(&view, now)
    }

    /// Seen: two chunks in one request, 422, and a history that began with "try 2".
    #[test]
    fn a_history_that_does_not_begin_with_the_first_try_says_where_the_others_are() {
        assert!(!dead_after(1).contains("before these"));
        assert!(dead_after(2).contains(
            "\n  before these, 1 request: as part of a group, which is no evidence against one chunk, or longer ago than is kept\n"
        ));
        assert!(dead_after(4).contains("before these, 3 requests: "));
    }
}
