//! The real engine over the real store, in virtual time, against a platform and a token endpoint that follow a script.

mod drains;
mod failures;
mod groups;
mod order;
mod running;
mod stage;
