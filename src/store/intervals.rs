//! A set of sequences as closed intervals.

use serde::{Deserialize, Serialize};

/// A session that would need more is refused.
pub const INTERVALS_MAX: usize = 256;

/// Disjoint, not adjacent, lowest first. A single interval, which most sessions have, takes no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Intervals(Ranges);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Ranges {
    #[default]
    None,
    One((u64, u64)),
    /// Two or more.
    Many(Vec<(u64, u64)>),
}

impl From<Vec<(u64, u64)>> for Intervals {
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        Self(match ranges.as_slice() {
            [] => Ranges::None,
            [one] => Ranges::One(*one),
            _ => Ranges::Many(ranges),
        })
    }
}

impl From<Intervals> for Vec<(u64, u64)> {
    fn from(intervals: Intervals) -> Self {
        match intervals.0 {
            Ranges::None => Vec::new(),
            Ranges::One(one) => vec![one],
            Ranges::Many(ranges) => ranges,
        }
    }
}

impl Intervals {
    fn all(&self) -> &[(u64, u64)] {
        match &self.0 {
            Ranges::None => &[],
            Ranges::One(one) => std::slice::from_ref(one),
            Ranges::Many(ranges) => ranges,
        }
    }

    fn all_mut(&mut self) -> &mut [(u64, u64)] {
        match &mut self.0 {
            Ranges::None => &mut [],
            Ranges::One(one) => std::slice::from_mut(one),
            Ranges::Many(ranges) => ranges,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<(u64, u64)>)) {
        let mut ranges = std::mem::take(self).into();
        change(&mut ranges);
        *self = ranges.into();
    }

    pub fn contains(&self, value: u64) -> bool {
        let after = self.all().partition_point(|&(first, _)| first <= value);
        after > 0 && self.all()[after - 1].1 >= value
    }

    pub fn lowest(&self) -> Option<u64> {
        self.all().first().map(|&(first, _)| first)
    }

    pub fn highest(&self) -> Option<u64> {
        self.all().last().map(|&(_, last)| last)
    }

    /// The intervals, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.all().iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Whether `value` could be added without a further interval above [`INTERVALS_MAX`].
    pub fn has_room_for(&self, value: u64) -> bool {
        self.all().len() < INTERVALS_MAX
            || self.contains(value)
            || value
                .checked_sub(1)
                .is_some_and(|below| self.contains(below))
            || value
                .checked_add(1)
                .is_some_and(|above| self.contains(above))
    }

    /// Adds a value; the bound is the caller's, who asked [`Self::has_room_for`] before it made the value true.
    pub fn insert(&mut self, value: u64) {
        let all = self.all_mut();
        let at = all.partition_point(|&(first, _)| first <= value);
        if at > 0 && all[at - 1].1 >= value {
            return;
        }
        let joins_left = at > 0 && all[at - 1].1.checked_add(1) == Some(value);
        let joins_right = all
            .get(at)
            .is_some_and(|&(first, _)| value.checked_add(1) == Some(first));
        match (joins_left, joins_right) {
            (true, true) => {
                all[at - 1].1 = all[at].1;
                self.change(|all| {
                    all.remove(at);
                });
            }
            (true, false) => all[at - 1].1 = value,
            (false, true) => all[at].0 = value,
            (false, false) => self.change(|all| all.insert(at, (value, value))),
        }
    }

    /// Adds whole ranges, in any order; the bound is the caller's.
    pub fn extend(&mut self, ranges: impl IntoIterator<Item = (u64, u64)>) {
        self.change(|all| {
            all.extend(ranges.into_iter().filter(|(first, last)| first <= last));
            all.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::new();
            for (first, last) in all.drain(..) {
                match merged.last_mut() {
                    Some(before) if first <= before.1.saturating_add(1) => {
                        before.1 = before.1.max(last)
                    }
                    _ => merged.push((first, last)),
                }
            }
            *all = merged;
        });
    }

    /// Whether it has more intervals than a session may have.
    pub fn is_too_many(&self) -> bool {
        self.all().len() > INTERVALS_MAX
    }

    /// The parts of `first..=last` that are not in the set, lowest first.
    pub fn holes(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut from = first;
        for &(low, high) in self.all() {
            if high < from {
                continue;
            }
            if low > last {
                break;
            }
            if low > from {
                holes.push((from, low - 1));
            }
            match high.checked_add(1) {
                Some(next) => from = next,
                None => return holes,
            }
        }
        if from <= last {
            holes.push((from, last));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_set_equals_a_plain_set_whatever_the_order() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut plain = BTreeSet::new();
            let mut set = Intervals::default();
            for _ in 0..60 {
                let value = random.u64(0..50);
                plain.insert(value);
                set.insert(value);
            }
            for value in 0..52 {
                assert_eq!(set.contains(value), plain.contains(&value), "seed {seed}");
            }
            let holes: BTreeSet<u64> = set
                .holes(5, 45)
                .into_iter()
                .flat_map(|(first, last)| first..=last)
                .collect();
            let expected: BTreeSet<u64> = (5..=45).filter(|v| !plain.contains(v)).collect();
            assert_eq!(holes, expected, "seed {seed}");
            assert_eq!(set.highest(), plain.last().copied());
            let mut at_once = Intervals::default();
            at_once.extend(plain.iter().rev().map(|value| (*value, *value)));
            assert_eq!(at_once, set, "seed {seed}");
            let members: Vec<u64> = set.ranges().flat_map(|(low, high)| low..=high).collect();
            assert_eq!(members, Vec::from_iter(plain.iter().copied()));
            assert!(
                set.all().windows(2).all(|w| w[0].1 + 1 < w[1].0),
                "seed {seed}: {set:?}"
            );
        }
    }

    #[test]
    fn there_is_no_room_for_a_257th_interval_but_for_its_neighbours() {
        let mut set = Intervals::default();
        for value in 0..256 {
            assert!(set.has_room_for(value * 2));
            set.insert(value * 2);
        }
        assert!(!set.has_room_for(1000));
        assert!(set.has_room_for(1) && set.has_room_for(511) && set.has_room_for(4));
        set.insert(u64::MAX);
        assert!(!set.has_room_for(1000));
        assert_eq!(set.highest(), Some(u64::MAX));
        assert!(set.holes(600, u64::MAX).ends_with(&[(600, u64::MAX - 1)]));
    }
}
