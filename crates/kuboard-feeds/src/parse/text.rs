//! Small values that all feeds hold: times, long texts, links, identifiers, words of severity.

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz::TimeZone};
use kuboard_vuln::{Rating, Reference, SeverityScore};

/// Texts of an advisory are cut to this many bytes.
pub(super) const MAX_DETAILS: usize = 4096;
/// Summaries are cut to this many bytes.
pub(super) const MAX_SUMMARY: usize = 512;
/// An advisory keeps so many links.
pub(super) const MAX_REFERENCES: usize = 64;
/// Names and versions longer than this are hostile.
pub(super) const MAX_NAME: usize = 1024;
/// So many other ids are kept.
pub(super) const MAX_IDS: usize = 4096;

/// Cuts at a word, or at a character where there is no space.
pub(super) fn cut(text: &str, most: usize) -> String {
    let text = text.trim();
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let head = text.get(..end).unwrap_or_default();
    let word = head.rfind(char::is_whitespace).filter(|at| at.saturating_mul(2) > end);
    let head = word.and_then(|at| head.get(..at)).unwrap_or(head);
    format!("{}…", head.trim_end())
}

/// One line of a text.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().take(200).collect();
    cut(&words.join(" "), MAX_SUMMARY)
}

/// RFC 3339, or without a zone (UTC), with or without seconds, or a day alone; in milliseconds
/// since 1970.
pub(super) fn time_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil = text
        .parse::<DateTime>()
        .or_else(|_| text.trim_end_matches(" UTC").parse::<DateTime>())
        .or_else(|_| text.parse::<Date>().map(|day| day.at(0, 0, 0, 0)))
        .ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// A day as `YYYY-MM-DD`, checked.
pub(super) fn day(text: &str) -> Option<String> {
    let head = text.trim().get(..10)?;
    head.parse::<Date>().ok().map(|day| day.to_string())
}

/// A link if it is one of the web.
pub(super) fn reference(kind: &str, url: &str) -> Option<Reference> {
    let url = url.trim();
    let web = url.starts_with("https://") || url.starts_with("http://");
    let clean = url.len() <= 2048 && !url.chars().any(|c| c.is_control() || c.is_whitespace());
    (web && clean)
        .then(|| Reference { kind: cut(&kind.to_ascii_lowercase(), 32), url: url.to_owned() })
}

/// Links, without repetitions and bounded.
pub(super) fn references<'a>(links: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Reference> {
    let mut out: Vec<Reference> = Vec::new();
    for (kind, url) in links {
        if out.len() >= MAX_REFERENCES {
            break;
        }
        if let Some(link) = reference(kind, url)
            && !out.iter().any(|known| known.url == link.url)
        {
            out.push(link);
        }
    }
    out
}

/// Whether a text can be the id of a vulnerability: `CVE-2021-44228`, `GHSA-…`, `TEMP-0000000-…`.
pub(super) fn is_id(text: &str) -> bool {
    text.len() <= 128
        && text.contains('-')
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:.+/".contains(&byte))
}

/// Whether it is `CVE-` and figures.
pub(super) fn is_cve(text: &str) -> bool {
    let Some((year, number)) = text.strip_prefix("CVE-").and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let figures = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    year.len() == 4 && figures(year) && figures(number) && number.len() <= 19
}

/// Whether it can be a name or a version: not empty, of one line, not monstrous.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// `CWE-79`.
pub(super) fn is_cwe(text: &str) -> bool {
    text.strip_prefix("CWE-").is_some_and(|number| {
        !number.is_empty() && number.len() <= 6 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A word of a source's own scale, if it says anything.
pub(super) fn word(source: &str, word: &str) -> Option<SeverityScore> {
    let word = word.trim();
    let says = !word.is_empty()
        && word.len() <= 64
        && !["none", "unknown", "undefined", "not yet assigned", "null"]
            .contains(&word.to_ascii_lowercase().as_str());
    says.then(|| SeverityScore {
        source: source.to_owned(),
        rating: Rating::Word,
        value: word.to_owned(),
    })
}

/// A CVSS vector; its version by its own prefix, 2 where it has none.
pub(super) fn vector(source: &str, vector: &str) -> Option<SeverityScore> {
    let value = vector.trim().trim_matches(['(', ')']);
    let rating = if value.starts_with("CVSS:4") {
        Rating::CvssV4
    } else if value.starts_with("CVSS:3") {
        Rating::CvssV3
    } else if value.starts_with("AV:") {
        Rating::CvssV2
    } else {
        return None;
    };
    let clean = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":/.".contains(&byte));
    (clean && value.len() <= 512).then(|| SeverityScore {
        source: source.to_owned(),
        rating,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{cut, is_cve, is_id, time_ms};

    #[test]
    fn times_come_in_many_forms() {
        for (text, ms) in [
            ("2023-05-18T19:53:57.454316Z", Some(1_684_439_637_454)),
            ("2022-09-15T16:43:06+02:00", Some(1_663_252_986_000)),
            ("2022-07-11T13:15:08.503", Some(1_657_545_308_503)),
            ("2018-01-24 20:00", Some(1_516_824_000_000)),
            ("2018-01-24 20:00:01", Some(1_516_824_001_000)),
            ("2023-05-18", Some(1_684_368_000_000)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(time_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_words() {
        assert_eq!(cut("one two three four", 14), "one two…");
        assert_eq!(cut("ääääääääääää", 9), "äää…");
        assert_eq!(cut("  short ", 14), "short");
    }

    #[test]
    fn ids_are_told_from_prose() {
        for (text, id, cve) in [
            ("CVE-2021-44228", true, true),
            ("CVE-2021-x", true, false),
            ("TEMP-0000000-1A2B3C", true, false),
            ("ALSA-2023:4520", true, false),
            ("(regression)", false, false),
            ("fix", false, false),
        ] {
            assert_eq!((is_id(text), is_cve(text)), (id, cve), "{text}");
        }
    }
}
