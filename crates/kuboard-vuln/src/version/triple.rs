//! What the semantic schemes share: numbers with dots, then labels of a pre-release.
//!
//! Key: the first three numbers (a missing one is 0); `0xff`, further numbers and 0 when there
//! are any but zeros; then `0xfe` for a release, or the labels: 1 number, 2 text 0; ended by 0.

use super::{Read, digits};

/// Comes after the numbers of a release, above every pre-release of it.
const RELEASE: u8 = 0xfe;
/// Comes before the fourth and further numbers.
const MORE: u8 = 0xff;

/// How a scheme differs from the others.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// How many numbers there may be.
    pub(super) numbers: usize,
    /// Whether `01` is refused, among the numbers and the labels.
    pub(super) strict: bool,
    /// Whether labels are compared without case.
    pub(super) fold: bool,
}

/// `1.2.3-rc.1+build` as `1.2.3` and `rc.1`; the build metadata is checked and dropped.
pub(super) fn split(version: &str) -> Read<(&str, Option<&str>)> {
    let version = match version.split_once('+') {
        None => version,
        Some((version, build)) => {
            if !build.split('.').all(is_label) {
                return Err("the build metadata is not labels with dots");
            }
            version
        }
    };
    Ok(match version.split_once('-') {
        None => (version, None),
        Some((numbers, labels)) => (numbers, Some(labels)),
    })
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Appends the key of a whole version.
pub(super) fn push(version: &str, rules: Rules, out: &mut Vec<u8>) -> Read<()> {
    let (numbers, labels) = split(version)?;
    push_numbers(numbers, rules, out)?;
    push_labels(labels, rules, out)
}

/// Appends the key of the numbers.
pub(super) fn push_numbers(numbers: &str, rules: Rules, out: &mut Vec<u8>) -> Read<()> {
    let mut count = 0;
    let mut significant = 0;
    for number in numbers.split('.') {
        let number = number.as_bytes();
        if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
            return Err("a part before the labels is not a number");
        }
        if rules.strict && number.len() > 1 && number.first() == Some(&b'0') {
            return Err("a number starts with a zero");
        }
        count += 1;
        if !digits::is_zero(number) {
            significant = count;
        }
    }
    if count > rules.numbers {
        return Err("too many numbers");
    }
    let mut parts = numbers.split('.').map(str::as_bytes);
    for _ in 0..3 {
        digits::push(parts.next().unwrap_or_default(), out);
    }
    if significant > 3 {
        out.push(MORE);
        parts.take(significant - 3).for_each(|number| digits::push(number, out));
        out.push(0);
    }
    Ok(())
}

/// Appends the key of the labels, or of a release when there are none.
pub(super) fn push_labels(labels: Option<&str>, rules: Rules, out: &mut Vec<u8>) -> Read<()> {
    let Some(labels) = labels else {
        out.push(RELEASE);
        return Ok(());
    };
    for label in labels.split('.') {
        if !is_label(label) {
            return Err("a label is empty or holds other than letters, digits and hyphens");
        }
        let label = label.as_bytes();
        if label.iter().all(u8::is_ascii_digit) {
            if rules.strict && label.len() > 1 && label.first() == Some(&b'0') {
                return Err("a numeric label starts with a zero");
            }
            out.push(1);
            digits::push(label, out);
        } else {
            out.push(2);
            if rules.fold {
                out.extend(label.iter().map(u8::to_ascii_lowercase));
            } else {
                out.extend_from_slice(label);
            }
            out.push(0);
        }
    }
    out.push(0);
    Ok(())
}
