//! A slot's state machine, purely: time, chance and results come in, orders and answers go out.
//!
//! Holds: 1. at most one token request is under way, and its result counts only while its flight is the
//! current one; 2. a failed refresh leaves the token in use; 3. a hold ends by its deadline, an operator
//! or a success, never by a result of something begun before it.

use std::time::Duration;

use super::diagnosis::{Circumstance, Diagnosis};
use super::grant::{About, Minted};
use super::refusals::{Finding, Refusals, Refused};
use super::{AfterRejection, CredentialHold, CredentialHoldKind, Rejection};
use crate::clock::Instant;
use crate::model::{Generation, SessionKey, Timestamp, Token, TokenView};
use crate::policy::backoff::{self, Backoff};
use crate::policy::refresh;

/// Between two token requests, whatever happens; the n-th step after n barren generations.
const SPACING: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));
/// Short at first, because most outages are; its end bounds how late a cure is noticed.
const OUTAGE: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(5 * 60));
/// Longer, because each try spends the budget that is missing.
const THROTTLE: Backoff = Backoff::doubling(Duration::from_secs(5), Duration::from_secs(5 * 60));
/// Steps that a hold of another kind takes over, so that alternating failures still slow down.
const STEPS_KEPT: u32 = 3;
/// How long a probe's token is left to spread before its first use: a platform that learns of new tokens
/// late would otherwise refuse every probe.
const RIPENING: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(30));
/// The shortest idle timeout in the field is 5 min: an unused token older than that may have died of it.
const FRESH_FOR: Duration = Duration::from_secs(5 * 60);

/// When a token is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefreshPolicy {
    /// Before its end, while it is still used.
    #[default]
    Ahead,
    /// When the platform refuses it; its stated end is ignored.
    On401,
}

/// What an operator chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub refresh: RefreshPolicy,
    /// `false`: the first 401 blocks the slot instead of minting another token at once.
    pub retry_on_401: bool,
    /// The first request waits up to this long, so that many slots do not start in one moment.
    pub start_spread: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            refresh: RefreshPolicy::default(),
            retry_on_401: true,
            start_spread: Duration::ZERO,
        }
    }
}

/// When something happens, and its draw from `[0, 1)`.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    pub wall: Timestamp,
    pub draw: f64,
}

/// The number of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight(u64);

/// What the slot does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No usable token, no request, no hold. Ends by a caller.
    Empty,
    /// Callers wait for the request. Ends by its result, or by a block.
    Fetching(Flight),
    /// Callers get the newest token. Ends by its refresh, its end or its refusal.
    Valid,
    /// Callers get the newest token while another is fetched. Ends as `Valid` and `Fetching` do.
    Refreshing(Flight),
    /// The endpoint is down or throttles. Ends by a caller after the deadline.
    Waiting,
    /// Only a person can help, or a probe finds that one did. Ends by a caller after the deadline.
    Blocked,
}

/// The order to begin a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mint {
    pub flight: Flight,
    pub not_before: Instant,
    /// How long to keep the token before it counts as minted; see [`Mint::ripening`].
    ripening: Duration,
}

impl Mint {
    /// Never so long that the token would age much by it.
    pub fn ripening(&self, life: Duration) -> Duration {
        self.ripening.min(life / 4)
    }
}

/// Whether a caller has just come, or has waited for a request that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Learns of the failure that it waited for, even where the next try is already due.
    Waited,
}

#[derive(Debug)]
pub enum Answer {
    Use(Token),
    Wait,
    Held(CredentialHold),
}

/// An answer to a caller, and the request that it sets off.
#[derive(Debug)]
pub struct Wanted {
    pub answer: Answer,
    pub mint: Option<Mint>,
}

/// What a 401 led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub after: AfterRejection,
    /// `None`: the refused generation is not the newest.
    pub seen: Option<Circumstance>,
    /// The request under way no longer counts.
    pub abandon: bool,
}

/// The newest token.
#[derive(Debug)]
struct Issue {
    token: Token,
    minted_at: Instant,
    life: Duration,
    refresh_at: Instant,
    scopes: Option<Vec<String>>,
    /// Some delivery used it.
    proven: bool,
}

impl Issue {
    fn expires_at(&self) -> Instant {
        self.minted_at.saturating_add(self.life)
    }

    fn circumstance(&self, now: Instant) -> Circumstance {
        let age = now.since(self.minted_at);
        if age >= self.life {
            Circumstance::Expired
        } else if self.proven || age >= FRESH_FOR {
            let life = self.life;
            Circumstance::RevokedEarly { age, life }
        } else {
            Circumstance::Fresh
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A token request failed; the next token ends it.
    Mint,
    /// The platform refused tokens; the next delivery ends it.
    Refusal,
}

#[derive(Debug)]
struct Trouble {
    diagnosis: Diagnosis,
    origin: Origin,
    since: Timestamp,
    since_at: Instant,
    /// Failures since then, without the first.
    probes_failed: u32,
    /// Failures that its deadline grew by.
    steps: u32,
    next_at: Instant,
}

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
                Wanted::only(Answer::Held(self.described(at.now)))
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
        let life = minted
            .lifetime
            .saturating_sub(spent)
            .max(refresh::SHORTEST_LIFETIME);
        let generation = Generation(self.generation().0 + 1);
        let until_refresh = life.saturating_sub(refresh::lead(life, at.draw));
        self.newest = Some(Issue {
            token: Token::from_secret(minted.access_token, generation),
            minted_at: at.now,
            life,
            refresh_at: at.now.saturating_add(until_refresh),
            scopes: minted.scopes,
            proven: false,
        });
        self.trouble
            .take_if(|trouble| trouble.origin == Origin::Mint);
        self.phase = Phase::Valid;
        Some(generation)
    }

    /// A token request failed. How many had failed of late for such a reason; `None`: it no longer counted.
    pub fn failed(&mut self, flight: Flight, diagnosis: Diagnosis, at: Moment) -> Option<u32> {
        if !self.awaits(flight) {
            return None;
        }
        let kind = diagnosis.kind;
        let next_at = self.worsen(Origin::Mint, diagnosis, at);
        self.phase = match (self.phase, &mut self.newest) {
            (Phase::Refreshing(_), Some(issue)) => {
                issue.refresh_at = next_at;
                Phase::Valid
            }
            _ => resting(kind),
        };
        self.trouble.as_ref().map(|trouble| trouble.probes_failed)
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
        let Some(issue) = &self.newest else {
            return stale;
        };
        if issue.token.generation != rejection.generation
            || matches!(self.phase, Phase::Waiting | Phase::Blocked)
        {
            return stale;
        }
        let seen = issue.circumstance(at.now);
        let finding = if self.rules.retry_on_401 {
            self.refusals.judge(Refused {
                session: &rejection.session,
                only_session: rejection.only_session,
                generation: rejection.generation,
                proven: issue.proven,
                on_trial: self
                    .trouble
                    .as_ref()
                    .is_some_and(|t| t.origin == Origin::Refusal),
                seen,
            })
        } else {
            Finding::Block
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
                let diagnosis = Diagnosis::of_rejection(
                    &rejection.record,
                    seen,
                    self.rules.retry_on_401,
                    self.scopes(),
                    &self.about,
                );
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
            trouble.next_at = now;
            trouble.steps = 0;
        }
        if let (Some(_), Some(issue)) = (&self.trouble, &mut self.newest) {
            issue.refresh_at = issue.refresh_at.min(now);
        }
    }

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

    pub fn view(&self, now: Instant) -> TokenView {
        let usable = matches!(self.phase, Phase::Valid | Phase::Refreshing(_));
        let state = match self.phase {
            Phase::Empty | Phase::Waiting => "none",
            Phase::Fetching(_) => "fetching",
            Phase::Valid | Phase::Refreshing(_) => "valid",
            Phase::Blocked => "blocked",
        };
        let left = |issue: &Issue| issue.expires_at().since(now).as_secs();
        TokenView {
            state: state.to_owned(),
            expires_in_s: self.newest.as_ref().filter(|_| usable).map(left),
            generation: self.generation().0,
        }
    }

    /// The scopes that the newest token states.
    pub fn scopes(&self) -> Option<&[String]> {
        self.newest.as_ref()?.scopes.as_deref()
    }

    fn generation(&self) -> Generation {
        self.newest
            .as_ref()
            .map_or(Generation(0), |issue| issue.token.generation)
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
        self.rules.refresh == RefreshPolicy::Ahead
            && self
                .newest
                .as_ref()
                .is_some_and(|issue| now >= issue.refresh_at)
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
                resting(trouble.diagnosis.kind)
            }
            _ => Phase::Empty,
        }
    }

    fn begin(&mut self, now: Instant) -> Mint {
        self.flights += 1;
        let spacing = SPACING.interval(self.refusals.barren().saturating_add(1));
        let spaced = self
            .last_mint_at
            .map_or(self.earliest, |last| last.saturating_add(spacing));
        let not_before = spaced.max(now);
        self.last_mint_at = Some(not_before);
        let ripening = match &self.trouble {
            Some(trouble) if trouble.origin == Origin::Refusal && trouble.probes_failed > 0 => {
                RIPENING.interval(trouble.probes_failed)
            }
            _ => Duration::ZERO,
        };
        Mint {
            flight: Flight(self.flights),
            not_before,
            ripening,
        }
    }

    /// Records a failure and says when the next try may be.
    fn worsen(&mut self, origin: Origin, mut diagnosis: Diagnosis, at: Moment) -> Instant {
        let (since, since_at, probes_failed, steps) = match &self.trouble {
            Some(last) if last.diagnosis.kind == diagnosis.kind => (
                last.since,
                last.since_at,
                last.probes_failed.saturating_add(1),
                last.steps.saturating_add(1),
            ),
            Some(last) => (at.wall, at.now, 0, last.steps.min(STEPS_KEPT)),
            None => (at.wall, at.now, 0, 0),
        };
        let wait = wait(&diagnosis, steps, at.draw);
        let next_at = at.now.saturating_add(wait);
        if let Some(record) = &mut diagnosis.record {
            record.next_try_at = Some(at.wall.saturating_add(wait));
        }
        self.trouble = Some(Trouble {
            diagnosis,
            origin,
            since,
            since_at,
            probes_failed,
            steps,
            next_at,
        });
        next_at
    }

    fn described(&self, now: Instant) -> CredentialHold {
        let trouble = self.trouble.as_ref().expect("a held slot has a trouble");
        CredentialHold {
            kind: trouble.diagnosis.kind,
            reason: trouble.diagnosis.reason(now.since(trouble.since_at)),
            remedy: trouble.diagnosis.remedy.clone(),
            since: trouble.since,
            until: trouble.next_at,
            probes_failed: trouble.probes_failed,
            last: trouble.diagnosis.record.clone(),
        }
    }
}

impl Wanted {
    fn only(answer: Answer) -> Self {
        Self { answer, mint: None }
    }
}

fn resting(kind: CredentialHoldKind) -> Phase {
    match kind {
        CredentialHoldKind::Outage | CredentialHoldKind::Throttled => Phase::Waiting,
        CredentialHoldKind::Blocked => Phase::Blocked,
    }
}

/// How long after a failure the next try is: never earlier than the endpoint asks.
fn wait(diagnosis: &Diagnosis, steps: u32, draw: f64) -> Duration {
    let hint = diagnosis.hint.unwrap_or_default();
    let failures = steps.saturating_add(1);
    match diagnosis.kind {
        CredentialHoldKind::Blocked => backoff::half_jitter(backoff::probe_interval(steps), draw),
        CredentialHoldKind::Outage => {
            backoff::half_jitter(OUTAGE.interval(failures), draw).max(hint)
        }
        CredentialHoldKind::Throttled => {
            let own = THROTTLE.interval(failures);
            own.max(hint) + backoff::full_jitter(own, draw)
        }
    }
}

#[cfg(test)]
mod tests;
