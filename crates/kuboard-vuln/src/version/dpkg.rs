//! Debian's order: `[epoch:]upstream[-revision]`, Debian policy section 5.6.12.
//!
//! Key: epoch, then upstream and revision alike as (non-digits, 2, number)... 2, where the bytes
//! of the non-digits are 1 for `~`, the letters themselves, and anything else above the letters.

use super::{Read, digits};
use std::cmp::Ordering;

/// A version taken apart.
pub(super) struct Parts<'a> {
    epoch: &'a [u8],
    upstream: &'a [u8],
    revision: &'a [u8],
}

/// Ends a run of non-digits; a tilde sorts below it, everything else above.
const RUN_END: u8 = 2;

pub(super) fn parse(version: &str) -> Read<Parts<'_>> {
    if !version.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a blank or a character outside ASCII");
    }
    let (epoch, rest) = match version.split_once(':') {
        None => ("", version),
        Some((epoch, rest)) => {
            if epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_digit()) {
                return Err("the epoch is not a number");
            }
            if epoch.parse::<i32>().is_err() {
                return Err("the epoch is too large");
            }
            (epoch, rest)
        }
    };
    let (upstream, revision) = match rest.rsplit_once('-') {
        None => (rest, ""),
        Some((_, "")) => return Err("the revision is empty"),
        Some(parts) => parts,
    };
    if upstream.is_empty() {
        return Err("the upstream version is empty");
    }
    Ok(Parts {
        epoch: epoch.as_bytes(),
        upstream: upstream.as_bytes(),
        revision: revision.as_bytes(),
    })
}

pub(super) fn sort_key(parts: &Parts<'_>, out: &mut Vec<u8>) {
    digits::push(parts.epoch, out);
    push_part(parts.upstream, out);
    push_part(parts.revision, out);
}

fn push_part(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let run = text.iter().position(u8::is_ascii_digit).unwrap_or(text.len());
        let (letters, rest) = text.split_at(run);
        out.extend(letters.iter().map(|b| weight(*b)));
        out.push(RUN_END);
        let (number, rest) = digits::split(rest);
        digits::push(number, out);
        if rest.is_empty() {
            out.push(RUN_END);
            return;
        }
        text = rest;
    }
}

/// The place of one non-digit.
fn weight(byte: u8) -> u8 {
    match byte {
        b'~' => 1,
        b if b.is_ascii_alphabetic() => b,
        b => b | 0x80,
    }
}

pub(super) fn compare(a: &Parts<'_>, b: &Parts<'_>) -> Ordering {
    digits::compare(a.epoch, b.epoch)
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (non_digit(a), non_digit(b));
            if x.is_none() && y.is_none() {
                break;
            }
            let order = x.unwrap_or(RUN_END).cmp(&y.unwrap_or(RUN_END));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let ((x, after_a), (y, after_b)) = (digits::split(a), digits::split(b));
        let order = digits::compare(x, y);
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (after_a, after_b);
    }
    Ordering::Equal
}

fn non_digit(text: &[u8]) -> Option<u8> {
    text.first().filter(|b| !b.is_ascii_digit()).map(|b| weight(*b))
}
