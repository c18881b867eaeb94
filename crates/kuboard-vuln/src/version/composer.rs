//! Composer's order: PHP's `version_compare` over versions normalised as Composer does: no `v`,
//! no build metadata, four numbers, long stability words; a branch `1.x-dev` is
//! `1.9999999.9999999.9999999-dev`.
//!
//! What Composer refuses (`1.0.0b1.post1`) is ordered by the same rules instead of failing.
//! Words PHP does not know are all equal to it; here they sort by their bytes, so that two
//! branches (`dev-a`, `dev-b`) differ. Key: per part a rank and a number or an unknown word.

use super::{Read, digits, graphic};

const UNKNOWN: u8 = 1;
const DEV: u8 = 2;
const ALPHA: u8 = 3;
const BETA: u8 = 4;
const CANDIDATE: u8 = 5;
const END: u8 = 6;
const NUMBER: u8 = 7;
const PATCH: u8 = 8;

/// What Composer writes for an `x` and behind it.
const ANY: &[u8] = b"9999999";

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    graphic(version)?;
    let version = version.split_once('+').map_or(version, |(version, _)| version).as_bytes();
    let bare = match version.split_first() {
        Some((b'v' | b'V', rest)) if rest.first().is_some_and(u8::is_ascii_digit) => rest,
        _ => version,
    };
    if !bare.iter().any(u8::is_ascii_alphanumeric) {
        return Err("neither a letter nor a digit");
    }
    let mut rest = bare;
    if bare.first().is_some_and(u8::is_ascii_digit) && !is_date(bare) {
        rest = push_four(bare, out);
    }
    while let Some(first) = rest.first() {
        if first.is_ascii_digit() {
            let (number, after) = digits::split(rest);
            out.push(NUMBER);
            digits::push(number, out);
            rest = after;
        } else if first.is_ascii_alphabetic() {
            let end = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            // Composer drops `stable` with all that follows.
            if word.eq_ignore_ascii_case(b"stable") {
                break;
            }
            push_word(word, out);
            rest = after;
        } else {
            rest = rest.split_at(1).1;
        }
    }
    out.push(END);
    Ok(())
}

/// Dates (`20200131`, `2020-01-31`) keep the numbers they have.
fn is_date(version: &[u8]) -> bool {
    let (year, rest) = digits::split(version);
    let more = match rest.split_first() {
        Some((b'-' | b':', month)) => digits::split(month).0.len() == 2,
        _ => false,
    };
    year.len() > 5 || (year.len() == 4 && more)
}

/// Appends the numbers in front, filled up to four.
fn push_four<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let mut fill: &[u8] = b"";
    for place in 0..4 {
        let part = if place == 0 { Some(rest) } else { rest.strip_prefix(b".") };
        let (number, after) = digits::split(part.unwrap_or_default());
        out.push(NUMBER);
        if !number.is_empty() && fill.is_empty() {
            digits::push(number, out);
            rest = after;
            continue;
        }
        if let Some((b'x' | b'X' | b'*', after)) = part.and_then(<[u8]>::split_first)
            && !after.first().is_some_and(u8::is_ascii_alphanumeric)
        {
            (fill, rest) = (ANY, after);
        }
        digits::push(fill, out);
    }
    rest
}

fn push_word(word: &[u8], out: &mut Vec<u8>) {
    // PHP looks at the beginning of a word only.
    let starts = |name: &str| {
        word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    let rank = match () {
        () if starts("dev") => DEV,
        () if starts("a") => ALPHA,
        () if starts("b") => BETA,
        () if starts("rc") => CANDIDATE,
        () if starts("p") => PATCH,
        () => UNKNOWN,
    };
    out.push(rank);
    if rank == UNKNOWN {
        out.extend(word.iter().map(u8::to_ascii_lowercase));
        out.push(0);
    }
}
