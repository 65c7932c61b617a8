//! From replies to text for people; pure. The same reply prints the same way whoever answered it.

mod dead;
#[cfg(feature = "sandbox")]
mod demo;
mod drain;
mod hold;
mod sessions;
mod stats;
mod why;

pub use dead::{dead_letters, letter};
#[cfg(feature = "sandbox")]
pub use demo::demo;
pub use drain::{drain_line, drain_table};
pub use hold::hold_line;
pub use sessions::{session, session_ended, session_promoted, sessions};
pub use stats::{balance_line, fsck, stats, tenants};
pub use why::why;

use comfy_table::{CellAlignment, Table, presets};

use crate::control::wire::EnqueuedView;
use crate::control::words;

/// A table without lines; every column but the first `texts` stands to the right.
fn table(head: &[&str], texts: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().copied());
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if place >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// `accepted acme/s1/7 part-7.mp4 (64 KiB)`.
pub fn enqueued(file: &str, view: &EnqueuedView) -> String {
    let key = format!("{}/{}/{}", view.tenant, view.session, view.sequence);
    match &view.state {
        None => format!("accepted {key} {file} ({})", words::bytes(view.bytes)),
        Some(state) => format!("known {key} {file} ({state})"),
    }
}

/// A refusal that does not name its file yet.
pub fn refused(file: &str, message: &str) -> String {
    if message.starts_with(file) {
        message.to_owned()
    } else {
        format!("{file}: {message}")
    }
}
