//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod architecture;
mod demo;
mod documents;
mod enqueueing;
mod examples;
mod holders;
mod index_loss;
mod kill;
mod main_job;
mod place;
mod platform_faults;
mod processes;
mod recordings;
mod refusals;
mod sabotage;
mod service;
mod support;
mod units;
