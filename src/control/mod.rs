//! The operator's side of a store: one set of operations, answered by whoever holds it. A holder listens on
//! `<store>/control.sock`; any other process either asks there or opens the store and answers itself.

pub mod accept;
pub mod access;
pub mod answer;
pub mod client;
pub mod holds;
mod letters;
pub mod recordings;
pub mod refusal;
pub mod running;
pub mod server;
mod session_why;
pub mod sessions;
pub mod snapshot;
pub mod socket;
#[cfg(test)]
pub(crate) mod tests;
pub mod trend;
pub mod why;
pub mod wire;
pub mod words;

pub use access::{Access, Reach};
pub use refusal::{Code, Refusal, chain};
pub use running::{Holder, Running};
