//! A limit in bytes per second: a bucket that fills at that rate and may be overdrawn once.

/// The bucket. Whole transfers are taken, so it may go below zero; then nothing starts until it is
/// above again, which keeps the average.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Bytes per second; `None` has no limit.
    rate: Option<u64>,
    /// What there is, in thousandths of a byte.
    level: i128,
    filled_ms: u64,
}

/// How much may be saved up, in milliseconds of the rate.
const BURST_MS: u64 = 250;

impl Bucket {
    /// A full bucket of `rate` bytes per second.
    pub(crate) fn new(rate: Option<u64>, now_ms: u64) -> Bucket {
        let mut bucket = Bucket { rate, level: 0, filled_ms: now_ms };
        bucket.level = bucket.most();
        bucket
    }

    fn most(&self) -> i128 {
        i128::from(self.rate.unwrap_or(0)) * i128::from(BURST_MS)
    }

    /// Another rate from now on.
    pub(crate) fn set_rate(&mut self, rate: Option<u64>, now_ms: u64) {
        self.fill(now_ms);
        self.rate = rate;
        self.level = self.level.min(self.most());
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let gain = i128::from(self.rate.unwrap_or(0)) * i128::from(passed);
        self.level = self.level.saturating_add(gain).min(self.most());
    }

    /// Milliseconds until something may start; 0 means now.
    pub(crate) fn wait_ms(&mut self, now_ms: u64) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        self.fill(now_ms);
        if self.level > 0 {
            return 0;
        }
        let lack = self.level.unsigned_abs() + 1;
        u64::try_from(lack.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX).max(1)
    }

    /// Takes `bytes` for a transfer that starts.
    pub(crate) fn take(&mut self, bytes: u64, now_ms: u64) {
        if self.rate.is_some() {
            self.fill(now_ms);
            self.level = self.level.saturating_sub(i128::from(bytes) * 1000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bucket;
    use proptest::prelude::*;

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut bucket = Bucket::new(None, 0);
        bucket.take(u64::MAX, 0);
        assert_eq!(bucket.wait_ms(0), 0);
    }

    proptest! {
        #[test]
        fn keeps_the_average(rate in 1_000_u64..1_000_000, sizes in proptest::collection::vec(1_u64..500_000, 1..60)) {
            let (mut bucket, mut now, mut sent) = (Bucket::new(Some(rate), 0), 0, 0_u64);
            let last = *sizes.last().unwrap();
            for size in sizes {
                now += bucket.wait_ms(now);
                prop_assert_eq!(bucket.wait_ms(now), 0);
                bucket.take(size, now);
                sent += size;
            }
            // All but the last transfer have been paid for, but for the first burst.
            prop_assert!(sent - last <= rate * (now + 251) / 1000 + 1);
        }
    }
}
