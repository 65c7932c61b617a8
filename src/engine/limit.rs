//! How many requests a lane may have on the wire: halved when the platform is overwhelmed, one more while
//! the limit is used and deliveries succeed; one alone after a hold, then doubling.

#[derive(Debug, Clone)]
pub struct Limit {
    most: usize,
    /// What congestion allows.
    learned: usize,
    /// What is allowed now: below `learned` while a lane starts again after a hold.
    now: usize,
    /// The youngest request on the wire when it was last halved.
    halved_after: u64,
}

impl Limit {
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            most,
            learned: most,
            now: most,
            halved_after: 0,
        }
    }

    pub fn now(&self) -> usize {
        self.now
    }

    /// A hold ended: one request, to see.
    pub fn start_again(&mut self) {
        self.now = 1;
    }

    /// A delivery, with so many requests on the wire (it included).
    pub fn delivered(&mut self, in_flight: usize) {
        if in_flight < self.now {
            return;
        }
        if self.now < self.learned {
            self.now = (self.now * 2).min(self.learned);
        } else {
            self.learned = (self.learned + 1).min(self.most);
            self.now = self.learned;
        }
    }

    /// A timeout, a refused connection or a gateway's complaint. Once for all requests that were on the wire together.
    pub fn overwhelmed(&mut self, number: u64, youngest: u64) {
        if number <= self.halved_after {
            return;
        }
        self.halved_after = youngest;
        self.learned = (self.learned / 2).max(1);
        self.now = self.now.min(self.learned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_fail_together_halve_the_limit_once() {
        let mut limit = Limit::new(16);
        for number in 1..=16 {
            limit.overwhelmed(number, 16);
        }
        assert_eq!(limit.now(), 8);
        limit.overwhelmed(17, 24);
        assert_eq!(limit.now(), 4);
        for later in 25..40 {
            limit.overwhelmed(later, later);
        }
        assert_eq!(limit.now(), 1);
    }

    #[test]
    fn a_limit_grows_by_one_and_only_while_it_is_used() {
        let mut limit = Limit::new(16);
        limit.overwhelmed(1, 1);
        limit.delivered(7);
        assert_eq!(limit.now(), 8);
        limit.delivered(8);
        assert_eq!(limit.now(), 9);
        for _ in 0..50 {
            limit.delivered(16);
        }
        assert_eq!(limit.now(), 16);
    }

    #[test]
    fn after_a_hold_one_request_goes_and_then_the_limit_doubles() {
        let mut limit = Limit::new(16);
        limit.start_again();
        let mut seen = vec![limit.now()];
        for _ in 0..5 {
            limit.delivered(limit.now());
            seen.push(limit.now());
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 16]);
    }
}
