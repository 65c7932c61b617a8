//! When the next request of a limit domain may begin, from what the platform's headers tell of its request budget. No
//! burst at the start of a window and none at its end: what is left is spread over the time that is left.
//!
//! Two facts carry it. Inside a window the platform's count only grows, so the least that was told is the newest, and
//! what it does not include is on the wire still. And a request that began after an answer was heard was counted after
//! it, so if it is told more, the window has turned, or slides.

use std::collections::BTreeSet;
use std::time::Duration;

use super::share::{Recent, Share};
use super::turns::Turns;
use crate::model::Route;

/// A platform that tells no reset counts by the minute, most likely.
const MINUTE: Duration = Duration::from_secs(60);
/// A window is never taken for shorter.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// Resets are told in whole seconds, and an answer takes its time: a budget that grows by more than this before its time
/// slides.
const EARLY: Duration = Duration::from_millis(1500);
/// A sliding window forgives nothing, so that requests which overtake each other need room.
const SLIDING_PART: f64 = 0.985;
/// Where others spend a sliding window too, everybody slows down from here on as it fills: their plans together are more
/// than there is, and unlike a fixed window it has no end at which that would come out even.
const SLIDING_ROOM: f64 = 0.05;
/// What a plan catches up after its timer.
const LATE: Duration = Duration::from_millis(50);
/// Where others spend the same budget, what they may have on the wire unseen: one part in so many stays unspent.
const SHARED_RESERVE: u64 = 50;

/// What an answer's headers told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    pub allowed: Option<u64>,
    pub remaining: Option<u64>,
    pub reset_in: Option<Duration>,
}

/// When a request may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Now,
    At(Duration),
    /// Not before something happens: an answer to what is on the wire, or a fetch whose turn it is.
    Event,
}

/// What is known of the window under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    allowed: u64,
    /// The least that was told.
    left: u64,
    ends: Duration,
    /// The youngest request when that was heard.
    known_after: u64,
    /// Nobody told it: the time of the last window is over.
    assumed: bool,
}

/// One limit domain. Times count from any fixed point; requests are numbered as they begin.
#[derive(Debug, Clone, Default)]
pub struct Pacer {
    budget: Option<Budget>,
    /// The longest reset that was told.
    window: Duration,
    slides: bool,
    youngest: u64,
    /// When the request that may begin now was due.
    planned: Option<Duration>,
    last_begun: Option<Duration>,
    on_wire: BTreeSet<u64>,
    paused_until: Option<Duration>,
    /// The youngest request when the last pause was set, until a later one is answered.
    resuming: Option<u64>,
    share: Share,
    sent: Recent,
    turns: Turns,
}

impl Pacer {
    /// With a budget that someone knows beforehand; headers that tell another one count more.
    pub fn with_budget(allowed: u64, window: Duration) -> Self {
        Self {
            budget: Some(Budget {
                allowed,
                left: allowed,
                ends: Duration::ZERO,
                known_after: 0,
                assumed: true,
            }),
            window,
            ..Self::default()
        }
    }

    /// Asked for an upload that could begin otherwise.
    pub fn next_upload(&mut self, now: Duration) -> Next {
        match self.next(now) {
            Next::Now if self.resuming.is_none() && self.turns.is_fetchs(self.even(), now) => {
                Next::Event
            }
            next => next,
        }
    }

    /// Asked for a fetch that could begin otherwise.
    pub fn next_fetch(&mut self, uploads_wait: bool, now: Duration) -> Next {
        if !uploads_wait {
            return self.next(now);
        }
        if self.resuming.is_some() {
            // Whatever is learnt after a pause, uploads learn.
            return Next::Event;
        }
        let turn = self.turns.fetch_at(self.even());
        match self.next(now) {
            Next::Now if turn > now => Next::At(turn),
            Next::At(at) => Next::At(at.max(turn)),
            next => next,
        }
    }

    /// A fetch could begin but for the budget. Ends by [`Pacer::fetch_withdraws`].
    pub fn fetch_waits(&mut self) {
        self.turns.wait();
    }

    pub fn fetch_withdraws(&mut self) {
        self.turns.withdraw();
    }

    /// Between two requests of one's own, if they are spread evenly.
    fn even(&self) -> Option<Duration> {
        let budget = self.budget?;
        let own = budget.allowed.max(1) as f64 * self.share.own();
        let even = self.window.max(WINDOW_MIN).as_secs_f64() / own;
        Some(Duration::try_from_secs_f64(even).unwrap_or(Duration::MAX))
    }

    /// Asked for a request of any kind.
    fn next(&mut self, now: Duration) -> Next {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Next::At(until);
        }
        if self.resuming.is_some() && !self.on_wire.is_empty() {
            return Next::Event;
        }
        self.turn_window(now);
        let Some(budget) = self.budget else {
            return Next::Now;
        };
        let at = self.due(&budget);
        if at <= now {
            // A plan is followed, not the clock that was a little late for it.
            self.planned = Some(at.max(now.saturating_sub(LATE)));
            return Next::Now;
        }
        self.share.wanted_more();
        Next::At(at)
    }

    fn due(&self, budget: &Budget) -> Duration {
        let last = self.last_begun.unwrap_or_default();
        let even = self.window.max(WINDOW_MIN).as_secs_f64()
            / (budget.allowed.max(1) as f64 * SLIDING_PART);
        let usable = self.usable(budget);
        if usable == 0 {
            return match self.slides {
                // Something leaves a sliding window all the time.
                true => budget.ends.min(after(last, even * 5.0)),
                false => budget.ends,
            };
        }
        let speed = self.share.speed();
        if self.slides {
            let room = match self.share.is_alone() {
                true => 1.0,
                false => (usable as f64 / (budget.allowed as f64 * SLIDING_ROOM)).clamp(0.2, 1.0),
            };
            return budget.ends.min(after(last, even / (speed * room)));
        }
        let left = budget.ends.saturating_sub(last).as_secs_f64();
        after(last, left / (usable as f64 * speed + 1.0))
    }

    /// What may be begun inside the window.
    fn usable(&self, budget: &Budget) -> u64 {
        let reserve = match self.share.is_alone() {
            true => 0,
            false => (budget.allowed / SHARED_RESERVE).max(1),
        };
        budget
            .left
            .saturating_sub(self.on_wire.len() as u64)
            .saturating_sub(reserve)
    }

    /// Once a window's time is over the next one is taken to be whole, until an answer tells.
    fn turn_window(&mut self, now: Duration) {
        let window = self.window.max(WINDOW_MIN);
        let Some(budget) = self.budget.as_mut().filter(|budget| now >= budget.ends) else {
            return;
        };
        let since = now.saturating_sub(budget.ends);
        let start = if since < window { budget.ends } else { now };
        // A window that slides gives back one by one; that much is sure.
        let left = match self.slides {
            true => budget.left.saturating_add(1),
            false => budget.allowed,
        };
        *budget = Budget {
            left,
            ends: start.saturating_add(window),
            known_after: self.youngest,
            assumed: true,
            ..*budget
        };
    }

    pub fn begin(&mut self, number: u64, route: Route, now: Duration) {
        self.youngest = self.youngest.max(number);
        self.last_begun = Some(self.planned.take().map_or(now, |planned| planned.min(now)));
        self.on_wire.insert(number);
        self.sent.add(now);
        self.turns.begin(route, now);
    }

    /// An answer, or its absence, which tells nothing and may have been counted all the same.
    pub fn heard(&mut self, number: u64, told: Told, now: Duration) {
        self.on_wire.remove(&number);
        if self.resuming.is_some_and(|after| number > after) {
            self.resuming = None;
        }
        let Some(remaining) = told.remaining else {
            if let Some(budget) = &mut self.budget {
                budget.left = budget.left.saturating_sub(1);
            }
            return;
        };
        let reset = told.reset_in.unwrap_or(self.window.max(WINDOW_MIN));
        let reset = match (told.reset_in, self.window.is_zero()) {
            (None, true) => MINUTE,
            _ => reset,
        };
        let ends = now.saturating_add(reset);
        let known = self.budget.map_or(remaining.max(1), |b| b.allowed);
        let allowed = told.allowed.unwrap_or(known).max(remaining);
        let fresh = Budget {
            allowed,
            left: remaining,
            ends,
            known_after: self.youngest,
            assumed: false,
        };
        let Some(budget) = &mut self.budget else {
            (self.budget, self.window) = (Some(fresh), reset);
            return;
        };
        let later = number > budget.known_after;
        if budget.assumed {
            if later {
                // Its time was over and it is not full again.
                self.slides |= remaining < allowed / 2 && reset < self.window / 2;
                *budget = fresh;
                self.window = self.window.max(reset);
                self.share.turned();
            }
            return;
        }
        if later && remaining > budget.left {
            self.slides |= now.saturating_add(EARLY) < budget.ends;
            *budget = fresh;
            self.window = self.window.max(reset);
            self.share.turned();
            return;
        }
        if !later && ends.saturating_add(EARLY) < budget.ends {
            // Counted in the window before, and late to arrive.
            return;
        }
        self.share
            .observed(budget.left.saturating_sub(remaining), budget.allowed);
        if remaining <= budget.left {
            budget.left = remaining;
            budget.known_after = self.youngest;
        }
        budget.allowed = allowed;
        budget.ends = budget.ends.min(ends);
    }

    /// The request is over, whether or not it was heard of.
    pub fn end(&mut self, number: u64) {
        self.on_wire.remove(&number);
    }

    /// Nothing begins before then; after it one request, until it is answered.
    pub fn pause(&mut self, until: Duration) {
        self.paused_until = self.paused_until.max(Some(until));
        self.resuming = Some(self.youngest);
    }

    pub fn view(&self, now: Duration) -> View {
        let budget = self.budget;
        View {
            requests_per_minute: self.sent.per_minute(now),
            share: self.share.own(),
            allowed: budget.map(|budget| budget.allowed),
            remaining: budget.map(|budget| match now < budget.ends {
                true => budget.left.saturating_sub(self.on_wire.len() as u64),
                false => budget.allowed,
            }),
            reset_in: budget.map(|budget| budget.ends.saturating_sub(now)),
            window: budget.map(|_| self.window.max(WINDOW_MIN)),
        }
    }
}

/// A domain, for an operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    pub requests_per_minute: f64,
    /// Of what is spent of the budget, from 0 to 1.
    pub share: f64,
    pub allowed: Option<u64>,
    pub remaining: Option<u64>,
    pub reset_in: Option<Duration>,
    pub window: Option<Duration>,
}

fn after(last: Duration, seconds: f64) -> Duration {
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    last.saturating_add(wait)
}

#[cfg(test)]
mod tests;
