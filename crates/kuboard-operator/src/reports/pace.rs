//! How fast we write: never faster than a rate, and not at all for a while when the cluster has no
//! room. Pure.

/// Tokens that come back with time.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at_ms: i64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second.max(1)), burst, tokens: burst, at_ms: i64::MIN }
    }

    /// Takes a token; else how many milliseconds until there is one. `now_ms` is monotonic.
    pub(crate) fn take(&mut self, now_ms: i64) -> Result<(), u64> {
        if self.at_ms != i64::MIN {
            let passed = now_ms.saturating_sub(self.at_ms).max(0) as f64 / 1_000.0;
            self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        }
        self.at_ms = now_ms;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.tokens) / self.per_second * 1_000.0).ceil() as u64)
    }
}

/// Opens when the cluster has no room, and closes after a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    open_until_ms: Option<i64>,
}

/// How long nothing is written after the cluster had no room.
const REST_MS: i64 = 600_000;

impl Breaker {
    pub(crate) fn trip(&mut self, now_ms: i64) {
        self.open_until_ms = Some(now_ms.saturating_add(REST_MS));
    }

    pub(crate) fn is_open(&self, now_ms: i64) -> bool {
        self.open_until_ms.is_some_and(|until_ms| now_ms < until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, Bucket};

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(10, 3);
        let taken = (0..5).filter(|_| bucket.take(0).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(bucket.take(0), Err(100));
        assert!(bucket.take(99).is_err());
        assert_eq!(bucket.take(101), Ok(()));
        let taken = (0..9).filter(|_| bucket.take(3_600_000).is_ok()).count();
        assert_eq!(taken, 3, "never more than the burst");
    }

    #[test]
    fn a_breaker_closes_by_itself() {
        let mut breaker = Breaker::default();
        assert!(!breaker.is_open(0));
        breaker.trip(1_000);
        assert!(breaker.is_open(600_999) && !breaker.is_open(601_000));
    }
}
