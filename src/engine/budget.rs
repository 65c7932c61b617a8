//! The byte budget of everything on the wire: what requests may hold in memory together, whatever their number.

/// A request holds a few blocks of its body, never the whole.
const REQUEST_MOST: u64 = 1 << 20;

#[derive(Debug)]
pub struct ByteBudget {
    most: u64,
    used: u64,
}

impl ByteBudget {
    pub fn new(most: u64) -> Self {
        Self { most, used: 0 }
    }

    /// What a request of so many bytes costs.
    pub fn cost(bytes: u64) -> u64 {
        bytes.min(REQUEST_MOST)
    }

    /// One request always has room, or nothing would ever move.
    pub fn has_room(&self, cost: u64) -> bool {
        self.used == 0 || self.used.saturating_add(cost) <= self.most
    }

    pub fn take(&mut self, cost: u64) {
        self.used = self.used.saturating_add(cost);
    }

    pub fn give_back(&mut self, cost: u64) {
        self.used = self.used.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_for_room_and_one_goes_in_any_case() {
        let mut budget = ByteBudget::new(3 << 20);
        let large = ByteBudget::cost(1 << 40);
        for _ in 0..3 {
            assert!(budget.has_room(large));
            budget.take(large);
        }
        assert!(!budget.has_room(1));
        budget.give_back(large);
        assert!(budget.has_room(large));
        let mut tiny = ByteBudget::new(10);
        assert!(tiny.has_room(large));
        tiny.take(large);
        assert!(!tiny.has_room(1));
    }
}
