//! What a command prints: text or JSON on standard output, trouble on standard error. A reader that went
//! away (a closed pipe) is not an error of the command.

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
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
