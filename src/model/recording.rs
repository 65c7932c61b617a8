//! A recording as the platform keeps it, and what this host knows of it.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What the platform says of a recording. Every part but its id may be missing there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordingFacts {
    pub session: Option<String>,
    pub host: Option<String>,
    pub organization: Option<String>,
    pub status: Option<String>,
    pub chunks: Option<u64>,
    pub bytes: Option<u64>,
    /// As the platform writes it; see docs/PROTOCOL.md for what it covers.
    pub digest: Option<String>,
    /// Sequences that the platform does not have, as closed intervals; `None` if it does not say.
    pub gaps: Option<Vec<(u64, u64)>>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub media_type: Option<String>,
}

/// What became of a recording's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RecordingState {
    /// A receipt or a listing named it; nobody asked for more.
    Known = 1,
    /// Its metadata is to be fetched.
    Wanted = 2,
    Fetched = 3,
    /// Fetched, and the same as what this host delivered.
    Verified = 4,
    /// Fetched, and not what this host delivered.
    Mismatch = 5,
    /// The platform did not give it in time.
    Dead = 6,
}

impl RecordingState {
    pub const ALL: [Self; 6] = [
        Self::Known,
        Self::Wanted,
        Self::Fetched,
        Self::Verified,
        Self::Mismatch,
        Self::Dead,
    ];

    /// The word used in JSON, tables and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Wanted => "wanted",
            Self::Fetched => "fetched",
            Self::Verified => "verified",
            Self::Mismatch => "mismatch",
            Self::Dead => "dead",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// Recordings by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordingCounts {
    pub known: u64,
    pub wanted: u64,
    pub fetched: u64,
    pub verified: u64,
    pub mismatch: u64,
    pub dead: u64,
}

impl RecordingCounts {
    pub fn of(&mut self, state: RecordingState) -> &mut u64 {
        match state {
            RecordingState::Known => &mut self.known,
            RecordingState::Wanted => &mut self.wanted,
            RecordingState::Fetched => &mut self.fetched,
            RecordingState::Verified => &mut self.verified,
            RecordingState::Mismatch => &mut self.mismatch,
            RecordingState::Dead => &mut self.dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_that_reads_back() {
        for state in RecordingState::ALL {
            assert_eq!(RecordingState::parse(state.word()), Some(state));
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json, state.word());
        }
    }
}
