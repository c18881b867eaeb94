//! npm's ranges: `^1.2 || ~2 >=3 <4`, `1 - 2`, `1.x`, with node-semver's default options.
//!
//! A range is alternatives joined by `||`; each is comparators that must all hold. Every short
//! form becomes at most two comparators with three numbers.

use super::{MAX_LEN, npm};
use std::cmp::Ordering;

/// A refusal: the text that is wrong, and why.
type Read<'a, T> = Result<T, (&'a str, &'static str)>;

/// The largest number node-semver takes: what a JavaScript number holds exactly.
const LARGEST: u64 = (1 << 53) - 1;

#[derive(Clone, Copy)]
struct Version<'a> {
    numbers: [u64; 3],
    pre: &'a str,
}

impl<'a> Version<'a> {
    fn new(numbers: [u64; 3], pre: &'a str) -> Self {
        Self { numbers, pre }
    }

    fn compare(&self, other: &Version<'_>) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (false, false) => compare_labels(self.pre, other.pre),
                (a, b) => a.cmp(&b),
            }
        })
    }
}

fn compare_labels(a: &str, b: &str) -> Ordering {
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) => match (numeric(x), numeric(y)) {
                (true, true) => super::digits::compare(x.as_bytes(), y.as_bytes()),
                (false, false) => x.cmp(y),
                (x, y) => y.cmp(&x),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy)]
struct Comparator<'a> {
    operator: Operator,
    bound: Version<'a>,
}

impl Comparator<'_> {
    fn holds(&self, version: &Version<'_>) -> bool {
        let order = version.compare(&self.bound);
        match self.operator {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A version of a range: numbers until the first `x` or the end.
#[derive(Clone, Copy)]
struct Partial<'a> {
    numbers: [Option<u64>; 3],
    pre: &'a str,
}

pub(super) fn satisfies<'a>(version: &'a str, range: &'a str) -> Read<'a, bool> {
    for text in [version, range] {
        if text.len() > MAX_LEN {
            return Err((text, "longer than 512 bytes"));
        }
    }
    let bare = npm::bare(version.trim_ascii());
    let exact = partial(bare, version)?;
    let [Some(major), Some(minor), Some(patch)] = exact.numbers else {
        return Err((version, "a version of a range has three numbers"));
    };
    let version = Version::new([major, minor, patch], exact.pre);
    let mut comparators = Vec::new();
    let (mut satisfied, mut any) = (false, false);
    for alternative in range.split("||") {
        comparators.clear();
        // All are read, so that a broken range is always an error.
        parse(alternative, range, &mut comparators)?;
        satisfied |= all_hold(&version, &comparators);
        any |= comparators.is_empty();
    }
    // Beside an alternative that means any version, node-semver drops the others.
    Ok(if any { version.pre.is_empty() } else { satisfied })
}

fn all_hold(version: &Version<'_>, comparators: &[Comparator<'_>]) -> bool {
    comparators.iter().all(|comparator| comparator.holds(version))
        && (version.pre.is_empty()
            || comparators.iter().any(|comparator| {
                !comparator.bound.pre.is_empty() && comparator.bound.numbers == version.numbers
            }))
}

fn parse<'a>(text: &'a str, range: &'a str, out: &mut Vec<Comparator<'a>>) -> Read<'a, ()> {
    let text = text.trim_ascii();
    if let Some((from, to)) = hyphenated(text) {
        return between(partial(from, range)?, partial(to, range)?, out);
    }
    let mut rest = text;
    while !rest.is_empty() {
        let (sign, after) = sign(rest);
        let after = npm::bare(after);
        let end = after.find(|c: char| c.is_ascii_whitespace()).unwrap_or(after.len());
        let (version, next) = after.split_at_checked(end).unwrap_or((after, ""));
        let version = partial(version, range)?;
        match sign {
            "^" => caret(version, out),
            "~" | "~>" => tilde(version, out),
            _ => primitive(sign, version, out),
        }
        rest = next.trim_ascii_start();
    }
    Ok(())
}

/// `1.2 - 3` as its two ends.
fn hyphenated(text: &str) -> Option<(&str, &str)> {
    let at = text.match_indices('-').map(|(at, _)| at).find(|at| {
        let bytes = text.as_bytes();
        let blank = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_whitespace)
        };
        blank(at.checked_sub(1)) && blank(at.checked_add(1))
    })?;
    let (from, to) = (text.get(..at)?.trim_ascii(), text.get(at + 1..)?.trim_ascii());
    let plain = |end: &str| !end.is_empty() && !end.contains(|c: char| c.is_ascii_whitespace());
    (plain(npm::bare(from)) && plain(npm::bare(to))).then_some((npm::bare(from), npm::bare(to)))
}

fn sign(text: &str) -> (&'static str, &str) {
    for sign in ["~>", "~", "^", ">=", "<=", ">", "<", "="] {
        if let Some(rest) = text.strip_prefix(sign) {
            return (sign, rest);
        }
    }
    ("", text)
}

/// Reads `1`, `1.x`, `1.2.3-rc.1+build`; nothing is any version.
fn partial<'a>(text: &'a str, whole: &'a str) -> Read<'a, Partial<'a>> {
    let mut read = Partial { numbers: [None; 3], pre: "" };
    if text.is_empty() {
        return Ok(read);
    }
    let text = match text.split_once('+') {
        None => text,
        Some((text, build)) if build.split('.').all(is_label) => text,
        Some(_) => return Err((whole, "the build metadata is not labels with dots")),
    };
    let (numbers, pre) = text.split_once('-').map_or((text, None), |(n, pre)| (n, Some(pre)));
    let mut open = false;
    let mut count = 0;
    for part in numbers.split('.') {
        let Some(slot) = read.numbers.get_mut(count) else {
            return Err((whole, "more than three numbers"));
        };
        count += 1;
        if matches!(part, "x" | "X" | "*") {
            open = true;
            continue;
        }
        let plain =
            part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        match part.parse::<u64>() {
            Ok(number) if plain && number <= LARGEST => {
                // What follows an `x` says nothing.
                *slot = (!open).then_some(number);
            }
            _ => return Err((whole, "a part is neither a number nor x")),
        }
    }
    if let Some(pre) = pre {
        let zeros = |label: &str| {
            label.len() > 1 && label.starts_with('0') && label.bytes().all(|b| b.is_ascii_digit())
        };
        if count < 3 || !pre.split('.').all(|label| is_label(label) && !zeros(label)) {
            return Err((whole, "a pre-release is not labels with dots behind three numbers"));
        }
        if !open {
            read.pre = pre;
        }
    }
    Ok(read)
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn add<'a>(out: &mut Vec<Comparator<'a>>, operator: Operator, numbers: [u64; 3], pre: &'a str) {
    if operator == Operator::GreaterOrEqual && numbers == [0; 3] && pre.is_empty() {
        // Says nothing; node-semver drops it, and reads `>=0.0.0` alone as any version.
        return;
    }
    out.push(Comparator { operator, bound: Version::new(numbers, pre) });
}

/// From `from` on, and below `to` with all its pre-releases.
fn span<'a>(out: &mut Vec<Comparator<'a>>, from: [u64; 3], pre: &'a str, to: [u64; 3]) {
    add(out, Operator::GreaterOrEqual, from, pre);
    add(out, Operator::Less, to, "0");
}

// Numbers stay below 2^53, so that adding 1 cannot overflow.
fn caret<'a>(version: Partial<'a>, out: &mut Vec<Comparator<'a>>) {
    match version.numbers {
        [None, ..] => {}
        [Some(major), None, _] => span(out, [major, 0, 0], "", [major + 1, 0, 0]),
        [Some(0), Some(minor), None] => span(out, [0, minor, 0], "", [0, minor + 1, 0]),
        [Some(major), Some(minor), None] => span(out, [major, minor, 0], "", [major + 1, 0, 0]),
        [Some(major), Some(minor), Some(patch)] => {
            let end = match (major, minor) {
                (0, 0) => [0, 0, patch + 1],
                (0, _) => [0, minor + 1, 0],
                _ => [major + 1, 0, 0],
            };
            span(out, [major, minor, patch], version.pre, end);
        }
    }
}

fn tilde<'a>(version: Partial<'a>, out: &mut Vec<Comparator<'a>>) {
    match version.numbers {
        [None, ..] => {}
        [Some(major), None, _] => span(out, [major, 0, 0], "", [major + 1, 0, 0]),
        [Some(major), Some(minor), patch] => {
            let from = [major, minor, patch.unwrap_or(0)];
            span(out, from, version.pre, [major, minor + 1, 0]);
        }
    }
}

fn primitive<'a>(sign: &str, version: Partial<'a>, out: &mut Vec<Comparator<'a>>) {
    let next = match version.numbers {
        [None, ..] => {
            if matches!(sign, "<" | ">") {
                // Nothing is beyond every version.
                add(out, Operator::Less, [0, 0, 0], "0");
            }
            return;
        }
        [Some(major), Some(minor), Some(patch)] => {
            let operator = match sign {
                "<" => Operator::Less,
                "<=" => Operator::LessOrEqual,
                ">" => Operator::Greater,
                ">=" => Operator::GreaterOrEqual,
                _ => Operator::Equal,
            };
            add(out, operator, [major, minor, patch], version.pre);
            return;
        }
        [Some(major), None, _] => [major + 1, 0, 0],
        [Some(major), Some(minor), None] => [major, minor + 1, 0],
    };
    let first = version.numbers.map(|number| number.unwrap_or(0));
    match sign {
        "<" => add(out, Operator::Less, first, "0"),
        "<=" => add(out, Operator::Less, next, "0"),
        ">" => add(out, Operator::GreaterOrEqual, next, ""),
        ">=" => add(out, Operator::GreaterOrEqual, first, ""),
        _ => span(out, first, "", next),
    }
}

fn between<'a>(from: Partial<'a>, to: Partial<'a>, out: &mut Vec<Comparator<'a>>) -> Read<'a, ()> {
    if from.numbers.first().is_some_and(Option::is_some) {
        let first = from.numbers.map(|number| number.unwrap_or(0));
        add(out, Operator::GreaterOrEqual, first, from.pre);
    }
    match to.numbers {
        [None, ..] => {}
        [Some(major), None, _] => add(out, Operator::Less, [major + 1, 0, 0], "0"),
        [Some(major), Some(minor), None] => add(out, Operator::Less, [major, minor + 1, 0], "0"),
        [Some(major), Some(minor), Some(patch)] => {
            add(out, Operator::LessOrEqual, [major, minor, patch], to.pre);
        }
    }
    Ok(())
}
