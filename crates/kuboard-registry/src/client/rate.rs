//! How much an upstream still lets us ask: the `RateLimit` headers as Docker Hub sends them, and
//! `Retry-After`. Pure: headers and time come in as arguments.

use std::time::Duration;

use http::{HeaderMap, header};

/// What an upstream allows, as far as it told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    /// Requests in a window.
    pub limit: u64,
    /// Requests left, counting that they come back evenly over the window.
    pub remaining: u64,
    /// Length of the window in seconds; 0 where the upstream does not tell.
    pub window_s: u64,
}

impl RateLimit {
    /// Less than a tenth is left: ask only for what cannot be served otherwise.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.remaining < self.limit.div_ceil(10)
    }

    /// Reads `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`.
    pub(super) fn read(headers: &HeaderMap) -> Option<RateLimit> {
        let (limit, window) = quota(headers, "ratelimit-limit")?;
        let (remaining, other_window) = quota(headers, "ratelimit-remaining")?;
        let window_s = window.or(other_window).unwrap_or(0);
        (limit > 0).then_some(RateLimit { limit, remaining: remaining.min(limit), window_s })
    }

    /// What is left `age` after it was read. Without a known window the word of the upstream
    /// stands for an hour.
    pub(super) fn aged(self, age: Duration) -> RateLimit {
        let window = if self.window_s == 0 { 3600 } else { self.window_s };
        let back = u128::from(self.limit) * age.as_millis() / (u128::from(window) * 1000);
        let remaining = u128::from(self.remaining).saturating_add(back).min(self.limit.into());
        RateLimit { remaining: u64::try_from(remaining).unwrap_or(self.limit), ..self }
    }
}

/// A count and its window in seconds. Of several quotas in one header the first is read.
fn quota(headers: &HeaderMap, name: &str) -> Option<(u64, Option<u64>)> {
    let text = headers.get(name)?.to_str().ok()?;
    let mut parts = text.split(',').next()?.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((count, window))
}

/// The wait that `Retry-After` asks for, in either of its forms. `now_ms` is the wall clock.
pub(super) fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let ahead_ms = http_date_ms(text)?.saturating_sub(now_ms);
    Some(Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(0)))
}

/// An HTTP date, in milliseconds since 1970.
pub(super) fn http_date_ms(text: &str) -> Option<i64> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(zoned.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[track_caller]
    fn check(limit: &str, remaining: &str, expected: Option<(u64, u64, u64)>) {
        let headers = headers(&[("ratelimit-limit", limit), ("ratelimit-remaining", remaining)]);
        let expected =
            expected.map(|(limit, remaining, window_s)| RateLimit { limit, remaining, window_s });
        assert_eq!(RateLimit::read(&headers), expected, "{limit:?} {remaining:?}");
    }

    #[test]
    fn headers_as_docker_hub_sends_them_and_others() {
        check("100;w=21600", "76;w=21600", Some((100, 76, 21600)));
        check("100; w=21600", "76", Some((100, 76, 21600)));
        check("100, 10;w=1", "5", Some((100, 5, 0)));
        check("10", "20;w=60", Some((10, 10, 60)));
        check("x", "76", None);
        check("0", "0", None);
        check("100", "-1", None);
        check("99999999999999999999999", "1", None);
        assert_eq!(RateLimit::read(&HeaderMap::new()), None);
    }

    #[test]
    fn requests_come_back_over_the_window() {
        let seen = RateLimit { limit: 100, remaining: 5, window_s: 21600 };
        let after = |seconds| seen.aged(Duration::from_secs(seconds));
        assert!(seen.is_low() && after(0).is_low());
        assert_eq!(after(1080).remaining, 10);
        assert!(!after(1080).is_low());
        assert_eq!(after(u64::MAX / 2000).remaining, 100);
        let unknown = RateLimit { limit: 100, remaining: 0, window_s: 0 };
        assert_eq!(unknown.aged(Duration::from_secs(1800)).remaining, 50);
    }

    #[test]
    fn low_is_below_a_tenth() {
        for (limit, remaining, expected) in
            [(100, 10, false), (100, 9, true), (5, 1, false), (5, 0, true), (1, 1, false)]
        {
            let rate = RateLimit { limit, remaining, window_s: 1 };
            assert_eq!(rate.is_low(), expected, "{rate:?}");
        }
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let cases = [
            ("120", Some(120)),
            (" 5 ", Some(5)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
        ];
        for (text, seconds) in cases {
            let wait = retry_after(&headers(&[("retry-after", text)]), now_ms);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
