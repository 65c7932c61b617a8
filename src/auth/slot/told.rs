//! What a slot says of itself, without changing.

use super::{Origin, Phase, SlotState};
use crate::auth::CredentialHold;
use crate::auth::diagnosis::{Circumstance, Diagnosis, Refused};
use crate::clock::Instant;
use crate::model::{FailureRecord, Generation, Timestamp, TokenView};

impl SlotState {
    /// The hold in force: callers are refused at once.
    pub fn hold(&self, now: Instant) -> Option<CredentialHold> {
        let trouble = self.trouble.as_ref()?;
        let closed = match self.phase {
            Phase::Waiting | Phase::Blocked => true,
            Phase::Valid => trouble.origin == Origin::Mint && self.has_expired(now),
            Phase::Empty | Phase::Fetching(_) | Phase::Refreshing(_) => false,
        };
        (closed && now < trouble.next_at).then(|| self.described(now))
    }

    /// A failure that is not over.
    pub fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    pub fn view(&self, now: Instant) -> TokenView {
        let usable = matches!(self.phase, Phase::Valid | Phase::Refreshing(_));
        let state = match self.phase {
            Phase::Empty | Phase::Waiting => "none",
            Phase::Fetching(_) => "fetching",
            Phase::Valid | Phase::Refreshing(_) => "valid",
            Phase::Blocked => "blocked",
        };
        let issue = self.newest.as_ref().filter(|_| usable);
        let left = issue.and_then(|issue| issue.left(now));
        TokenView {
            state: state.to_owned(),
            expires_in_s: left.map(|left| left.as_secs()),
            generation: self.generation().0,
        }
    }

    /// What became of the token of `generation`, if it is refused now.
    pub fn fate(&self, generation: Generation, now: Instant) -> Option<String> {
        let issue = self.newest.as_ref()?;
        if issue.token.generation != generation {
            return None;
        }
        issue.circumstance(now).fate()
    }

    /// The scopes that the newest token states.
    pub fn scopes(&self) -> Option<&[String]> {
        self.newest.as_ref()?.scopes.as_deref()
    }

    /// The organisation that tokens show, or are to show.
    pub fn organization(&self) -> Option<&str> {
        let shown = self.newest.as_ref()?.claims.organization.as_deref();
        shown.or(self.rules.organization.as_deref())
    }

    pub fn generation(&self) -> Generation {
        self.newest
            .as_ref()
            .map_or(Generation(0), |issue| issue.token.generation)
    }

    /// What the platform's refusal of the newest token means.
    pub fn diagnosed(
        &self,
        record: &FailureRecord,
        seen: Circumstance,
        at: Timestamp,
    ) -> Diagnosis {
        let issue = self.newest.as_ref();
        let refused = Refused {
            seen,
            retry_on_401: self.rules.retry_on_401,
            granted: self.scopes(),
            expires_at_s: issue.and_then(|issue| issue.claims.expires_at_s),
            at,
        };
        Diagnosis::of_rejection(record, refused, &self.about)
    }

    pub(super) fn described(&self, now: Instant) -> CredentialHold {
        let trouble = self.trouble.as_ref().expect("a held slot has a trouble");
        trouble.describe(now)
    }
}
