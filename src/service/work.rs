//! The engine, built from the configuration and seen through [`Running`].

use std::sync::Arc;

use crate::control::running::{Holder, Running};
use crate::control::{Code, Refusal};

/// Starts an engine on the holder's store.
///
/// # Errors
/// It cannot be built.
pub async fn start(_holder: &Holder, _command: &'static str) -> Result<Arc<dyn Running>, Refusal> {
    Err(Refusal::new(Code::Unsupported, "this build has no engine"))
}
