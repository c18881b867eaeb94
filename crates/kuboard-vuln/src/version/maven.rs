//! Maven's order: `ComparableVersion` of Maven 3.8.7 to 3.9.
//!
//! Maven nests lists: a hyphen, or a change between digits and letters, opens one inside the one
//! before, and zeros and release words (`ga`, `final`, `release`) before such a border are
//! dropped. Nothing ever follows an inner list, so the nest is a line of tokens, each of which
//! knows whether it opens a list. Two corners where Maven's own answers contradict each other
//! (a < b < c < a) are settled here: a word always opens a list, also in the middle (`1.sp.1`),
//! and a dropped token leaves no empty list behind (`1-ga-1` is `1-1`).
//!
//! Key: per token a rank, with the word or the number behind it, ended by [`END`]; so words that
//! make a pre-release sort below the end, all other tokens above.

use super::{Read, digits, graphic};

const END: u8 = 6;
const RELEASE: u8 = 7;
const OTHER_WORD: u8 = 9;
/// A number that opens a list: `-1`.
const LISTED_NUMBER: u8 = 10;
/// A number after a dot: `.1`.
const NUMBER: u8 = 11;

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the tokens begin that are dropped if a list opens, or the end comes, next.
    significant: usize,
    /// Whether the next number opens a list.
    opens: bool,
}

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    graphic(version)?;
    let significant = out.len();
    let mut writer = Writer { out, significant, opens: false };
    let mut rest = version.as_bytes();
    while let Some(first) = rest.first() {
        let mut separator = None;
        if first.is_ascii_digit() {
            let (number, after) = digits::split(rest);
            writer.number(number);
            rest = after;
        } else if matches!(first, b'.' | b'-') {
            // An empty part is a zero.
            writer.number(b"");
        } else {
            let border = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'-');
            let end = rest.iter().position(border).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            writer.word(word, after.first().is_some_and(u8::is_ascii_digit));
            rest = after;
        }
        if let Some((b @ (b'.' | b'-'), after)) = rest.split_first() {
            separator = Some(*b);
            rest = after;
        }
        // Without a separator, digits and letters meet.
        writer.opens = separator != Some(b'.');
    }
    writer.out.truncate(writer.significant);
    writer.out.push(END);
    Ok(())
}

impl Writer<'_> {
    fn number(&mut self, number: &[u8]) {
        if self.opens {
            self.out.truncate(self.significant);
        }
        self.out.push(if self.opens { LISTED_NUMBER } else { NUMBER });
        digits::push(number, self.out);
        if !digits::is_zero(number) {
            self.significant = self.out.len();
        }
    }

    fn word(&mut self, word: &[u8], digit_follows: bool) {
        self.out.truncate(self.significant);
        let rank = rank(word, digit_follows);
        self.out.push(rank);
        if rank == OTHER_WORD {
            match std::str::from_utf8(word) {
                Ok(word) => self.out.extend_from_slice(word.to_lowercase().as_bytes()),
                Err(_) => self.out.extend_from_slice(word),
            }
            self.out.push(0);
        }
        if rank != RELEASE {
            self.significant = self.out.len();
        }
    }
}

fn rank(word: &[u8], digit_follows: bool) -> u8 {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let short = |name: &str| digit_follows && is(name);
    match () {
        () if is("alpha") || short("a") => 1,
        () if is("beta") || short("b") => 2,
        () if is("milestone") || short("m") => 3,
        () if is("rc") || is("cr") => 4,
        () if is("snapshot") => 5,
        () if is("ga") || is("final") || is("release") => RELEASE,
        () if is("sp") => 8,
        () => OTHER_WORD,
    }
}
