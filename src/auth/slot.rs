//! A slot's state machine, purely: time, chance and results come in, orders and answers go out.
//!
//! Holds: 1. at most one token request is under way, and its result counts only while its flight is the
//! current one; 2. a failed refresh leaves the token in use; 3. a hold ends by its deadline, an operator
//! or a success, never by a result of something begun before it.

mod issue;
mod terms;
mod told;
mod trouble;
mod whose;

use std::time::Duration;

use issue::Issue;
use trouble::{Origin, Trouble};

pub use terms::{
    Answer, Flight, Mint, Moment, Phase, RefreshPolicy, Rejected, Rules, Standing, Wanted,
};

use super::diagnosis::{Circumstance, Diagnosis};
use super::grant::{About, Minted, UNTIL_REFUSED};
use super::refusals::{self, Finding, Refusals};
use super::{AfterRejection, Rejection};
use crate::clock::Instant;
use crate::model::{Generation, SessionKey, Token};
use crate::policy::backoff::{self, Backoff};
use crate::policy::refresh;

/// Between two token requests, whatever happens; the n-th step after n barren generations.
const SPACING: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));

/// One slot.
#[derive(Debug)]
pub struct SlotState {
    rules: Rules,
    about: About,
    phase: Phase,
    newest: Option<Issue>,
    trouble: Option<Trouble>,
    refusals: Refusals,
    flights: u64,
    /// The next token request is not before this.
    earliest: Instant,
    last_mint_at: Option<Instant>,
    /// The newest token request was begun when a refusal was known.
    asked_since_refusal: bool,
}

impl SlotState {
    pub fn new(rules: Rules, about: About, at: Moment) -> Self {
        let spread = backoff::full_jitter(rules.start_spread, at.draw);
        Self {
            rules,
            about,
            phase: Phase::Empty,
            newest: None,
            trouble: None,
            refusals: Refusals::default(),
            flights: 0,
            earliest: at.now.saturating_add(spread),
            last_mint_at: None,
            asked_since_refusal: false,
        }
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    /// A caller wants a token.
    pub fn want(&mut self, at: Moment, standing: Standing) -> Wanted {
        self.expire(at.now);
        match self.phase {
            Phase::Fetching(_) => Wanted::only(Answer::Wait),
            Phase::Refreshing(_) => Wanted::only(self.usable()),
            Phase::Valid => {
                let answer = self.usable();
                let mint = self.refresh_due(at.now).then(|| {
                    let mint = self.begin(at.now);
                    self.phase = Phase::Refreshing(mint.flight);
                    mint
                });
                Wanted { answer, mint }
            }
            Phase::Waiting | Phase::Blocked
                if standing == Standing::Waited || self.hold(at.now).is_some() =>
            {
                Wanted::only(Answer::Held(Box::new(self.described(at.now))))
            }
            Phase::Empty | Phase::Waiting | Phase::Blocked => {
                let mint = self.begin(at.now);
                self.phase = Phase::Fetching(mint.flight);
                Wanted {
                    answer: Answer::Wait,
                    mint: Some(mint),
                }
            }
        }
    }

    /// A token request succeeded; `asked_at` is when it was sent, from which its token's life counts.
    /// `None`: it no longer counted.
    pub fn minted(
        &mut self,
        flight: Flight,
        minted: Minted,
        asked_at: Instant,
        at: Moment,
    ) -> Option<Generation> {
        if !self.awaits(flight) {
            return None;
        }
        // Whoever waited must be able to use it, however slow the endpoint was.
        let spent = at.now.since(asked_at);
        let life = match minted.lifetime {
            UNTIL_REFUSED => UNTIL_REFUSED,
            stated => stated.saturating_sub(spent).max(refresh::SHORTEST_LIFETIME),
        };
        let generation = Generation(self.generation().0 + 1);
        let until_refresh = life.saturating_sub(refresh::lead(life, at.draw));
        let token = Token::from_secret(minted.access_token, generation);
        let before = self.newest.as_ref();
        let ended_after = before.and_then(|issue| issue.ended_before(&token));
        self.newest = Some(Issue {
            token,
            minted_at: at.now,
            life,
            refresh_at: at.now.saturating_add(until_refresh),
            outdated: false,
            scopes: minted.scopes,
            claims: minted.claims,
            proven: false,
            since_refusal: self.asked_since_refusal,
            ended_after,
        });
        self.trouble
            .take_if(|trouble| trouble.origin == Origin::Mint);
        self.phase = Phase::Valid;
        Some(generation)
    }

    /// The exchange endpoint does not take the token of `generation`. Whether a younger one may come.
    pub fn invalidate(&mut self, generation: Generation, now: Instant) -> bool {
        self.expire(now);
        if self.generation() == generation {
            self.phase = match self.phase {
                Phase::Refreshing(flight) => Phase::Fetching(flight),
                Phase::Valid => self.without_token(now),
                other => other,
            };
        }
        self.hold(now).is_none()
    }

    /// A token request failed. How many had failed of late for such a reason; `None`: it no longer counted.
    pub fn failed(&mut self, flight: Flight, diagnosis: Diagnosis, at: Moment) -> Option<u32> {
        if !self.awaits(flight) {
            return None;
        }
        let trouble = self.worsen(Origin::Mint, diagnosis, at);
        let (resting, next_at) = (trouble.phase(), trouble.next_at);
        let before = trouble.probes_failed;
        self.phase = match (self.phase, &mut self.newest) {
            (Phase::Refreshing(_), Some(issue)) => {
                issue.refresh_at = next_at;
                issue.outdated = false;
                Phase::Valid
            }
            _ => resting,
        };
        Some(before)
    }

    /// The platform answered 401 to a token of this slot.
    pub fn reject(&mut self, rejection: &Rejection, at: Moment) -> Rejected {
        self.expire(at.now);
        let stale = Rejected {
            after: if self.hold(at.now).is_some() {
                AfterRejection::Blocked
            } else {
                AfterRejection::Retry
            },
            seen: None,
            abandon: false,
        };
        let Some(issue) = &mut self.newest else {
            return stale;
        };
        if issue.token.generation != rejection.generation
            || matches!(self.phase, Phase::Waiting | Phase::Blocked)
        {
            return stale;
        }
        let seen = issue.circumstance(at.now);
        if let Circumstance::Ended { age } = seen {
            issue.ended_after = Some(age);
        }
        let finding = if self.rules.retry_on_401 {
            self.refusals.judge(refusals::Refused {
                session: &rejection.session,
                only_session: rejection.only_session,
                generation: rejection.generation,
                proven: issue.proven,
                // Where every request gives the same token, waiting for a younger one proves nothing.
                since_refusal: issue.since_refusal || self.rules.is_static,
                on_trial: self
                    .trouble
                    .as_ref()
                    .is_some_and(|t| t.origin == Origin::Refusal),
                seen,
            })
        } else {
            Finding::Block
        };
        let finding = match finding {
            // Another request would give the same token. What never worked for one session may work for the others.
            Finding::Mint if self.rules.is_static => {
                if seen == Circumstance::Fresh && !rejection.only_session {
                    Finding::HoldSession
                } else {
                    Finding::Block
                }
            }
            other => other,
        };
        self.follow(finding, seen, rejection, at)
    }

    fn follow(
        &mut self,
        finding: Finding,
        seen: Circumstance,
        rejection: &Rejection,
        at: Moment,
    ) -> Rejected {
        let mut rejected = Rejected {
            after: AfterRejection::Retry,
            seen: Some(seen),
            abandon: false,
        };
        match finding {
            Finding::HoldSession => rejected.after = AfterRejection::HoldSession,
            Finding::Mint => {
                self.phase = match self.phase {
                    Phase::Refreshing(flight) => Phase::Fetching(flight),
                    Phase::Valid => self.without_token(at.now),
                    other => other,
                };
                if self.hold(at.now).is_some() {
                    rejected.after = AfterRejection::Blocked;
                }
            }
            Finding::Block => {
                let diagnosis = self.diagnosed(&rejection.record, seen, at.wall);
                rejected.abandon = matches!(self.phase, Phase::Fetching(_) | Phase::Refreshing(_));
                rejected.after = AfterRejection::Blocked;
                self.worsen(Origin::Refusal, diagnosis, at);
                self.phase = Phase::Blocked;
            }
        }
        rejected
    }

    /// A delivery of `session` succeeded with `generation`. Whether anything changed.
    pub fn accepted(&mut self, generation: Generation, session: &SessionKey) -> bool {
        self.refusals.forgive(session);
        let Some(issue) = &mut self.newest else {
            return false;
        };
        if issue.token.generation != generation {
            return false;
        }
        issue.proven = true;
        issue.ended_after = None;
        self.refusals.prove();
        if matches!(self.phase, Phase::Waiting | Phase::Blocked) {
            return false;
        }
        self.trouble
            .take_if(|trouble| trouble.origin == Origin::Refusal)
            .is_some()
    }

    /// An operator says that the cause is cured: the next caller sets off a try.
    pub fn retry_now(&mut self, now: Instant) {
        self.refusals.forget();
        if let Some(trouble) = &mut self.trouble {
            trouble.end_wait(now);
        }
        if let (Some(_), Some(issue)) = (&self.trouble, &mut self.newest) {
            issue.refresh_at = issue.refresh_at.min(now);
        }
    }

    /// A probe needs a token younger than `generation`: the next caller sets off its request. Whether one comes.
    pub fn renew(&mut self, generation: Generation, now: Instant) -> bool {
        if let (Phase::Valid, Some(issue)) = (self.phase, &mut self.newest)
            && issue.token.generation == generation
        {
            issue.outdated = true;
            issue.refresh_at = issue.refresh_at.min(now);
        }
        self.hold(now).is_none()
    }

    fn usable(&self) -> Answer {
        let issue = self.newest.as_ref().expect("a valid slot has a token");
        Answer::Use(issue.token.clone())
    }

    /// Whether the slot still wants the result of this request.
    pub fn awaits(&self, flight: Flight) -> bool {
        matches!(self.phase, Phase::Fetching(current) | Phase::Refreshing(current) if current == flight)
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.rules.refresh == RefreshPolicy::Ahead
            && self
                .newest
                .as_ref()
                .is_some_and(|issue| now >= issue.expires_at())
    }

    fn refresh_due(&self, now: Instant) -> bool {
        let ahead = self.rules.refresh == RefreshPolicy::Ahead;
        self.newest
            .as_ref()
            .is_some_and(|issue| (ahead || issue.outdated) && now >= issue.refresh_at)
    }

    /// Notices the newest token's end.
    fn expire(&mut self, now: Instant) {
        if !self.has_expired(now) {
            return;
        }
        self.phase = match self.phase {
            Phase::Refreshing(flight) => Phase::Fetching(flight),
            Phase::Valid => self.without_token(now),
            other => other,
        };
    }

    /// Where a slot goes whose token has ended: a failed refresh is not forgotten with it.
    fn without_token(&self, now: Instant) -> Phase {
        match &self.trouble {
            Some(trouble) if trouble.origin == Origin::Mint && now < trouble.next_at => {
                trouble.phase()
            }
            _ => Phase::Empty,
        }
    }

    fn begin(&mut self, now: Instant) -> Mint {
        self.flights += 1;
        self.asked_since_refusal = self.refusals.are_unanswered();
        let spacing = SPACING.interval(self.refusals.barren().saturating_add(1));
        let spaced = self
            .last_mint_at
            .map_or(self.earliest, |last| last.saturating_add(spacing));
        let not_before = spaced.max(now);
        self.last_mint_at = Some(not_before);
        let ripening = self
            .trouble
            .as_ref()
            .map_or(Duration::ZERO, Trouble::ripening);
        Mint {
            flight: Flight(self.flights),
            not_before,
            ripening,
        }
    }

    /// Records a failure and says when the next try may be.
    fn worsen(&mut self, origin: Origin, diagnosis: Diagnosis, at: Moment) -> &Trouble {
        let trouble = Trouble::after(self.trouble.as_ref(), origin, diagnosis, at);
        self.trouble.insert(trouble)
    }
}

#[cfg(test)]
mod tests;
