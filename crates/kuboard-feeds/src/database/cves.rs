//! What raters say of CVEs: a table in the order of (year, number), 24 bytes an entry: key `u64`
//! (year << 40 | number), EPSS probability `u32` (all ones: none) and percentile `u32`, list of
//! scores `u32` (offset in the conditions), day of KEV `u32` (offset in the strings).

use kuboard_vuln::Epss;

use super::format::{u32_at, u64_at};

pub(super) const CVE: usize = 24;
const NO_EPSS: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) epss: Option<Epss>,
    pub(super) scores: u32,
    pub(super) known_exploited: u32,
}

/// `CVE-2024-1234`; `None` for other ids.
pub(super) fn key(cve: &str) -> Option<u64> {
    let (year, number) = cve.strip_prefix("CVE-")?.split_once('-')?;
    let is_digits = |text: &str, max| {
        (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_digits(year, 4) || !is_digits(number, 12) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    (number < 1 << 40).then_some(year.parse::<u64>().ok()? << 40 | number)
}

pub(super) fn to_bytes(key: u64, record: &Record) -> [u8; CVE] {
    let mut out = [0; CVE];
    let (probability, percentile) =
        record.epss.map_or((NO_EPSS, NO_EPSS), |epss| (epss.probability, epss.percentile));
    let words = [
        key as u32,
        (key >> 32) as u32,
        probability,
        percentile,
        record.scores,
        record.known_exploited,
    ];
    for (to, word) in out.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The entry at a position of the table.
pub(super) fn at(table: &[u8], position: usize) -> Option<(u64, Record)> {
    let at = position.checked_mul(CVE)?;
    let key = u64_at(table, at)?;
    let probability = u32_at(table, at + 8)?;
    let epss = Epss { probability, percentile: u32_at(table, at + 12)? };
    let record = Record {
        epss: (probability != NO_EPSS).then_some(epss),
        scores: u32_at(table, at + 16)?,
        known_exploited: u32_at(table, at + 20)?,
    };
    Some((key, record))
}

pub(super) fn find(table: &[u8], cve: &str) -> Option<Record> {
    let wanted = key(cve)?;
    let (mut low, mut high) = (0, table.len() / CVE);
    while low < high {
        let middle = low + (high - low) / 2;
        if u64_at(table, middle * CVE)? < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    at(table, low).filter(|(found, _)| *found == wanted).map(|(_, record)| record)
}
