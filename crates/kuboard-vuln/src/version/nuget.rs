//! NuGet's order: one to four numbers, labels compared without case, build metadata ignored.

use super::Read;
use super::triple::{self, Rules};

const RULES: Rules = Rules { numbers: 4, strict: false, fold: true };

pub(super) fn sort_key(version: &str, out: &mut Vec<u8>) -> Read<()> {
    triple::push(version, RULES, out)
}
