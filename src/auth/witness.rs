//! Whose a token is that does not show it: who gives it out asks the platform, once a token, and in no case waits long.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::model::Token;

/// A token is kept from those who wait for it for no longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What the platform says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Organization(String),
    /// Not this time: it was not reached, or is not sure.
    Nothing,
    /// It never will.
    Silent,
}

pub type Witnessing<'a> = Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

/// The platform, as far as it knows whose a token is. Dropping the future ends the question.
pub trait Witness: Send + Sync + 'static {
    fn whose<'a>(&'a self, token: &'a Token) -> Witnessing<'a>;
}
