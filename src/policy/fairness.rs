//! Whose turn it is: deficit round robin over the lanes that can send now. A lane pays for the bytes it
//! sends and is given the same credit a round as every other, so neither large chunks nor many
//! sessions buy a lane more than its share; a lane that cannot send saves nothing up.

/// A lane's credit a round. Small, so that a lane with small chunks does not send a burst of them
/// while others wait; larger values cost nothing but that.
const QUANTUM: i64 = 256 * 1024;

/// What a lane saves up while its own limit keeps it from sending.
const SAVED_MOST: i64 = 16 * QUANTUM;

/// The least that a request costs: below it a request's own weight counts, not its bytes.
const REQUEST_MIN: i64 = 64 * 1024;

/// Credits of all lanes, by lane number.
#[derive(Debug, Clone, Default)]
pub struct Fairness {
    credits: Vec<i64>,
    /// The lane whose turn it is while its credit lasts.
    current: usize,
}

impl Fairness {
    /// The lane among `can_send` (ascending lane numbers) that sends next. Those in `full` would, but have as many requests
    /// on the wire as they may: they are given their credit and use it when one ends. Asking again without charging gives
    /// the same answer.
    pub fn choose(&mut self, can_send: &[usize], full: &[usize]) -> Option<usize> {
        let last = can_send.last()?.max(full.last().unwrap_or(&0));
        if self.credits.len() <= *last {
            self.credits.resize(last + 1, 0);
        }
        let saved_up = |lane: &&usize| self.credits[**lane] > QUANTUM;
        if let Some(lane) = can_send.iter().find(saved_up) {
            return Some(*lane);
        }
        if let Some(lane) = self.first_with_credit(can_send) {
            return Some(lane);
        }
        let rounds = can_send
            .iter()
            .map(|lane| (-self.credits[*lane]).div_euclid(QUANTUM) + 1)
            .min()?;
        for lane in can_send {
            let most = self.credits[*lane].max(QUANTUM);
            self.credits[*lane] = (self.credits[*lane] + rounds * QUANTUM).min(most);
        }
        for lane in full {
            self.credits[*lane] = (self.credits[*lane] + rounds * QUANTUM).min(SAVED_MOST);
        }
        self.first_with_credit(can_send)
    }

    /// The lane sends so many bytes; its debt, if any, keeps it waiting.
    pub fn charge(&mut self, lane: usize, bytes: u64) {
        let cost = i64::try_from(bytes).unwrap_or(i64::MAX / 4);
        self.credits[lane] -= cost.clamp(REQUEST_MIN, i64::MAX / 4);
        self.current = if self.credits[lane] > 0 {
            lane
        } else {
            lane + 1
        };
    }

    /// The lane's request grew: it pays for the rest too.
    pub fn charge_more(&mut self, lane: usize, bytes: u64) {
        self.credits[lane] -= i64::try_from(bytes).unwrap_or(i64::MAX).min(i64::MAX / 4);
    }

    fn first_with_credit(&self, can_send: &[usize]) -> Option<usize> {
        let (before, from) = can_send.split_at(can_send.partition_point(|l| *l < self.current));
        from.iter()
            .chain(before)
            .copied()
            .find(|lane| self.credits[*lane] > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Bytes sent by each lane after `turns` turns of lanes that always can send.
    fn sent(turns: usize, sizes: &[u64]) -> Vec<u64> {
        let mut fairness = Fairness::default();
        let all: Vec<usize> = (0..sizes.len()).collect();
        let mut sent = vec![0; sizes.len()];
        for _ in 0..turns {
            let lane = fairness.choose(&all, &[]).unwrap();
            fairness.charge(lane, sizes[lane]);
            sent[lane] += sizes[lane];
        }
        sent
    }

    #[test]
    fn lanes_with_chunks_of_any_size_send_the_same_bytes() {
        let sent = sent(20_000, &[64 * 1024, MIB, 30 * MIB, 300_000]);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= 31 * MIB, "{sent:?}");
    }

    #[test]
    fn tiny_chunks_pay_for_their_requests() {
        let mut fairness = Fairness::default();
        let mut turns = [0_u32; 2];
        for _ in 0..1000 {
            let lane = fairness.choose(&[0, 1], &[]).unwrap();
            fairness.charge(lane, [1, 64 * 1024][lane]);
            turns[lane] += 1;
        }
        assert!(turns[0].abs_diff(turns[1]) <= 4, "{turns:?}");
    }

    #[test]
    fn a_lane_that_could_not_send_has_saved_nothing_up() {
        let mut fairness = Fairness::default();
        for _ in 0..10_000 {
            let lane = fairness.choose(&[1], &[]).unwrap();
            fairness.charge(lane, MIB);
        }
        let mut first_ten = Vec::new();
        for _ in 0..10 {
            let lane = fairness.choose(&[0, 1], &[]).unwrap();
            fairness.charge(lane, MIB);
            first_ten.push(lane);
        }
        let zeros = first_ten.iter().filter(|lane| **lane == 0).count();
        assert!((4..=6).contains(&zeros), "{first_ten:?}");
    }

    #[test]
    fn a_lane_that_is_full_gets_its_share_when_a_request_ends() {
        let mut fairness = Fairness::default();
        let mut sent = [0_u64; 2];
        for turn in 0..3000 {
            // Lane 0 may send every other time only, which happens to be in the middle of the other's credit.
            let lane = match turn % 2 {
                0 => fairness.choose(&[1], &[0]),
                _ => fairness.choose(&[0, 1], &[]),
            };
            let lane = lane.unwrap();
            fairness.charge(lane, 64 * 1024);
            sent[lane] += 64 * 1024;
        }
        assert!(sent[0].abs_diff(sent[1]) <= 20 * MIB, "{sent:?}");
    }

    #[test]
    fn asking_twice_without_sending_changes_nothing() {
        let mut fairness = Fairness::default();
        fairness.choose(&[0, 1, 2], &[]);
        fairness.charge(0, 10 * MIB);
        let first = fairness.choose(&[0, 1, 2], &[]);
        for _ in 0..100 {
            assert_eq!(fairness.choose(&[0, 1, 2], &[]), first);
        }
        assert_eq!(fairness.choose(&[], &[]), None);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let mut fairness = Fairness::default();
        for _ in 0..3 {
            let lane = fairness.choose(&[0, 1], &[]).unwrap();
            fairness.charge(lane, u64::MAX);
        }
        assert!(fairness.choose(&[0, 1], &[]).is_some());
    }
}
