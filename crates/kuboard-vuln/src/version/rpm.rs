//! RPM's order: `[epoch:]version[-release]`, by segments of letters and digits, with `~` below
//! the end of a version and `^` just above it.
//!
//! A missing epoch is 0. A missing release is less than any release, even an empty one, so that
//! the order is total (rpm's own `rpm.vercmp` agrees). A name in front (`name-epoch:version-
//! release`) is compared first, by its bytes; a version without one sorts before.
//!
//! Key: epoch, segments of the version, 0 or 1 with the segments of the release. Segments: 1 `~`,
//! 2 end, 3 `^`, 4 letters 0, 5 number.

use super::{Read, digits, graphic};
use std::cmp::Ordering;

/// A version taken apart.
pub(super) struct Parts<'a> {
    name: Option<&'a str>,
    epoch: &'a [u8],
    version: &'a [u8],
    release: Option<&'a [u8]>,
}

/// Comes before a name; greater than the first byte of any epoch.
const NAMED: u8 = 0xff;

pub(super) fn parse(text: &str) -> Read<Parts<'_>> {
    graphic(text)?;
    let (front, release) = match text.rsplit_once('-') {
        None => (text, None),
        Some((front, release)) => (front, Some(release.as_bytes())),
    };
    let (name, evr) = match front.rsplit_once('-') {
        None => (None, front),
        Some((name, evr)) => (Some(name), evr),
    };
    let evr = evr.as_bytes();
    let (number, rest) = digits::split(evr);
    let (epoch, version) = match rest.split_first() {
        Some((b':', version)) => (number, version),
        _ => (&[][..], evr),
    };
    if epoch.len() > 10 {
        return Err("the epoch is too large");
    }
    if version.is_empty() {
        return Err("the version is empty");
    }
    Ok(Parts { name, epoch, version, release })
}

pub(super) fn sort_key(parts: &Parts<'_>, out: &mut Vec<u8>) {
    if let Some(name) = parts.name {
        out.push(NAMED);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
    }
    digits::push(parts.epoch, out);
    push_segments(parts.version, out);
    match parts.release {
        None => out.push(0),
        Some(release) => {
            out.push(1);
            push_segments(release, out);
        }
    }
}

fn push_segments(text: &[u8], out: &mut Vec<u8>) {
    let mut text = text;
    loop {
        let (segment, rest) = next(text);
        out.push(segment.rank());
        match segment {
            Segment::End => return,
            Segment::Tilde | Segment::Caret => {}
            Segment::Letters(letters) => {
                out.extend_from_slice(letters);
                out.push(0);
            }
            Segment::Number(number) => digits::push(number, out),
        }
        text = rest;
    }
}

enum Segment<'a> {
    Tilde,
    End,
    Caret,
    Letters(&'a [u8]),
    Number(&'a [u8]),
}

impl Segment<'_> {
    fn rank(&self) -> u8 {
        match self {
            Segment::Tilde => 1,
            Segment::End => 2,
            Segment::Caret => 3,
            Segment::Letters(_) => 4,
            Segment::Number(_) => 5,
        }
    }
}

fn next(text: &[u8]) -> (Segment<'_>, &[u8]) {
    let start = text
        .iter()
        .position(|b| b.is_ascii_alphanumeric() || matches!(b, b'~' | b'^'))
        .unwrap_or(text.len());
    let text = text.split_at(start).1;
    match text.split_first() {
        None => (Segment::End, text),
        Some((b'~', rest)) => (Segment::Tilde, rest),
        Some((b'^', rest)) => (Segment::Caret, rest),
        Some((first, _)) if first.is_ascii_digit() => {
            let (number, rest) = digits::split(text);
            (Segment::Number(number), rest)
        }
        Some(_) => {
            let end = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
            let (letters, rest) = text.split_at(end);
            (Segment::Letters(letters), rest)
        }
    }
}

pub(super) fn compare(a: &Parts<'_>, b: &Parts<'_>) -> Ordering {
    a.name
        .cmp(&b.name)
        .then_with(|| digits::compare(a.epoch, b.epoch))
        .then_with(|| compare_segments(a.version, b.version))
        .then_with(|| match (a.release, b.release) {
            (Some(a), Some(b)) => compare_segments(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        })
}

fn compare_segments(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let ((x, after_a), (y, after_b)) = (next(a), next(b));
        let order = x.rank().cmp(&y.rank()).then_with(|| match (&x, &y) {
            (Segment::Letters(x), Segment::Letters(y)) => x.cmp(y),
            (Segment::Number(x), Segment::Number(y)) => digits::compare(x, y),
            _ => Ordering::Equal,
        });
        if order != Ordering::Equal || matches!(x, Segment::End) {
            return order;
        }
        (a, b) = (after_a, after_b);
    }
}
