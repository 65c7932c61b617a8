//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod documents;
mod index_loss;
mod kill;
mod main_job;
mod platform_faults;
mod processes;
mod refusals;
mod support;
mod units;
