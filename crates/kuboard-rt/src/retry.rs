//! How long to wait before trying again.

use std::time::Duration;

/// Exponential delays with jitter: attempt `n` waits between half and all of `base * 2^n`,
/// never more than `cap`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The longest delay after the first failure (attempt 0).
    pub base: Duration,
    /// The longest delay of all.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after failure number `attempt` (from 0). `random` is uniform in 0..1; others
    /// that failed at the same moment come back at another one.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let factor = 2_u32.checked_pow(attempt).unwrap_or(u32::MAX);
        let longest = self.base.saturating_mul(factor).min(self.cap);
        longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_cap_and_are_spread() {
        let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
        let cases = [
            (0, 0.0, 500),
            (0, 1.0, 1_000),
            (1, 1.0, 2_000),
            (3, 0.5, 6_000),
            (6, 1.0, 60_000),
            (31, 0.0, 30_000),
            (u32::MAX, 1.0, 60_000),
            (2, 7.0, 4_000),
        ];
        for (attempt, random, ms) in cases {
            assert_eq!(backoff.delay(attempt, random), Duration::from_millis(ms), "{attempt}");
        }
    }
}
