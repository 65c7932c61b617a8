//! A durable upload queue for screen recordings. Floors, lowest first; a file imports only from its own
//! folder and from lower floors.

pub mod model;

pub mod policy;

pub mod chance;
pub mod clock;
pub mod disk;
pub mod http;
pub mod sabotage;

pub mod auth;
pub mod platform;
pub mod store;

pub mod engine;

pub mod cli;
pub mod config;
pub mod control;
pub mod service;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;

#[cfg(feature = "sandbox")]
pub mod demo;
#[cfg(feature = "sandbox")]
pub mod sandbox;
