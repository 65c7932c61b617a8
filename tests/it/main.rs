//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod architecture;
mod clocks;
mod credentials;
mod demo;
mod documents;
mod enqueueing;
mod examples;
mod grants;
mod holders;
mod index_loss;
mod inputs;
mod keys;
mod kill;
mod main_job;
mod platform_faults;
mod processes;
mod reach;
mod recordings;
mod refusals;
mod sabotage;
mod service;
mod support;
mod transports;
mod units;
mod websocket;
