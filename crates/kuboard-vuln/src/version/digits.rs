//! Runs of decimal digits of any length, as bytes that sort by value.
//!
//! The first byte is never 0, so that 0 can end a list of numbers:
//! `1..=191` is the value 0 to 190 itself; `192..=249` says 3 to 60 digits, `250` and two bytes
//! more; then the digits follow, two in a byte.

use std::cmp::Ordering;

/// The largest value that is its own byte.
const SMALL: u16 = 190;

/// Appends the value of `digits` (ASCII digits only; none is 0).
pub(super) fn push(digits: &[u8], out: &mut Vec<u8>) {
    let digits = stripped(digits);
    let len = digits.len();
    if len <= 3 {
        let value = digits.iter().fold(0u16, |sum, d| sum * 10 + u16::from(d - b'0'));
        if value <= SMALL {
            out.push(value.to_le_bytes()[0] + 1);
            return;
        }
    }
    match u8::try_from(len) {
        Ok(short) if short <= 60 => out.push(189 + short),
        _ => {
            out.push(250);
            out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    for pair in digits.chunks(2) {
        let high = pair.first().map_or(0, |d| d - b'0');
        let low = pair.get(1).map_or(0, |d| d - b'0');
        out.push(high << 4 | low);
    }
}

/// The order of two runs by value.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (stripped(a), stripped(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Whether the value is 0.
pub(super) fn is_zero(digits: &[u8]) -> bool {
    stripped(digits).is_empty()
}

/// The leading digits of `text` and what follows.
pub(super) fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn stripped(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|d| **d == b'0').count();
    digits.split_at(zeros).1
}
