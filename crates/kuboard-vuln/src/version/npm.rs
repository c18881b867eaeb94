//! npm's order: semantic versions as node-semver reads them with `loose`: `v` and `=` in front,
//! zeros in front of numbers, labels without their hyphen (`1.2.3beta`). Of fewer than three
//! numbers the missing ones are 0, since advisories write `0` and `1.2`.

use super::Read;
use super::triple::{self, Rules};

const RULES: Rules = Rules { numbers: 3, strict: false, fold: false };

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    let version = bare(version);
    let core = version.split_once('+').map_or(version, |(core, _)| core);
    let end = core.bytes().position(|b| b != b'.' && !b.is_ascii_digit()).unwrap_or(core.len());
    match core.split_at_checked(end) {
        Some((numbers, labels)) if labels.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            triple::split(version)?;
            triple::push_numbers(numbers, RULES, out)?;
            triple::push_labels(Some(labels), RULES, out)
        }
        _ => triple::push(version, RULES, out),
    }
}

/// Without the `v`, `=` and blanks in front.
pub(super) fn bare(version: &str) -> &str {
    version.trim_start_matches(|c: char| c == 'v' || c == '=' || c.is_ascii_whitespace())
}
