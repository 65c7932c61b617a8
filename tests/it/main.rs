//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod architecture;
mod clocks;
mod credentials;
mod demo;
mod documents;
mod enqueueing;
mod examples;
mod holders;
mod index_loss;
mod inputs;
mod kill;
mod main_job;
mod platform_faults;
mod processes;
mod reach;
mod refusals;
mod sabotage;
mod service;
mod support;
mod transports;
mod units;
