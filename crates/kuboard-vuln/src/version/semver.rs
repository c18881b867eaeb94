//! Semantic Versioning 2.0.0, as crates.io and OSV's `SEMVER` ranges use it.
//!
//! Strict in everything but two habits of real advisories: a `v` in front, and fewer or more than
//! three numbers (`0`, `1.2`, `1.1.3.4.5`; a missing one is 0).

use super::Read;
use super::triple::{self, Rules};

const RULES: Rules = Rules { numbers: usize::MAX, strict: true, fold: false };

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    triple::push(version.strip_prefix(['v', 'V']).unwrap_or(version), RULES, out)
}
