//! Zip archives by their central directory, read where it lies.
//!
//! Only entries that are asked for are kept, so that an archive of a million others costs no
//! memory. Archives may have anything before them (a script that starts them), be larger than
//! 4 GiB (zip64), and lie: sizes are checked against what is there, overlaps are refused.

use std::io::{self, Read};

use flate2::{CrcReader, read::DeflateDecoder};
use memchr::memmem;

use super::super::image::bytes;
use crate::Content;

/// The most entries of one archive.
const MAX_ENTRIES: u64 = 1_000_000;

/// The most entries of one archive that are kept.
const MAX_WANTED: usize = 50_000;

/// How much of the directory is in memory. An entry is at most a fifth of it.
const WINDOW: u64 = 1 << 20;

/// Longest end of an archive: its record and a comment.
const MAX_END: u64 = 22 + 65_535;

const STORED: u64 = 0;
const DEFLATED: u64 = 8;

/// Deflate can't do better than 1032:1; nothing that anyone packs comes near.
const MAX_RATIO: u64 = 250;

/// Smaller entries may have any ratio.
const RATIO_FROM: u64 = 1 << 20;

/// A file in an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Bytes when inflated, as the directory has it.
    pub(super) size: u64,
    method: u64,
    encrypted: bool,
    crc: u64,
    compressed: u64,
    header: u64,
}

/// The wanted entries of an archive, by their place in it.
#[derive(Default)]
pub(super) struct Archive {
    pub(super) entries: Vec<Entry>,
    /// What of the directory could not be used.
    pub(super) problems: Vec<String>,
}

/// A part of a file.
pub(super) struct Part<'a> {
    inner: &'a dyn Content,
    start: u64,
    size: u64,
}

impl Content for Part<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = rest.min(into.len());
        match into.get_mut(..length) {
            Some(into) if !into.is_empty() => self.inner.read_at(self.start + offset, into),
            _ => Ok(0),
        }
    }

    fn in_memory(&self) -> Option<&[u8]> {
        let start = usize::try_from(self.start).ok()?;
        let end = start.checked_add(usize::try_from(self.size).ok()?)?;
        self.inner.in_memory()?.get(start..end)
    }
}

/// Reads a content from its start.
struct Forward<'a> {
    content: &'a dyn Content,
    at: u64,
}

impl Read for Forward<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read_at(self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// Where the directory is.
struct Directory {
    start: u64,
    size: u64,
    entries: u64,
    /// Bytes before the archive that its offsets do not count.
    shift: u64,
}

impl Directory {
    fn of(content: &dyn Content) -> Option<Self> {
        let total = content.size();
        let tail_at = total.saturating_sub(MAX_END);
        let tail = bytes(content, tail_at, MAX_END);
        // A comment may hold the signature as well; the true one's comment ends with the file.
        let ends = memmem::rfind_iter(&tail, b"PK\x05\x06").take(64);
        let mut loose = None;
        for end in ends {
            let Some(record) = tail.get(end..) else { continue };
            let Some(comment) = number(record, 20, 2) else { continue };
            let rest = record.len() as u64 - 22;
            if comment <= rest
                && let Some(found) = Self::at(content, tail_at + end as u64, record)
            {
                if comment == rest {
                    return Some(found);
                }
                loose = loose.or(Some(found));
            }
        }
        loose
    }

    fn at(content: &dyn Content, end: u64, record: &[u8]) -> Option<Self> {
        let mut entries = number(record, 10, 2)?;
        let (mut size, mut offset) = (number(record, 12, 4)?, number(record, 16, 4)?);
        let mut end = end;
        if entries == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff {
            // Without the wider record, the narrow numbers are what they are.
            if let Some((at, wide)) = Self::wide(content, end) {
                entries = number(&wide, 32, 8)?;
                (size, offset) = (number(&wide, 40, 8)?, number(&wide, 48, 8)?);
                end = at;
            }
        }
        let before = end.checked_sub(size)?;
        let begins = |at: u64| size == 0 || bytes(content, at, 4) == b"PK\x01\x02";
        let (start, shift) = if before >= offset && begins(before) {
            (before, before - offset)
        } else if begins(offset) {
            (offset, 0)
        } else {
            return None;
        };
        Some(Self { start, size, entries, shift })
    }

    fn wide(content: &dyn Content, end: u64) -> Option<(u64, Vec<u8>)> {
        let locator = bytes(content, end.checked_sub(20)?, 20);
        if !locator.starts_with(b"PK\x06\x07") {
            return None;
        }
        [end.checked_sub(76)?, number(&locator, 8, 8)?].into_iter().find_map(|at| {
            let record = bytes(content, at, 56);
            (record.len() == 56 && record.starts_with(b"PK\x06\x06")).then_some((at, record))
        })
    }
}

impl Archive {
    /// Reads the directory; keeps what is wanted.
    pub(super) fn open(
        content: &dyn Content,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, &'static str> {
        let directory = Directory::of(content).ok_or("it is not a zip archive, or cut off")?;
        let mut archive = Self::default();
        let end = directory.start.saturating_add(directory.size);
        let (mut at, mut count) = (directory.start, 0_u64);
        'windows: while at < end {
            let window = bytes(content, at, WINDOW.min(end - at));
            let mut rest = window.as_slice();
            while let Some((entry, length)) = entry(rest, directory.shift, &wanted) {
                count += 1;
                if count > MAX_ENTRIES || archive.entries.len() == MAX_WANTED {
                    archive.problems.push("it has too many entries".to_owned());
                    break 'windows;
                }
                archive.entries.extend(entry);
                rest = rest.get(length..).unwrap_or_default();
            }
            let used = (window.len() - rest.len()) as u64;
            if used == 0 {
                break;
            }
            at += used;
        }
        // Writers without zip64 count modulo 65,536.
        if count <= MAX_ENTRIES && (at < end || count & 0xffff != directory.entries & 0xffff) {
            archive.problems.push("its directory is damaged".to_owned());
        }
        archive.entries.sort_by_key(|entry| entry.header);
        archive.refuse_overlaps();
        Ok(archive)
    }

    /// An archive whose files share bytes inflates to more than it can hold.
    fn refuse_overlaps(&mut self) {
        let mut end = 0;
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let apart = entry.header >= end;
            if apart {
                end = entry.header.saturating_add(30).saturating_add(entry.compressed);
            }
            apart
        });
        if self.entries.len() < before {
            self.problems.push("its entries overlap".to_owned());
        }
    }
}

/// An entry of the directory, if it is wanted, and its length there.
fn entry(
    bytes: &[u8],
    shift: u64,
    wanted: impl Fn(&str) -> bool,
) -> Option<(Option<Entry>, usize)> {
    if !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let length = |at| number(bytes, at, 2).and_then(|length| usize::try_from(length).ok());
    let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let total = 46 + name + extra + comment;
    let name_and_extra = bytes.get(46..total)?;
    let (name, extra) = (name_and_extra.get(..name)?, name_and_extra.get(name..name + extra)?);
    let name = String::from_utf8_lossy(name);
    if !wanted(&name) {
        return Some((None, total));
    }
    let mut entry = Entry {
        name: name.into_owned(),
        method: number(bytes, 10, 2)?,
        encrypted: number(bytes, 8, 2)? & 1 != 0,
        crc: number(bytes, 16, 4)?,
        compressed: number(bytes, 20, 4)?,
        size: number(bytes, 24, 4)?,
        header: number(bytes, 42, 4)?,
    };
    widen(&mut entry, extra);
    entry.header = entry.header.saturating_add(shift);
    Some((Some(entry), total))
}

/// Numbers of 64 bits, for those that say they did not fit.
fn widen(entry: &mut Entry, mut extra: &[u8]) {
    while let (Some(kind), Some(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let end = 4 + usize::try_from(length).unwrap_or(usize::MAX - 4);
        let Some(field) = extra.get(4..end) else { return };
        if kind == 1 {
            let mut at = 0;
            for narrow in [&mut entry.size, &mut entry.compressed, &mut entry.header] {
                if *narrow == 0xffff_ffff {
                    let Some(wide) = number(field, at, 8) else { return };
                    *narrow = wide;
                    at += 8;
                }
            }
            return;
        }
        extra = extra.get(end..).unwrap_or_default();
    }
}

impl Entry {
    /// Its bytes as they lie in the archive, and whether they are compressed.
    pub(super) fn part<'a>(&self, of: &'a dyn Content) -> Result<(Part<'a>, bool), &'static str> {
        if self.encrypted {
            return Err("it is encrypted");
        }
        let deflated = match self.method {
            STORED => false,
            DEFLATED => true,
            _ => return Err("its compression is not known"),
        };
        let header = bytes(of, self.header, 30);
        let start = header
            .starts_with(b"PK\x03\x04")
            .then(|| Some(number(&header, 26, 2)? + number(&header, 28, 2)?))
            .flatten()
            .and_then(|names| self.header.checked_add(30 + names))
            .ok_or("its header is not where the directory says")?;
        match start.checked_add(self.compressed) {
            Some(end) if end <= of.size() => {}
            _ => return Err("it ends behind the archive"),
        }
        if !deflated && self.size != self.compressed {
            return Err("its sizes contradict each other");
        }
        if self.size > RATIO_FROM && self.size / MAX_RATIO > self.compressed {
            return Err("it is compressed too much to be true");
        }
        Ok((Part { inner: of, start, size: self.compressed }, deflated))
    }

    /// Writes its inflated bytes, which are at most [`Entry::size`].
    pub(super) fn inflate(&self, part: &Part<'_>, into: &mut dyn io::Write) -> Result<(), String> {
        let inflated = DeflateDecoder::new(Forward { content: part, at: 0 });
        self.copy(inflated, into)
    }

    /// Writes its bytes, which are not compressed.
    pub(super) fn copy_stored(
        &self,
        part: &Part<'_>,
        into: &mut dyn io::Write,
    ) -> Result<(), String> {
        self.copy(Forward { content: part, at: 0 }, into)
    }

    fn copy(&self, from: impl Read, into: &mut dyn io::Write) -> Result<(), String> {
        let mut checked = CrcReader::new(from.take(self.size + 1));
        let written = io::copy(&mut checked, into)
            .map_err(|error| format!("it can't be inflated: {error}"))?;
        if written != self.size {
            return Err("its size is not what the directory says".to_owned());
        }
        if u64::from(checked.crc().sum()) != self.crc {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(())
    }
}
