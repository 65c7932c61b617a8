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
    for failure in &letter.history {
        text.push_str(&failure_lines(failure, now).replacen("last failure", "failure", 1));
        if !failure.body.is_empty() {
            let _ = writeln!(text, "  body: {}", failure.body);
        }
    }
    text
}
