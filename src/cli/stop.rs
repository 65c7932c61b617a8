//! Why a command ends early: an exit code, a word for scripts, a sentence for people.

use crate::config::ConfigError;
use crate::control::{Code, Refusal};

use super::exit;
use super::out::bounded;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub exit: u8,
    pub refusal: Refusal,
}

impl Stop {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Refusal::new(code, message).into()
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::BadInput, message)
    }
}

impl From<Refusal> for Stop {
    fn from(mut refusal: Refusal) -> Self {
        refusal.message = bounded(&refusal.message).into_owned();
        Self {
            exit: exit::of_refusal(refusal.code),
            refusal,
        }
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Configuration, error.to_string())
    }
}
