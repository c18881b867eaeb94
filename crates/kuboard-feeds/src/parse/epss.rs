//! EPSS (`epss_scores-DATE.csv.gz`): a comment with the date, a heading, and `CVE,probability,
//! percentile` a line.

use std::io::{BufRead, Read};

use kuboard_vuln::Epss;

use super::{MAX_FEED, ParseError, Summary, compressed, text};
use crate::Sink;

const FORMAT: &str = "EPSS";
const MAX_LINE: u64 = 1024;

/// The scores of one day; the day is the summary's newest modification.
///
/// # Errors
/// If it is no such list, empty, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut plain = compressed::open(input, MAX_FEED)?;
    let mut summary = Summary::default();
    let mut line = Vec::new();
    let mut heading = false;
    let mut day = None;
    loop {
        line.clear();
        if plain.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|error| ParseError::format(FORMAT, error))?;
        let text = text.trim();
        if let Some(comment) = text.strip_prefix('#') {
            let date = comment.split(',').find_map(|part| part.strip_prefix("score_date:"));
            day = date.and_then(text::day).as_deref().and_then(text::time_ms).or(day);
        } else if !heading {
            if text != "cve,epss,percentile" {
                return Err(ParseError::format(
                    FORMAT,
                    "it has not the heading `cve,epss,percentile`",
                ));
            }
            heading = true;
        } else if !text.is_empty() {
            match score(text) {
                Some((cve, epss)) => {
                    summary.read(day);
                    sink.epss(cve, epss);
                }
                None => summary.skip(text, "it is not `CVE,probability,percentile`"),
            }
        }
    }
    summary.judge_full()
}

fn score(line: &str) -> Option<(&str, Epss)> {
    let mut parts = line.split(',');
    let cve = parts.next().filter(|cve| text::is_cve(cve))?;
    let probability = share(parts.next()?)?;
    let percentile = share(parts.next()?)?;
    parts.next().is_none().then_some((cve, Epss { probability, percentile }))
}

/// 0 to 1, in 1/100000.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 100000")]
fn share(text: &str) -> Option<u32> {
    let share: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&share).then(|| (share * 100_000.0).round() as u32)
}
