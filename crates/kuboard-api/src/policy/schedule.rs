//! When a policy's scans are due: a cron expression in a time zone.
//!
//! Clocks that are set forward: a time that does not exist runs as much later as the clock jumped.
//! Clocks that are set back: an hour that comes twice has its runs twice where minutes or hours
//! begin with `*`, and once (the first time) otherwise.

use std::fmt;

use jiff::{
    Span, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use super::cron::Cron;

/// Clocks are set by less than this.
const LARGEST_SHIFT: i64 = 3;
/// Longer names of time zones are refused.
const MAX_ZONE: usize = 64;

/// A schedule. Displays as `0 */6 * * * Asia/Shanghai`.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression; the message holds a hint after a line break.
    #[error("{0}")]
    Cron(String),
    /// The time zone.
    #[error("no time zone has the name \"{0}\"")]
    Zone(String),
}

impl Schedule {
    /// A cron expression of five fields, in the time zone of an IANA name; `None` is UTC.
    ///
    /// # Errors
    /// The expression or the name is none.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let cron = Cron::parse(text).map_err(ScheduleError::Cron)?;
        let name = zone.unwrap_or("UTC");
        let zone = time_zone(name)
            .ok_or_else(|| ScheduleError::Zone(name.chars().take(MAX_ZONE).collect::<String>()))?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        Ok(Self { cron, zone, text: format!("{} {name}", fields.join(" ")) })
    }

    /// The first time after `ms`, both in milliseconds since 1970. `None` only beyond the year
    /// 9999.
    #[must_use]
    pub fn next_after(&self, ms: i64) -> Option<i64> {
        let now = Timestamp::from_millisecond(ms).ok()?;
        let mut best: Option<Timestamp> = None;
        let mut at = self.civil(now).checked_sub(Span::new().hours(LARGEST_SHIFT)).ok()?;
        while let Some(civil) = self.cron.next(at) {
            if let Some(best) = best
                && self.is_beyond(best, civil)
            {
                break;
            }
            let later = self.instants(civil).into_iter().flatten().filter(|it| *it > now);
            best = later.chain(best).min();
            let Ok(after) = civil.checked_add(Span::new().minutes(1)) else { break };
            at = after;
        }
        best.map(Timestamp::as_millisecond)
    }

    /// The last time before `ms`, both in milliseconds since 1970.
    #[must_use]
    pub fn last_before(&self, ms: i64) -> Option<i64> {
        let now = Timestamp::from_millisecond(ms).ok()?;
        let mut best: Option<Timestamp> = None;
        let mut at = self.civil(now).checked_add(Span::new().hours(LARGEST_SHIFT)).ok()?;
        while let Some(civil) = self.cron.last(at) {
            if let Some(best) = best
                && self.is_beyond(best, civil)
            {
                break;
            }
            let earlier = self.instants(civil).into_iter().flatten().filter(|it| *it < now);
            best = earlier.chain(best).max();
            let Ok(before) = civil.checked_sub(Span::new().minutes(1)) else { break };
            at = before;
        }
        best.map(Timestamp::as_millisecond)
    }

    fn civil(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// Whether no shift of the clocks can bring `civil` before or behind `best` any more.
    fn is_beyond(&self, best: Timestamp, civil: DateTime) -> bool {
        let apart = self.civil(best).duration_until(civil).abs();
        apart > jiff::SignedDuration::from_hours(LARGEST_SHIFT)
    }

    /// When a civil time is.
    fn instants(&self, civil: DateTime) -> [Option<Timestamp>; 2] {
        let ambiguous = self.zone.to_ambiguous_timestamp(civil);
        let is_twice = matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. });
        let second = (is_twice && self.cron.throughout).then(|| ambiguous.later().ok()).flatten();
        [ambiguous.compatible().ok(), second]
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn time_zone(name: &str) -> Option<TimeZone> {
    let is_name = !name.is_empty()
        && name.len() <= MAX_ZONE
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte));
    if !is_name {
        return None;
    }
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::Schedule;

    /// The times that follow `from`, and the same on the way back.
    #[track_caller]
    fn check(text: &str, zone: &str, from: &str, expected: &[&str]) {
        let schedule = Schedule::parse(text, Some(zone)).unwrap();
        let start = from.parse::<Timestamp>().unwrap().as_millisecond();
        let show = |ms: i64| Timestamp::from_millisecond(ms).unwrap().to_string();
        let mut at = start;
        let forth: Vec<String> = expected
            .iter()
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                show(at)
            })
            .collect();
        assert_eq!(forth, expected, "{text} {zone}");
        let mut back = Vec::new();
        at += 1;
        while let Some(before) = schedule.last_before(at).filter(|before| *before > start) {
            back.push(show(before));
            at = before;
        }
        back.reverse();
        assert_eq!(back, expected, "{text} {zone}, back");
    }

    #[test]
    fn times_follow_the_zone() {
        let every_six = ["2024-05-01T06:00:00Z", "2024-05-01T12:00:00Z", "2024-05-01T18:00:00Z"];
        check("0 */6 * * *", "UTC", "2024-05-01T00:00:00Z", &every_six);
        let shanghai = ["2024-05-01T04:00:00Z", "2024-05-01T10:00:00Z", "2024-05-01T16:00:00Z"];
        check("0 */6 * * *", "Asia/Shanghai", "2024-05-01T00:00:00Z", &shanghai);
        check(
            "30 2 * * 1",
            "Asia/Kathmandu",
            "2024-05-01T00:00:00Z",
            &["2024-05-05T20:45:00Z", "2024-05-12T20:45:00Z"],
        );
    }

    #[test]
    fn clocks_set_forward_lose_no_run() {
        // Berlin, 31 March 2024: 02:00 to 03:00 does not exist.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2024-03-30T12:00:00Z",
            &["2024-03-31T01:30:00Z", "2024-04-01T00:30:00Z"],
        );
        check(
            "*/30 * * * *",
            "Europe/Berlin",
            "2024-03-31T00:00:00Z",
            &["2024-03-31T00:30:00Z", "2024-03-31T01:00:00Z", "2024-03-31T01:30:00Z"],
        );
        // Lord Howe sets its clocks by half an hour.
        check(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2024-10-05T00:00:00Z",
            &["2024-10-05T15:45:00Z", "2024-10-06T15:15:00Z"],
        );
    }

    #[test]
    fn an_hour_that_comes_twice_runs_once_or_throughout() {
        // Berlin, 27 October 2024: 02:00 to 03:00 comes twice.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2024-10-26T12:00:00Z",
            &["2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"],
        );
        check(
            "0 * * * *",
            "Europe/Berlin",
            "2024-10-26T23:30:00Z",
            &["2024-10-27T00:00:00Z", "2024-10-27T01:00:00Z", "2024-10-27T02:00:00Z"],
        );
    }

    #[test]
    fn zones_have_names() {
        let schedule = Schedule::parse(" 0  */6 * * * ", None).unwrap();
        assert_eq!(schedule.to_string(), "0 */6 * * * UTC");
        for zone in ["", "Mars/Olympus", "../../etc/passwd", "Asia/Shanghai\0", "CN time"] {
            assert!(Schedule::parse("0 0 * * *", Some(zone)).is_err(), "{zone}");
        }
        assert!(Schedule::parse("0 0 * * *", Some(&"A".repeat(1000))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/,@a-z? -]{0,40}", zone in "[A-Za-z/_]{0,20}") {
            let _ = Schedule::parse(&text, Some(&zone));
        }

        #[test]
        fn next_and_last_agree(
            minute in 0..60_u8, hour in 0..24_u8, day in 1..29_u8,
            shape in 0..4_u8, ms in 0..4_000_000_000_000_i64,
        ) {
            let text = match shape {
                0 => format!("{minute} {hour} * * *"),
                1 => format!("*/{} * * * *", minute.max(1)),
                2 => format!("{minute} */{} {day} * *", hour.max(1)),
                _ => format!("{minute} {hour} {day} * {}", day % 7),
            };
            let schedule = Schedule::parse(&text, Some("America/New_York")).unwrap();
            let next = schedule.next_after(ms).unwrap();
            prop_assert!(next > ms);
            prop_assert_eq!(schedule.last_before(next + 1), Some(next));
            let last = schedule.last_before(next).unwrap();
            prop_assert!(last <= ms);
            prop_assert_eq!(schedule.next_after(last), Some(next));
        }

        #[test]
        fn any_moment_has_an_answer(ms in any::<i64>()) {
            let schedule = Schedule::parse("*/7 3 * * *", Some("Asia/Shanghai")).unwrap();
            let _ = (schedule.next_after(ms), schedule.last_before(ms));
        }
    }
}
