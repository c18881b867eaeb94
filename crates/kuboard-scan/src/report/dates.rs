//! Times as forms and people write them.

use jiff::Timestamp;

/// `2026-08-21T10:00:00Z`, without fractions of a second.
pub(crate) fn rfc3339(ms: i64) -> String {
    let time = Timestamp::from_second(ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_string()
}

/// `2026-08-21`.
pub(crate) fn day(ms: i64) -> String {
    let time = rfc3339(ms);
    time.split('T').next().unwrap_or_default().to_owned()
}

/// `2026-08-21 10:00 UTC`.
pub(crate) fn minute(ms: i64) -> String {
    let time = rfc3339(ms);
    format!("{} UTC", time.get(..16).unwrap_or(&time).replace('T', " "))
}

/// Whole days between two times; 0 if the second is not later.
pub(crate) fn days(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0) / 86_400_000
}

/// `3 hours`.
pub(crate) fn age(from_ms: i64, to_ms: i64) -> String {
    let seconds = u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0) / 1000;
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::{age, day, days, minute, rfc3339};

    #[test]
    fn times_are_written() {
        assert_eq!(rfc3339(1_771_000_000_999), "2026-02-13T16:26:40Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(minute(61_000), "1970-01-01 00:01 UTC");
    }

    #[test]
    fn ages_are_told() {
        assert_eq!(age(0, 1000), "1 second");
        assert_eq!(age(0, 3_600_000), "60 minutes");
        assert_eq!(age(0, 10_800_000), "3 hours");
        assert_eq!(age(0, 864_000_000), "10 days");
        assert_eq!(age(5, 0), "0 seconds");
        assert_eq!(days(0, 86_400_000), 1);
        assert_eq!(age(i64::MIN, i64::MAX), "106751991167 days");
    }
}
