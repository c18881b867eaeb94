//! The file: a header of 1024 bytes, then sections.
//!
//! ```text
//! 0    magic "KBADVDB\n"
//! 8    u32 format version     12  u32 number of sections     16  u64 length of the file
//! 24   sections, 56 bytes each: u32 kind, u32 zero, u64 offset, u64 length, sha256
//! ...  sha256 of everything before it: the checksum of the database
//! ```
//!
//! All numbers are little endian. The checksum covers the sha256 of each section, hence the whole
//! file, and is verified when the file is opened, without reading the sections.

use std::ops::Range;

use kuboard_oci::{Algorithm, Hasher};

use super::DatabaseError;

pub(super) const MAGIC: [u8; 8] = *b"KBADVDB\n";
/// The newest format that is known here.
pub(super) const VERSION: u32 = 1;
/// Where the first section begins.
pub(super) const HEADER: usize = 1024;
const ENTRY: usize = 56;
const SHA256: usize = 32;

/// Sections, in the order of their kinds' numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    /// JSON, see `meta.rs`.
    Meta = 1,
    /// Texts, each with its length before it; the first is empty.
    Strings = 2,
    /// Version keys, likewise.
    Keys = 3,
    /// Conditions and lists of scores, likewise, each at a multiple of 4.
    Conditions = 4,
    /// Packages by (namespace, name): strings `u32`, `u32`, first row `u32`, rows `u32`.
    Packages = 5,
    /// Hash table of the packages: upper half of the hash `u32`, number + 1 `u32`.
    Slots = 6,
    /// Rows, see `rows.rs`.
    Rows = 7,
    /// Advisories by (source, id): id `u32`, source `u16`, zero `u16`, hash of content `u64`.
    Advisories = 8,
    /// Table of the blocks of heads, see `blocks.rs`.
    HeadTable = 9,
    /// Blocks of heads: advisories without `affected`.
    Heads = 10,
    /// Table of the blocks of bodies.
    BodyTable = 11,
    /// Blocks of bodies: `affected`.
    Bodies = 12,
    /// zstd dictionary of the heads.
    HeadDictionary = 13,
    /// zstd dictionary of the bodies.
    BodyDictionary = 14,
    /// CVEs in order, see `cves.rs`.
    Cves = 15,
    /// Ids and aliases: hash `u32`, advisory `u32`, in order.
    Ids = 16,
    /// zstd of JSON: what differs from the generation before.
    Changes = 17,
}

pub(super) const SECTIONS: usize = 17;

/// Where the sections are, and their sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    at: [(Range<usize>, [u8; SHA256]); SECTIONS],
}

impl Sections {
    pub(super) fn set(&mut self, section: Section, range: Range<usize>, sum: [u8; SHA256]) {
        if let Some(slot) = self.at.get_mut(section as usize - 1) {
            *slot = (range, sum);
        }
    }

    pub(super) fn of<'a>(&self, file: &'a [u8], section: Section) -> &'a [u8] {
        self.at.get(section as usize - 1).and_then(|(at, _)| file.get(at.clone())).unwrap_or(&[])
    }

    /// Whether a section's bytes are those that were written.
    pub(super) fn is_whole(&self, file: &[u8], section: Section) -> bool {
        self.at.get(section as usize - 1).is_some_and(|(at, sum)| {
            file.get(at.clone()).is_some_and(|bytes| sha256(bytes) == *sum)
        })
    }

    /// Whether all are.
    pub(super) fn are_whole(&self, file: &[u8]) -> bool {
        self.at
            .iter()
            .all(|(at, sum)| file.get(at.clone()).is_some_and(|bytes| sha256(bytes) == *sum))
    }

    /// The header and its checksum.
    pub(super) fn header(&self, file_len: u64) -> (Vec<u8>, [u8; SHA256]) {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(SECTIONS as u32).to_le_bytes());
        out.extend_from_slice(&file_len.to_le_bytes());
        for (kind, (at, sum)) in (1_u32..).zip(&self.at) {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&0_u32.to_le_bytes());
            out.extend_from_slice(&(at.start as u64).to_le_bytes());
            out.extend_from_slice(&(at.len() as u64).to_le_bytes());
            out.extend_from_slice(sum);
        }
        let sum = sha256(&out);
        out.extend_from_slice(&sum);
        out.resize(HEADER, 0);
        (out, sum)
    }

    /// Reads and verifies a header; gives the checksum too.
    pub(super) fn read(file: &[u8]) -> Result<(Self, [u8; SHA256]), DatabaseError> {
        if file.get(..8) != Some(&MAGIC[..]) {
            return Err(DatabaseError::NotADatabase);
        }
        let version = u32_at(file, 8).ok_or(DatabaseError::NotADatabase)?;
        if version > VERSION {
            return Err(DatabaseError::Newer { found: version });
        }
        let end = 24 + SECTIONS * ENTRY;
        let cut = || DatabaseError::Damaged("the file is cut short");
        let signed = file.get(..end).ok_or_else(cut)?;
        let sum: [u8; SHA256] = array_at(file, end).ok_or_else(cut)?;
        if sha256(signed) != sum || u32_at(file, 12) != Some(SECTIONS as u32) {
            return Err(DatabaseError::Damaged("the header's checksum does not fit"));
        }
        if u64_at(file, 16) != Some(file.len() as u64) {
            return Err(cut());
        }
        let mut sections = Self::default();
        for (index, slot) in sections.at.iter_mut().enumerate() {
            let at = 24 + index * ENTRY;
            let range = || {
                let start = usize::try_from(u64_at(file, at + 8)?).ok()?;
                let end = start.checked_add(usize::try_from(u64_at(file, at + 16)?).ok()?)?;
                (end <= file.len()).then_some(start..end)
            };
            let range = range().ok_or(DatabaseError::Damaged("a section lies outside"))?;
            *slot = (range, array_at(file, at + 24).ok_or_else(cut)?);
        }
        Ok((sections, sum))
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; SHA256] {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    sum_of(hasher)
}

pub(super) fn sum_of(hasher: Hasher) -> [u8; SHA256] {
    let digest = hasher.finish();
    let mut sum = [0; SHA256];
    for (to, from) in sum.iter_mut().zip(digest.bytes()) {
        *to = *from;
    }
    sum
}

pub(super) fn hex(sum: &[u8]) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// A hash that is the same in every process. The salt makes collisions hard to prepare.
pub(super) fn hash(salt: u64, bytes: &[u8]) -> u64 {
    let mut state = salt ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        state = mixed(state ^ array_at(chunk, 0).map_or(0, u64::from_le_bytes));
    }
    let mut last = [0_u8; 8];
    for (to, from) in last.iter_mut().zip(chunks.remainder()) {
        *to = *from;
    }
    mixed(mixed(state ^ u64::from_le_bytes(last)))
}

fn mixed(value: u64) -> u64 {
    let product =
        u128::from(value ^ 0xa076_1d64_78bd_642f).wrapping_mul(0xe703_7ed1_a0b4_28db_u128);
    (product as u64) ^ ((product >> 64) as u64)
}
