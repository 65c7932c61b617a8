//! Why an operation was not done, in a form that crosses the socket: a word for scripts, a sentence for people.

use serde::{Deserialize, Serialize};

use crate::store::{EnqueueError, OpenError, StoreError};

/// The word for scripts. `cli::exit` gives each its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    UnknownTenant,
    /// A name, time, size or request that makes no sense.
    BadInput,
    Empty,
    /// The file grew or shrank while it was read.
    Changed,
    TooLarge,
    NotFound,
    Conflict,
    CannotTell,
    Repeat,
    TooManyGaps,
    Full,
    /// Another process holds the store and does not answer in time.
    Held,
    /// The holder is going away; ask again.
    Closing,
    /// The holder cannot do this.
    Unsupported,
    Configuration,
    /// What was given does not read back whole.
    Damaged,
    Storage,
    Internal,
}

impl Code {
    /// The word as it stands in JSON.
    pub fn word(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|word| word.as_str().map(str::to_owned))
            .expect("a code is one word")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// An error and its causes, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Refusal {
    pub fn code_of(error: &EnqueueError) -> Code {
        match error {
            EnqueueError::UnknownTenant { .. } => Code::UnknownTenant,
            EnqueueError::Empty => Code::Empty,
            EnqueueError::SequenceTooHigh { .. } | EnqueueError::MediaType => Code::BadInput,
            EnqueueError::LengthChanged { .. } => Code::Changed,
            EnqueueError::TooLarge { .. } => Code::TooLarge,
            EnqueueError::Conflict { .. } => Code::Conflict,
            EnqueueError::CannotTell { .. } => Code::CannotTell,
            EnqueueError::Repeat { .. } => Code::Repeat,
            EnqueueError::TooManyGaps { .. } => Code::TooManyGaps,
            EnqueueError::Full(_) => Code::Full,
            EnqueueError::Payload(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                Code::Changed
            }
            EnqueueError::Payload(_) => Code::BadInput,
            EnqueueError::Latched(_) | EnqueueError::Io(_) => Code::Storage,
            EnqueueError::Closing => Code::Closing,
        }
    }

    pub fn code_of_store(error: &StoreError) -> Code {
        match error {
            StoreError::Closing => Code::Closing,
            StoreError::OtherOrganisation { .. } => Code::Conflict,
            StoreError::IndexLost { .. }
            | StoreError::Io(_)
            | StoreError::Latched(_)
            | StoreError::Damaged => Code::Storage,
        }
    }
}

impl From<EnqueueError> for Refusal {
    fn from(error: EnqueueError) -> Self {
        Self::new(Self::code_of(&error), chain(&error))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(Self::code_of_store(&error), chain(&error))
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Held { .. } => Code::Held,
            OpenError::NewerFormat { .. }
            | OpenError::OtherHost { .. }
            | OpenError::Settings { .. } => Code::Configuration,
            OpenError::Io { .. } => Code::Storage,
        };
        Self::new(code, chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;
    use std::io;

    #[test]
    fn the_cause_is_told_once_after_what_was_being_done() {
        let error = OpenError::Io {
            path: "/s".into(),
            source: io::Error::from_raw_os_error(5),
        };
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, Code::Storage);
        assert_eq!(refusal.message, "store /s: Input/output error (os error 5)");
    }

    #[test]
    fn a_conflict_names_session_sequence_and_both_digests() {
        let (stored, given) = (Digest::of(b"a"), Digest::of(b"b"));
        let refusal = Refusal::from(EnqueueError::Conflict {
            session: "s1".into(),
            sequence: 7,
            stored,
            given,
        });
        assert_eq!(refusal.code, Code::Conflict);
        assert_eq!(
            refusal.message,
            format!(
                "session s1 sequence 7 exists with other bytes (stored {}…, given {}…)",
                stored.short(),
                given.short()
            )
        );
    }

    #[test]
    fn an_unknown_tenant_is_named_beside_the_configured_ones() {
        let refusal = Refusal::from(EnqueueError::UnknownTenant {
            tenant: "acm".into(),
            configured: "acme, globex".into(),
        });
        assert_eq!(
            refusal.message,
            "unknown tenant \"acm\"; configured: acme, globex"
        );
        assert_eq!(refusal.code.word(), "unknown_tenant");
    }
}
