//! Python's order: PEP 440, with the spellings its appendix normalises (`1.0-RC.1`, `1.0-1`).
//!
//! Key: epoch, the numbers without zeros at their end, 0; 0 (only a development release), 1 a,
//! 2 b, 3 rc with its number, or 4; post-release number or 0; 0 with the number of a development
//! release, or 1; parts of the local version (1 text 0, 2 number); 0. Strings that are no PEP 440
//! version sort below all of them, see [`super::pep440_legacy`].

use super::{Read, digits, pep440_legacy};

#[derive(Default)]
struct Parts<'a> {
    epoch: &'a [u8],
    numbers: &'a [u8],
    pre: Option<(u8, &'a [u8])>,
    post: Option<&'a [u8]>,
    dev: Option<&'a [u8]>,
    local: &'a [u8],
}

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    let Some(parts) = parse(version.as_bytes()) else {
        return pep440_legacy::sort_key(version, out);
    };
    digits::push(parts.epoch, out);
    let numbers = || parts.numbers.split(|b| *b == b'.');
    let significant = numbers().enumerate().filter(|(_, n)| !digits::is_zero(n)).last();
    let count = significant.map_or(0, |(last, _)| last + 1);
    numbers().take(count).for_each(|number| digits::push(number, out));
    out.push(0);
    match parts.pre {
        Some((rank, number)) => {
            out.push(rank);
            digits::push(number, out);
        }
        None if parts.post.is_none() && parts.dev.is_some() => out.push(0),
        None => out.push(4),
    }
    match parts.post {
        Some(number) => digits::push(number, out),
        None => out.push(0),
    }
    match parts.dev {
        Some(number) => {
            out.push(0);
            digits::push(number, out);
        }
        None => out.push(1),
    }
    push_local(parts.local, out);
    Ok(())
}

fn push_local(local: &[u8], out: &mut Vec<u8>) {
    if !local.is_empty() {
        for part in local.split(|b| matches!(b, b'.' | b'-' | b'_')) {
            if part.iter().all(u8::is_ascii_digit) {
                out.push(2);
                digits::push(part, out);
            } else {
                out.push(1);
                out.extend(part.iter().map(u8::to_ascii_lowercase));
                out.push(0);
            }
        }
    }
    out.push(0);
}

fn parse(text: &[u8]) -> Option<Parts<'_>> {
    let mut parts = Parts::default();
    let mut text = word(text, &["v"]).map_or(text, |(_, rest)| rest);
    let (first, rest) = digits::split(text);
    if let (false, Some(rest)) = (first.is_empty(), rest.strip_prefix(b"!")) {
        (parts.epoch, text) = (first, rest);
    }
    (parts.numbers, text) = numbers(text)?;
    if let Some((name, number, rest)) = labelled(text, &PRE) {
        let rank = match name {
            "a" | "alpha" => 1,
            "b" | "beta" => 2,
            _ => 3,
        };
        (parts.pre, text) = (Some((rank, number)), rest);
    }
    let implied =
        text.strip_prefix(b"-").map(digits::split).filter(|(number, _)| !number.is_empty());
    if let Some((number, rest)) = implied {
        (parts.post, text) = (Some(number), rest);
    } else if let Some((_, number, rest)) = labelled(text, &["post", "rev", "r"]) {
        (parts.post, text) = (Some(number), rest);
    }
    if let Some((_, number, rest)) = labelled(text, &["dev"]) {
        (parts.dev, text) = (Some(number), rest);
    }
    if let Some(local) = text.strip_prefix(b"+") {
        let mut pieces = local.split(|b| matches!(b, b'.' | b'-' | b'_'));
        if !pieces.all(|piece| !piece.is_empty() && piece.iter().all(u8::is_ascii_alphanumeric)) {
            return None;
        }
        (parts.local, text) = (local, &[]);
    }
    text.is_empty().then_some(parts)
}

/// Longer names first: a shorter one must not take a part of a longer.
const PRE: [&str; 8] = ["alpha", "beta", "preview", "pre", "rc", "a", "b", "c"];

/// `1.2.3` in front, and the rest.
fn numbers(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = digits::split(text).0.len();
    if end == 0 {
        return None;
    }
    while let Some((b'.', rest)) = text.get(end..).and_then(<[u8]>::split_first) {
        let number = digits::split(rest).0.len();
        if number == 0 {
            break;
        }
        end += 1 + number;
    }
    text.split_at_checked(end)
}

/// A name with the separators and the number that may stand around it.
fn labelled<'a>(
    text: &'a [u8],
    names: &[&'static str],
) -> Option<(&'static str, &'a [u8], &'a [u8])> {
    let (name, rest) = word(after_separator(text), names)?;
    let (number, rest) = digits::split(after_separator(rest));
    Some((name, number, rest))
}

fn after_separator(text: &[u8]) -> &[u8] {
    match text.split_first() {
        Some((b'.' | b'-' | b'_', rest)) => rest,
        _ => text,
    }
}

fn word<'a>(text: &'a [u8], names: &[&'static str]) -> Option<(&'static str, &'a [u8])> {
    names.iter().find_map(|name| {
        let (start, rest) = text.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name.as_bytes()).then_some((*name, rest))
    })
}
