//! Holding the store: the engine, the control socket, signals and the service manager, from start to end.

mod check;
pub mod drain;
pub mod hold;
pub mod log;
mod notify;
mod recordings;
mod report;
pub mod signals;
mod slots;
mod transports;
mod witness;
mod work;

pub use work::{Role, start};
