//! The real engine over the real store, in virtual time, against a platform and a token endpoint that follow a script.

mod credentials;
mod drains;
mod failures;
mod order;
mod running;
mod stage;
