//! The real engine over the real store, in virtual time, against a platform and a token endpoint that follow a script.

mod budgets;
mod credentials;
mod cycles;
mod drains;
mod failures;
mod figures;
mod groups;
mod meter;
mod order;
mod running;
mod stage;
mod trouble;
