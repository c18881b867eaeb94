//! RubyGems' order: segments of digits and letters; a segment of letters makes a pre-release.
//!
//! A version continues with zeros for ever, so zeros at the end of the numbers and of the whole
//! say nothing. Key, per segment: 1 text 0; 2 and how many zeros (ascending) before a text; 3 the
//! end; 4 and how many zeros (descending) before a number; 5 number.

use super::{Read, digits};

const TEXT: u8 = 1;
const ZEROS_THEN_TEXT: u8 = 2;
const END: u8 = 3;
const ZEROS_THEN_NUMBER: u8 = 4;
const NUMBER: u8 = 5;

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("it does not start with a digit");
    }
    let (numbers, dashed) = match version.split_once('-') {
        None => (version, None),
        Some((numbers, dashed)) => (numbers, Some(dashed)),
    };
    let well_formed = |text: &str| {
        text.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    if !well_formed(numbers) || !dashed.is_none_or(well_formed) {
        return Err("a segment is empty or holds other than letters and digits");
    }
    let mut segments = Segments { zeros: 0, text_seen: false };
    segments.push(numbers, out);
    if let Some(dashed) = dashed {
        // A hyphen reads as `.pre.`.
        for part in dashed.split('-') {
            segments.push("pre", out);
            segments.push(part, out);
        }
    }
    out.push(END);
    Ok(())
}

struct Segments {
    /// Zeros seen since the last other segment.
    zeros: u16,
    text_seen: bool,
}

impl Segments {
    fn push(&mut self, text: &str, out: &mut Vec<u8>) {
        let mut rest = text.as_bytes();
        while let Some(first) = rest.first() {
            if first.is_ascii_digit() {
                let (number, after) = digits::split(rest);
                self.number(number, out);
                rest = after;
            } else if first.is_ascii_alphabetic() {
                let end = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                self.word(word, out);
                rest = after;
            } else {
                rest = rest.split_at(1).1;
            }
        }
    }

    fn number(&mut self, number: &[u8], out: &mut Vec<u8>) {
        if digits::is_zero(number) {
            // A version has at most 512 bytes, so this stays far from its limit.
            self.zeros = self.zeros.saturating_add(1);
            return;
        }
        if self.zeros > 0 {
            out.push(ZEROS_THEN_NUMBER);
            out.extend_from_slice(&(u16::MAX - self.zeros).to_be_bytes());
            self.zeros = 0;
        }
        out.push(NUMBER);
        digits::push(number, out);
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) {
        // Zeros before the first text are dropped: `1.0.a` is `1.a`.
        if self.zeros > 0 && self.text_seen {
            out.push(ZEROS_THEN_TEXT);
            out.extend_from_slice(&self.zeros.to_be_bytes());
        }
        (self.zeros, self.text_seen) = (0, true);
        out.push(TEXT);
        out.extend_from_slice(word);
        out.push(0);
    }
}
