//! Python versions from before PEP 440, in the order setuptools gave them, below every PEP 440
//! version: old releases on PyPI bear them and advisories list them.
//!
//! Key: 0, then per part its text and 0, then 0. Parts are runs of digits (filled up to eight),
//! and words behind a `*`, of which `*final` marks the end.

use super::{Read, graphic};

/// The end of a version, and what a hyphen stands for.
const FINAL: &str = "*final";
const HYPHEN: &str = "*final-";

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    graphic(version)?;
    if !version.is_ascii() {
        return Err("a character outside ASCII");
    }
    let version = version.to_ascii_lowercase();
    let mut parts: Vec<String> = Vec::new();
    let mut rest = version.as_str();
    while let Some(first) = rest.chars().next() {
        let kind = kind(first);
        let end = match kind {
            Kind::Dot | Kind::Hyphen => 1,
            _ => rest.find(|c| self::kind(c) != kind).unwrap_or(rest.len()),
        };
        let (text, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        match (kind, text) {
            (Kind::Dot, _) => {}
            (Kind::Digit, _) => parts.push(format!("{text:0>8}")),
            (Kind::Hyphen, _) => add_word(HYPHEN, &mut parts),
            (_, "pre" | "preview" | "rc") => add_word("*c", &mut parts),
            (_, "dev") => add_word("*@", &mut parts),
            _ => add_word(&format!("*{text}"), &mut parts),
        }
    }
    add_word(FINAL, &mut parts);
    out.push(0);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
    out.push(0);
    Ok(())
}

/// A word drops the zeros before it, and one that makes a pre-release the hyphens too.
fn add_word(word: &str, parts: &mut Vec<String>) {
    if word < FINAL {
        while parts.last().is_some_and(|last| last == HYPHEN) {
            parts.pop();
        }
    }
    while parts.last().is_some_and(|last| last == "00000000") {
        parts.pop();
    }
    parts.push(word.to_owned());
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Digit,
    Letter,
    Dot,
    Hyphen,
    Other,
}

fn kind(c: char) -> Kind {
    match c {
        '0'..='9' => Kind::Digit,
        'a'..='z' => Kind::Letter,
        '.' => Kind::Dot,
        '-' => Kind::Hyphen,
        _ => Kind::Other,
    }
}
