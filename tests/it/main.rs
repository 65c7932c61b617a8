//! Behaviour seen from outside the crate: the documents, the units, and the real binary.

mod demo;
mod documents;
mod units;
