//! When a hold that only a success can end is tried again: 2 s, 10 s, 30 s, then doubling to 15 min.

use std::time::Duration;

use super::backoff::probe_interval;

/// The share of an interval that chance may take away. Only away: an operator is told "within 15 min".
const JITTER: f64 = 0.2;

/// The wait before the next probe, when `failed` probes of this hold have failed.
pub fn wait(failed: u32, draw: f64) -> Duration {
    probe_interval(failed).mul_f64(1.0 - JITTER * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_a_wait_by_a_fifth_at_most_and_never_lengthens_it() {
        for failed in 0..12 {
            let whole = probe_interval(failed);
            assert_eq!(wait(failed, 0.0), whole);
            for draw in [0.5, 0.999, 1.0, 4.0] {
                let wait = wait(failed, draw);
                assert!(
                    wait < whole && wait >= whole.mul_f64(0.799),
                    "{failed} {draw}"
                );
            }
        }
        assert_eq!(wait(u32::MAX, 0.0), Duration::from_secs(900));
    }
}
