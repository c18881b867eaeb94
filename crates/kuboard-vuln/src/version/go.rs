//! Go's orders in one: module versions (`v1.2.3-rc.1`, pseudo-versions, `+incompatible`) and the
//! releases of Go itself (`go1.22.3`, `1.22rc1`), which advisories write as `1.22.0-rc.1`.

use super::triple::{self, Rules};
use super::{Read, digits};

const RULES: Rules = Rules { numbers: 3, strict: true, fold: false };

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    if let Some(release) = version.strip_prefix("go") {
        // `go1.22.3 X:boringcrypto`, `go1.19.8 (Red Hat 1.19.8-1.el9)`, `go1.21.3-custom`.
        let end = release.find([' ', '\t', '-', '+']).unwrap_or(release.len());
        let release = release.get(..end).unwrap_or(release);
        return toolchain(release, out);
    }
    let version = version.strip_prefix('v').unwrap_or(version);
    if is_toolchain(version) {
        return toolchain(version, out);
    }
    let (numbers, labels) = triple::split(version)?;
    if numbers.bytes().filter(|b| *b == b'.').count() < 2 && numbers != version {
        return Err("labels need three numbers before them");
    }
    triple::push_numbers(numbers, RULES, out)?;
    triple::push_labels(labels, RULES, out)
}

/// Whether a letter follows the numbers at once, as in `1.22rc1`.
fn is_toolchain(version: &str) -> bool {
    let end = version.bytes().position(|b| b != b'.' && !b.is_ascii_digit());
    end.and_then(|end| version.as_bytes().get(end)).is_some_and(u8::is_ascii_lowercase)
}

/// `1.22.3`, `1.22rc1` (below 1.22.0), `1.18.7b7` (a build of 1.18.7 with BoringCrypto).
fn toolchain(release: &str, out: &mut Vec<u8>) -> Read<()> {
    let end = release.bytes().position(|b| b != b'.' && !b.is_ascii_digit());
    let (numbers, tail) =
        release.split_at_checked(end.unwrap_or(release.len())).unwrap_or_default();
    triple::push_numbers(numbers, RULES, out)?;
    if tail.is_empty() {
        return triple::push_labels(None, RULES, out);
    }
    let letters = tail.bytes().position(|b| b.is_ascii_digit()).unwrap_or(tail.len());
    let (word, number) = tail.split_at_checked(letters).unwrap_or_default();
    if number.is_empty() || !digits::split(number.as_bytes()).1.is_empty() {
        return Err("not a release of Go");
    }
    match word {
        "b" => triple::push_labels(None, RULES, out),
        "alpha" | "beta" | "rc" => {
            triple::push_labels(Some(word), RULES, out)?;
            // The end of the list moves behind the number.
            out.pop();
            triple::push_labels(Some(number), RULES, out)
        }
        _ => Err("not a release of Go"),
    }
}
