//! Progress with rate and time left as a moving line, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::out::Out;

/// A moving line, or nothing.
pub struct Progress(ProgressBar);

const BYTES: &str = "{bar:24} {bytes} of {total_bytes} · {bytes_per_sec} · {eta} left  {msg}";
const CHUNKS: &str = "{bar:24} {pos} of {len} chunks · {per_sec} · {eta} left  {msg}";

impl Progress {
    pub fn of_bytes(out: Out, total: u64) -> Self {
        Self::new(out, total, BYTES)
    }

    pub fn of_chunks(out: Out, total: u64) -> Self {
        Self::new(out, total, CHUNKS)
    }

    fn new(out: Out, total: u64, template: &str) -> Self {
        if !out.shows_progress() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template(template).expect("a checked template");
        let bar = ProgressBar::new(total).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    pub fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// Work can grow while it is done.
    pub fn set(&self, done: u64, total: u64, message: String) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(message);
    }

    /// Prints a line of the answer above the moving one.
    pub fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
