//! Alpine's order: `1.2.3a_rc1~hash-r0`, by the rules of apk-tools 3.
//!
//! A part of numbers that starts with 0 is compared as text and sorts below the others, except
//! for the first. A tail that cannot be read (`1.2_blah`) sorts below the same version without
//! it, and all such tails are equal, as `apk version -t` judges.
//!
//! Key: a list of parts, each a rank and a value, ended by the rank of the end or of an
//! unreadable tail. The ranks hold apk's order between kinds of parts.

use super::{Read, digits};

const UNREADABLE: u8 = 5;
const END: u8 = 6;
const REVISION: u8 = 7;
const HASH: u8 = 8;
const SUFFIX_NUMBER: u8 = 9;
const LETTER: u8 = 15;
const NUMBER: u8 = 16;

/// Before a number that is compared as text, and before one that is compared by value.
const AS_TEXT: u8 = 1;
const BY_VALUE: u8 = 2;

const SUFFIXES: [(&str, u8); 9] = [
    ("alpha", 1),
    ("beta", 2),
    ("pre", 3),
    ("rc", 4),
    ("cvs", 10),
    ("svn", 11),
    ("git", 12),
    ("hg", 13),
    ("p", 14),
];

/// What was read last: decides what may follow.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Last {
    Number,
    Letter,
    Suffix,
    SuffixNumber,
    Hash,
    Revision,
}

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    let text = version.as_bytes();
    match text.first() {
        Some(b) if b.is_ascii_digit() || b.is_ascii_lowercase() || *b == b'.' => {}
        _ => return Err("it starts with neither a digit nor a letter"),
    }
    let (number, mut rest) = digits::split(text);
    digits::push(number, out);
    let mut last = Last::Number;
    while let Some((first, after)) = rest.split_first() {
        let part = match first {
            b'a'..=b'z' if last == Last::Number => {
                out.extend_from_slice(&[LETTER, *first]);
                Some((Last::Letter, after))
            }
            b'0'..=b'9' if last == Last::Letter => number_by_value(NUMBER, Last::Number, rest, out),
            b'0'..=b'9' if last == Last::Suffix => {
                number_by_value(SUFFIX_NUMBER, Last::SuffixNumber, rest, out)
            }
            b'.' if last == Last::Number => dotted(after, out),
            b'_' if last <= Last::SuffixNumber => suffix(after, out),
            b'~' if last < Last::Hash => hash(after, out),
            b'-' if last < Last::Revision => revision(after, out),
            _ => None,
        };
        let Some((now, after)) = part else {
            out.push(UNREADABLE);
            return Ok(());
        };
        (last, rest) = (now, after);
    }
    out.push(END);
    Ok(())
}

type Part<'a> = Option<(Last, &'a [u8])>;

fn number_by_value<'a>(rank: u8, last: Last, text: &'a [u8], out: &mut Vec<u8>) -> Part<'a> {
    let (number, rest) = digits::split(text);
    out.extend_from_slice(&[rank, BY_VALUE]);
    digits::push(number, out);
    Some((last, rest))
}

fn dotted<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Part<'a> {
    if text.first() != Some(&b'0') {
        return number_by_value(NUMBER, Last::Number, text, out);
    }
    let (number, rest) = digits::split(text);
    out.extend_from_slice(&[NUMBER, AS_TEXT]);
    out.extend_from_slice(number);
    out.push(0);
    Some((Last::Number, rest))
}

fn suffix<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Part<'a> {
    let end = text.iter().position(|b| !b.is_ascii_lowercase()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let (_, rank) = SUFFIXES.iter().find(|(name, _)| name.as_bytes() == word)?;
    out.push(*rank);
    Some((Last::Suffix, rest))
}

fn hash<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Part<'a> {
    let end =
        text.iter().position(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')).unwrap_or(text.len());
    let (hash, rest) = text.split_at(end);
    if hash.is_empty() {
        return None;
    }
    out.push(HASH);
    out.extend_from_slice(hash);
    out.push(0);
    Some((Last::Hash, rest))
}

/// `r7`, or a bare `r` for 0; an `r` before another letter is no revision.
fn revision<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Part<'a> {
    let (_, text) = text.split_first().filter(|(first, _)| **first == b'r')?;
    let (number, rest) = digits::split(text);
    if number.is_empty() && rest.first().is_some_and(u8::is_ascii_alphabetic) {
        return None;
    }
    out.push(REVISION);
    digits::push(number, out);
    Some((Last::Revision, rest))
}
