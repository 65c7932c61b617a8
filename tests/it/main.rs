//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod documents;
mod enqueueing;
mod examples;
mod holders;
mod kill;
mod main_job;
mod place;
mod service;
mod support;
mod units;
