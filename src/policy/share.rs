//! How much of a request budget is one's own, where others who know nothing of each other spend it too.

use std::time::Duration;

/// Above this the budget is one's own: a few requests of others are the noise of counting.
const ALONE: f64 = 0.95;
/// Less than one may have seen of oneself, nobody plans on.
const LEAST: f64 = 1.0 / 64.0;
/// What a newcomer believes, in requests: that it is alone.
const BEGINNING: f64 = 8.0;
/// Plans are drawn from the share to this power. Below one, so that whoever has less than its part asks for more than it
/// had, and whoever has more for less: equal shares are the only ones that stay. Together they plan on more than there is,
/// which only moves what is spent towards the beginning of the window.
const PULL: f64 = 0.75;

/// Own requests among all that were counted, the older the fainter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    own: f64,
    all: f64,
    /// Own answers since the count was last compared.
    unseen: f64,
    /// A request waited for its time since then: what is spent by others while one has nothing to send says nothing.
    wanted: bool,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            own: BEGINNING,
            all: BEGINNING,
            unseen: 0.0,
            wanted: false,
        }
    }
}

impl Share {
    /// A request could have begun but for the plan.
    pub fn wanted_more(&mut self) {
        self.wanted = true;
    }

    /// One answer, and by how much the budget fell since the last one that was compared.
    pub fn observed(&mut self, fell: u64, allowed: u64) {
        self.unseen += 1.0;
        if fell == 0 {
            return;
        }
        // Answers overtake each other: one's own, all of them, against the whole fall, none of it twice.
        self.own += self.unseen;
        self.all += match self.wanted {
            true => fell as f64,
            false => (fell as f64).min(self.unseen),
        };
        let memory = (allowed as f64).clamp(4.0 * BEGINNING, 10_000.0);
        if self.all > memory {
            (self.own, self.all) = (self.own / 2.0, self.all / 2.0);
        }
        self.unseen = 0.0;
        self.wanted = false;
    }

    /// The window turned: what was spent across it cannot be told apart.
    pub fn turned(&mut self) {
        self.unseen = 0.0;
    }

    pub fn own(&self) -> f64 {
        (self.own / self.all).clamp(LEAST, 1.0)
    }

    pub fn is_alone(&self) -> bool {
        self.own() >= ALONE
    }

    /// The part of what is left to plan on.
    pub fn speed(&self) -> f64 {
        match self.is_alone() {
            true => 1.0,
            false => self.own().powf(PULL),
        }
    }
}

/// Requests of about the last minute, in two counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    minute: u64,
    before: u32,
    present: u32,
}

impl Recent {
    pub fn add(&mut self, now: Duration) {
        *self = self.at(now);
        self.present = self.present.saturating_add(1);
    }

    pub fn per_minute(&self, now: Duration) -> f64 {
        let at = self.at(now);
        let into = (now.as_secs_f64() / 60.0).fract();
        f64::from(at.before) * (1.0 - into) + f64::from(at.present)
    }

    fn at(&self, now: Duration) -> Self {
        let minute = now.as_secs() / 60;
        let (before, present) = match minute.saturating_sub(self.minute) {
            0 => (self.before, self.present),
            1 => (self.present, 0),
            _ => (0, 0),
        };
        Self {
            minute,
            before,
            present,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_spends_all_of_it_is_alone_whatever_overtakes_whatever() {
        let mut share = Share::default();
        for fell in [0, 0, 3, 1, 0, 2, 1, 1].into_iter().cycle().take(800) {
            share.wanted_more();
            share.observed(fell, 300);
        }
        assert!(share.is_alone(), "{share:?}");
        assert!((share.speed() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_of_four_learns_its_quarter_within_one_window() {
        let mut share = Share::default();
        for _ in 0..75 {
            share.wanted_more();
            share.observed(4, 300);
        }
        assert!((0.24..0.31).contains(&share.own()), "{}", share.own());
    }

    #[test]
    fn what_others_spend_while_nothing_waits_here_takes_nothing_away() {
        let mut share = Share::default();
        for _ in 0..100 {
            share.observed(250, 300);
        }
        assert!(share.is_alone());
    }

    #[test]
    fn unequal_shares_are_pulled_together() {
        let mut shares: [f64; 4] = [0.7, 0.2, 0.06, 0.04];
        for _ in 0..12 {
            let plans = shares.map(|share| {
                let share = Share {
                    own: share,
                    all: 1.0,
                    ..Share::default()
                };
                share.speed()
            });
            let sum: f64 = plans.iter().sum();
            shares = plans.map(|plan| plan / sum);
        }
        assert!(
            shares.iter().all(|s| (0.23..0.27).contains(s)),
            "{shares:?}"
        );
    }

    #[test]
    fn requests_a_minute_follow_the_last_minute_and_end_with_it() {
        let mut recent = Recent::default();
        for second in 0..600 {
            recent.add(Duration::from_secs(second));
        }
        let seen = recent.per_minute(Duration::from_secs(600));
        assert!((59.0..=61.0).contains(&seen), "{seen}");
        assert!(recent.per_minute(Duration::from_secs(725)).abs() < 1e-9);
    }
}
