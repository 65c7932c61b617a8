//! Which chunks of a session share a request, and what a refusal of several says about one of them.
//!
//! There is no timer: a session's turn takes what is there. A chunk goes alone whenever its own fate is in question,
//! because a verdict on several is evidence against none of them.

use std::time::Duration;

use super::retry::{Disposition, Settle};
use crate::model::FailureClass;

/// What one request may hold. Its first chunk may always go, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_chunks: u32,
    /// The longest span of recording.
    pub max_interval: Duration,
}

impl Limits {
    pub const MAX_BYTES: u64 = 32 << 20;
    pub const MAX_CHUNKS: u32 = 64;
    pub const MAX_INTERVAL: Duration = Duration::from_secs(15 * 60);

    /// One chunk a request.
    pub const ALONE: Self = Self {
        max_bytes: 0,
        max_chunks: 1,
        max_interval: Duration::ZERO,
    };

    pub fn is_alone(&self) -> bool {
        self.max_chunks <= 1
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: Self::MAX_BYTES,
            max_chunks: Self::MAX_CHUNKS,
            max_interval: Self::MAX_INTERVAL,
        }
    }
}

/// A chunk, as far as its company is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    pub bytes: u64,
    pub duration: Duration,
    /// What a request states once for all its parts.
    pub host: &'a str,
    pub media_type: &'a str,
    /// No chunk of the session follows.
    pub last: bool,
    /// Counted failures, and times that it was on the wire when the process ended.
    pub failures: u32,
    pub crashes: u32,
    /// It waits for its next try.
    pub waits: bool,
}

/// The request under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    limits: Limits,
    host: String,
    media_type: String,
    chunks: u32,
    bytes: u64,
    span: Duration,
    closed: bool,
}

impl Group {
    pub fn of(limits: Limits, first: &Member<'_>) -> Self {
        Self {
            limits,
            host: first.host.to_owned(),
            media_type: first.media_type.to_owned(),
            chunks: 1,
            bytes: first.bytes,
            span: first.duration,
            closed: first.last || first.failures > 0 || first.crashes > 0,
        }
    }

    /// Whether another could be admitted at all.
    pub fn is_full(&self) -> bool {
        self.closed || self.chunks >= self.limits.max_chunks || self.bytes >= self.limits.max_bytes
    }

    /// Whether the next chunk in sequence comes along; it is counted if so.
    pub fn admits(&mut self, next: &Member<'_>) -> bool {
        let bytes = self.bytes.saturating_add(next.bytes);
        let span = self.span.saturating_add(next.duration);
        let fits = !self.is_full()
            && bytes <= self.limits.max_bytes
            && span <= self.limits.max_interval
            && next.host == self.host
            && next.media_type == self.media_type
            && next.failures == 0
            && next.crashes == 0
            && !next.waits;
        if fits {
            (self.chunks, self.bytes, self.span) = (self.chunks + 1, bytes, span);
            self.closed = next.last;
        }
        fits
    }
}

/// What a definite refusal of several chunks at once says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Something among them is refused: halve.
    OneOfThem,
    /// Together they are too large: smaller groups for the whole lane.
    TooLarge,
}

/// `None`: the failure says nothing about the payload, and the same group goes again.
pub fn refused(class: FailureClass, status: Option<u16>) -> Option<Refused> {
    match class {
        FailureClass::Rejected if status == Some(413) => Some(Refused::TooLarge),
        FailureClass::Rejected | FailureClass::DigestMismatch | FailureClass::Damaged => {
            Some(Refused::OneOfThem)
        }
        _ => None,
    }
}

/// What remains of a decision that was taken as if the group were one chunk, and whether the group is to be halved. What
/// would use up a retry of a chunk, or end it, counts against none of several: halved often enough, the one that it is
/// about goes alone and is judged by itself.
pub fn shared_out(disposition: Disposition) -> (Disposition, bool) {
    let (settle, halve) = match disposition.settle {
        Settle::Nack {
            delay,
            counted: true,
        } => (
            Settle::Nack {
                delay,
                counted: false,
            },
            true,
        ),
        Settle::Bury { .. } => (Settle::Release, true),
        settle => (settle, false),
    };
    let disposition = Disposition {
        settle,
        ..disposition
    };
    (disposition, halve)
}

/// The search for what is wrong with a refused group: its first half goes next. What is delivered leaves the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Halving {
    /// The last sequence of the smallest group that was refused.
    last: Option<u64>,
}

impl Halving {
    pub fn refused(&mut self, first: u64, chunks: u32) {
        self.last = Some(first.saturating_add(u64::from(chunks.saturating_sub(1))));
    }

    /// How many chunks may go together where `first` is next.
    pub fn most(&self, first: u64) -> u32 {
        match self.last {
            Some(last) if last >= first => {
                let left = u32::try_from(last - first + 1).unwrap_or(u32::MAX);
                (left / 2).max(1)
            }
            _ => u32::MAX,
        }
    }
}

/// What a lane has learned of its platform's largest request. Forgotten after an hour: it may have been a gateway of the
/// moment, and finding out again costs a few requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learned {
    bytes: Option<(u64, Duration)>,
}

const LEARNED_FOR: Duration = Duration::from_secs(3600);

impl Learned {
    /// So many bytes were too many.
    pub fn too_large(&mut self, bytes: u64, now: Duration) {
        let half = (bytes / 2).max(1);
        let lower = self.limit(now).map_or(half, |limit| limit.min(half));
        self.bytes = Some((lower, now.saturating_add(LEARNED_FOR)));
    }

    pub fn limit(&self, now: Duration) -> Option<u64> {
        self.bytes
            .filter(|(_, until)| now < *until)
            .map(|(bytes, _)| bytes)
    }
}

#[cfg(test)]
mod tests;
