//! What a command prints: text or JSON on standard output, trouble on standard error. A reader that went
//! away (a closed pipe) is not an error of the command.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    pub json: bool,
    pub quiet: bool,
}

impl Out {
    /// Text for a person: not with `--json`, not with `-q`.
    pub fn say(&self, text: &str) {
        if !self.json && !self.quiet {
            print(text.trim_end());
        }
    }

    /// The answer itself: printed with `-q` too.
    pub fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        if self.json {
            self.object(value);
        } else {
            print(text().trim_end());
        }
    }

    /// One JSON object a line.
    pub fn object<T: Serialize>(&self, value: &T) {
        print(&serde_json::to_string(value).expect("plain data is JSON"));
    }

    /// The last line: the command that a person would type next.
    pub fn next(&self, command: &str) {
        self.say(&format!("next: {command}"));
    }

    /// A remark that is no part of the answer.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            trouble(text);
        }
    }

    /// Whether a remark has a reader.
    pub fn shows_remarks(&self) -> bool {
        !self.quiet
    }

    /// Whether a moving progress line has a reader.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && std::io::stderr().is_terminal()
    }
}

fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A closed pipe: whoever listened has heard enough.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Text as it is, for another program; `false`: nobody reads any more.
pub fn raw(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_ok()
}

/// Printed whatever the options.
pub fn trouble(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", bounded(text.trim_end()));
}

/// No line of a message needs more; one that has more echoes somebody's input.
const LINE_MAX: usize = 1_000;
/// What is left of such a line: where it begins, and the complaint at its end.
const LINE_HEAD: usize = 160;
const LINE_TAIL: usize = 240;

/// A message without overlong lines: what was refused is not echoed whole.
pub fn bounded(text: &str) -> Cow<'_, str> {
    if text.lines().all(|line| line.len() <= LINE_MAX) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<_> = text.lines().map(line).collect();
    Cow::Owned(lines.join("\n"))
}

fn line(line: &str) -> Cow<'_, str> {
    if line.len() <= LINE_MAX {
        return Cow::Borrowed(line);
    }
    let head = &line[..line.floor_char_boundary(LINE_HEAD)];
    let tail = &line[line.ceil_char_boundary(line.len() - LINE_TAIL)..];
    Cow::Owned(format!("{head}…{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_echoes_too_much_keeps_its_beginning_and_its_complaint() {
        let name = "é".repeat(10_000);
        let text = format!("first\ninvalid value '{name}': tenant has 10000 characters\nlast");
        let bounded = bounded(&text);
        assert!(bounded.len() < 600, "{bounded}");
        assert!(bounded.starts_with("first\ninvalid value 'é"), "{bounded}");
        assert!(
            bounded.ends_with("tenant has 10000 characters\nlast"),
            "{bounded}"
        );
        assert_eq!(super::bounded("as it is"), "as it is");
    }
}
