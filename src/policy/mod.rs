//! Pure decisions: plain data in, plain data out. No clock, no randomness, no I/O; both time and chance
//! are arguments.

pub mod backoff;
pub mod fairness;
pub mod fetch;
pub mod fit;
pub mod grouping;
pub mod pacing;
pub mod probe;
pub mod refresh;
pub mod retry;
mod share;
mod turns;
