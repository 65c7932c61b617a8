//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod documents;
mod kill;
mod main_job;
mod support;
mod units;
