//! The five fields of crontab(5), as sets over minutes of civil time. Time zones are not known
//! here.
//!
//! `*`, values, ranges, lists and steps, names of months and weekdays, `0` and `7` for Sunday, and
//! the `@daily` family. As in Vixie's cron, days of the month and weekdays are both asked if one
//! of the fields begins with `*`, and either is enough otherwise.

use jiff::{
    ToSpan,
    civil::{Date, DateTime, Time},
};

/// Longer texts are refused.
const MAX_TEXT: usize = 256;
/// The rarest date, 29 February on a given weekday, comes back after at most 40 years.
const MAX_DAYS: u32 = 366 * 41;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold.
struct Kind {
    what: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { what: "minute", least: 0, most: 59, names: &[] },
    Kind { what: "hour", least: 0, most: 23, names: &[] },
    Kind { what: "day of the month", least: 1, most: 31, names: &[] },
    Kind { what: "month", least: 1, most: 12, names: &MONTHS },
    Kind { what: "weekday", least: 0, most: 7, names: &WEEKDAYS },
];

/// Bit `n` stands for the value `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.0.checked_shr(value).unwrap_or(0) & 1 == 1)
    }

    /// The least member that is not below `from`.
    fn at_least(self, from: i8) -> Option<i8> {
        (from.max(0)..64).find(|value| self.has(*value))
    }

    /// The greatest member that is not above `to`.
    fn at_most(self, to: i8) -> Option<i8> {
        (0..=to).rev().find(|value| self.has(*value))
    }
}

/// A parsed expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Days of the month and weekdays must both agree.
    both_days: bool,
    /// Runs throughout the day, so that an hour that comes twice has its runs twice.
    pub(super) throughout: bool,
}

impl Cron {
    /// Reads an expression; the error is a fact and, after a line break, a hint.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("a schedule of more than {MAX_TEXT} characters"));
        }
        let spelt = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => {
                return Err(format!(
                    "no such schedule: \"{other}\"\n@hourly, @daily, @weekly, @monthly and \
                     @yearly are known"
                ));
            }
            other => other,
        };
        if spelt.split_whitespace().next().is_some_and(|first| first.contains("TZ=")) {
            return Err(
                "a time zone inside of the schedule\nwrite it as timeZone beside schedule".into()
            );
        }
        let fields: Vec<&str> = spelt.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "a schedule has five fields, this has {}\nminute, hour, day of the month, month, \
                 weekday: \"0 */6 * * *\" is every six hours",
                fields.len()
            ));
        };
        let [minutes, hours, days, months, weekdays] = &KINDS;
        let is_star = |field: &str| field.starts_with(['*', '?']);
        let mut cron = Self {
            minutes: set(minute, minutes)?,
            hours: set(hour, hours)?,
            days: set(day, days)?,
            months: set(month, months)?,
            weekdays: set(weekday, weekdays)?,
            both_days: is_star(day) || is_star(weekday),
            throughout: is_star(minute) || is_star(hour),
        };
        if cron.weekdays.has(7) {
            cron.weekdays.0 |= 1;
        }
        if cron.next(Date::constant(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
            return Err(format!("\"{text}\" never comes\nthat month has no such day"));
        }
        Ok(cron)
    }

    fn has_day(&self, date: Date) -> bool {
        let in_month = self.days.has(date.day());
        let in_week = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let day = if self.both_days { in_month && in_week } else { in_month || in_week };
        day && self.months.has(date.month())
    }

    /// The first minute not before `from` that is meant.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let (mut date, mut time) = (from.date(), from.time());
        for _ in 0..MAX_DAYS {
            if self.has_day(date)
                && let Some(time) = self.next_time(time)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            time = Time::midnight();
        }
        None
    }

    fn next_time(&self, from: Time) -> Option<Time> {
        let whole = from.second() == 0 && from.subsec_nanosecond() == 0;
        let first = from.minute() + i8::from(!whole);
        if self.hours.has(from.hour())
            && let Some(minute) = self.minutes.at_least(first)
        {
            return Time::new(from.hour(), minute, 0, 0).ok();
        }
        let hour = self.hours.at_least(from.hour() + 1)?;
        Time::new(hour, self.minutes.at_least(0)?, 0, 0).ok()
    }

    /// The last minute not after `to` that is meant.
    pub(super) fn last(&self, to: DateTime) -> Option<DateTime> {
        let (mut date, mut time) = (to.date(), to.time());
        for _ in 0..MAX_DAYS {
            if self.has_day(date)
                && let Some(time) = self.last_time(time)
            {
                return Some(date.to_datetime(time));
            }
            date = date.checked_sub(1.day()).ok()?;
            time = Time::constant(23, 59, 0, 0);
        }
        None
    }

    fn last_time(&self, to: Time) -> Option<Time> {
        if self.hours.has(to.hour())
            && let Some(minute) = self.minutes.at_most(to.minute())
        {
            return Time::new(to.hour(), minute, 0, 0).ok();
        }
        let hour = self.hours.at_most(to.hour() - 1)?;
        Time::new(hour, self.minutes.at_most(59)?, 0, 0).ok()
    }
}

/// One field: items between commas.
fn set(field: &str, kind: &Kind) -> Result<Set, String> {
    let mut bits = 0_u64;
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let step = match step.map(str::parse::<u8>) {
            None => None,
            Some(Ok(step)) if step > 0 => Some(step),
            Some(_) => return Err(format!("{}: \"{item}\" has no step", kind.what)),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (kind.least, kind.most),
            Some((first, last)) => (value(first, kind)?, value(last, kind)?),
            // A step from one value goes to the end of the field.
            None if step.is_some() => (value(range, kind)?, kind.most),
            None => (value(range, kind)?, value(range, kind)?),
        };
        if first > last {
            return Err(format!(
                "{}: \"{item}\" ends before it begins\nwrite two ranges with a comma",
                kind.what
            ));
        }
        for value in (first..=last).step_by(usize::from(step.unwrap_or(1))) {
            bits |= 1 << value;
        }
    }
    Ok(Set(bits))
}

fn value(text: &str, kind: &Kind) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(place) = kind.names.iter().position(|name| *name == lower) {
        return Ok(kind.least + u8::try_from(place).unwrap_or(0));
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u8>() {
        Ok(value) if digits && (kind.least..=kind.most).contains(&value) => Ok(value),
        _ => Err(format!(
            "{}: \"{text}\" is not between {} and {}",
            kind.what, kind.least, kind.most
        )),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;

    use super::Cron;

    #[track_caller]
    fn check(text: &str, from: &str, expected: &[&str]) {
        let cron = Cron::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut at: DateTime = from.parse().unwrap();
        let mut seen = Vec::new();
        for _ in expected {
            let next = cron.next(at).unwrap();
            seen.push(next.strftime("%a %Y-%m-%d %H:%M").to_string());
            at = next + jiff::Span::new().minutes(1);
        }
        assert_eq!(seen, expected, "{text} forth");
        let start: DateTime = from.parse().unwrap();
        let mut back = Vec::new();
        while let Some(last) = cron.last(at - jiff::Span::new().minutes(1)) {
            if last < start {
                break;
            }
            back.push(last.strftime("%a %Y-%m-%d %H:%M").to_string());
            at = last;
        }
        back.reverse();
        assert_eq!(back, expected, "{text} back");
    }

    #[test]
    fn expressions_mean_what_crontab_says() {
        let from = "2024-02-28T23:30:00";
        check("0 */6 * * *", from, &["Thu 2024-02-29 00:00", "Thu 2024-02-29 06:00"]);
        check("@hourly", from, &["Thu 2024-02-29 00:00", "Thu 2024-02-29 01:00"]);
        check("30 23 * * *", from, &["Wed 2024-02-28 23:30", "Thu 2024-02-29 23:30"]);
        check("15,45 8-9 * * mon-fri", from, &["Thu 2024-02-29 08:15", "Thu 2024-02-29 08:45"]);
        check("0 0 29 2 *", from, &["Thu 2024-02-29 00:00", "Tue 2028-02-29 00:00"]);
        check("0 0 29 FEB */7", from, &["Sun 2032-02-29 00:00", "Sun 2060-02-29 00:00"]);
        // Either day is enough where none begins with a star.
        check(
            "0 0 13 * 5",
            from,
            &["Fri 2024-03-01 00:00", "Fri 2024-03-08 00:00", "Wed 2024-03-13 00:00"],
        );
        check("0 0 * * 7", from, &["Sun 2024-03-03 00:00", "Sun 2024-03-10 00:00"]);
        check(
            "0 0 ? * 5-7",
            from,
            &["Fri 2024-03-01 00:00", "Sat 2024-03-02 00:00", "Sun 2024-03-03 00:00"],
        );
        check("50/5 12 31 12 *", from, &["Tue 2024-12-31 12:50", "Tue 2024-12-31 12:55"]);
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        for (text, expected) in [
            ("", "has 0"),
            ("* * * *", "has 4"),
            ("0 0 0 * * *", "has 6"),
            ("60 * * * *", "minute: \"60\" is not between 0 and 59"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "weekday"),
            ("* * * * fridays", "weekday: \"fridays\""),
            ("*/0 * * * *", "no step"),
            ("*/ * * * *", "no step"),
            ("5-1 * * * *", "ends before"),
            ("1,,2 * * * *", "minute: \"\""),
            ("+1 * * * *", "minute: \"+1\""),
            ("-1 * * * *", "minute: \"\""),
            ("0 0 30 2 *", "never comes"),
            ("@reboot", "no such schedule"),
            ("CRON_TZ=UTC 0 0 * * *", "timeZone"),
        ] {
            let error = Cron::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Cron::parse(&"1,".repeat(1000)).is_err());
    }
}
