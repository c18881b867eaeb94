//! The files of a zip archive, by its central directory: stored and deflated entries, 64-bit
//! archives, checksums verified. Encrypted or otherwise packed entries are named, not read.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{MAX_ARCHIVE, MAX_ENTRIES, MAX_ITEM, ParseError};

/// The central directory is no larger than this.
const MAX_DIRECTORY: u64 = 256 << 20;
/// End record with the longest comment, and the locator of the 64-bit one.
const MAX_TAIL: u64 = 22 + 65_535 + 20;

/// Takes a file: its path and its content, or why there is none.
pub(super) type Take<'a> =
    dyn FnMut(&str, Result<&[u8], &'static str>) -> Result<(), ParseError> + 'a;

/// Calls `take` for each file that `wanted` names.
pub(super) fn files(
    mut input: impl Read + Seek,
    wanted: &dyn Fn(&str) -> bool,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    let end = End::find(&mut input)?;
    let mut directory = Vec::new();
    input.seek(SeekFrom::Start(end.offset))?;
    if input.by_ref().take(end.size).read_to_end(&mut directory)? as u64 != end.size {
        return Err(bad("the directory is cut off"));
    }
    let mut input = BufReader::with_capacity(32 << 10, input);
    let mut rest = directory.as_slice();
    let mut content = Vec::new();
    let mut inflated = 0_u64;
    for _ in 0..end.entries {
        let entry = Entry::read(&mut rest).ok_or_else(|| bad("an entry is cut off"))?;
        if entry.name.ends_with('/') || !wanted(&entry.name) {
            continue;
        }
        content.clear();
        let read = entry.content(&mut input, &mut content)?;
        inflated = inflated.saturating_add(content.len() as u64);
        if inflated > MAX_ARCHIVE {
            return Err(ParseError::TooMuch { what: "bytes", limit: MAX_ARCHIVE });
        }
        take(&entry.name, read.map(|()| content.as_slice()))?;
    }
    Ok(())
}

fn bad(why: &'static str) -> ParseError {
    ParseError::format("zip", why)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u64::from(u16::from_le_bytes(field)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u64::from(u32::from_le_bytes(field)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field: [u8; 8] = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    Some(u64::from_le_bytes(field))
}

/// Where the central directory is.
struct End {
    offset: u64,
    size: u64,
    entries: u64,
}

impl End {
    fn find(input: &mut (impl Read + Seek)) -> Result<Self, ParseError> {
        let length = input.seek(SeekFrom::End(0))?;
        let start = length.saturating_sub(MAX_TAIL);
        input.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        input.by_ref().take(MAX_TAIL).read_to_end(&mut tail)?;
        let at = memchr::memmem::rfind(&tail, b"PK\x05\x06")
            .ok_or_else(|| bad("it has no end record; it is cut off or no zip archive"))?;
        let mut end = Self::plain(&tail, at).ok_or_else(|| bad("the end record is cut off"))?;
        if end.entries == 0xffff || end.size == 0xffff_ffff || end.offset == 0xffff_ffff {
            end = Self::long(input, &tail, at)?.unwrap_or(end);
        }
        let fits = end.offset.checked_add(end.size).is_some_and(|last| last <= length);
        if !fits || end.size > MAX_DIRECTORY || end.entries > MAX_ENTRIES {
            return Err(bad("the end record is wrong"));
        }
        Ok(end)
    }

    fn plain(tail: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            entries: u16_at(tail, at.checked_add(10)?)?,
            size: u32_at(tail, at.checked_add(12)?)?,
            offset: u32_at(tail, at.checked_add(16)?)?,
        })
    }

    /// By the locator that stands right before the end record.
    fn long(
        input: &mut (impl Read + Seek),
        tail: &[u8],
        at: usize,
    ) -> Result<Option<Self>, ParseError> {
        let Some(locator) = at.checked_sub(20).and_then(|from| tail.get(from..at)) else {
            return Ok(None);
        };
        if !locator.starts_with(b"PK\x06\x07") {
            return Ok(None);
        }
        let offset = u64_at(locator, 8).ok_or_else(|| bad("the locator is cut off"))?;
        input.seek(SeekFrom::Start(offset))?;
        let mut record = [0_u8; 56];
        input.read_exact(&mut record)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(bad("the 64-bit end record is missing"));
        }
        let end = || {
            Some(Self {
                entries: u64_at(&record, 32)?,
                size: u64_at(&record, 40)?,
                offset: u64_at(&record, 48)?,
            })
        };
        Ok(end())
    }
}

/// One entry of the central directory.
struct Entry {
    name: String,
    flags: u64,
    method: u64,
    crc: u64,
    packed: u64,
    size: u64,
    offset: u64,
}

impl Entry {
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let bytes = *rest;
        if !bytes.starts_with(b"PK\x01\x02") {
            return None;
        }
        let name_size = usize::try_from(u16_at(bytes, 28)?).ok()?;
        let extra_size = usize::try_from(u16_at(bytes, 30)?).ok()?;
        let comment_size = usize::try_from(u16_at(bytes, 32)?).ok()?;
        let name = bytes.get(46..46 + name_size)?;
        let extra = bytes.get(46 + name_size..46 + name_size + extra_size)?;
        *rest = bytes.get(46 + name_size + extra_size + comment_size..)?;
        let mut entry = Self {
            name: String::from_utf8_lossy(name).into_owned(),
            flags: u16_at(bytes, 8)?,
            method: u16_at(bytes, 10)?,
            crc: u32_at(bytes, 16)?,
            packed: u32_at(bytes, 20)?,
            size: u32_at(bytes, 24)?,
            offset: u32_at(bytes, 42)?,
        };
        entry.widen(extra)?;
        Some(entry)
    }

    /// The 64-bit fields, of which only those are there that did not fit.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        while extra.len() >= 4 {
            let size = usize::try_from(u16_at(extra, 2)?).ok()?;
            let field = extra.get(4..4 + size)?;
            if u16_at(extra, 0)? == 1 {
                let mut at = 0;
                for value in [&mut self.size, &mut self.packed, &mut self.offset] {
                    if *value == 0xffff_ffff {
                        *value = u64_at(field, at)?;
                        at += 8;
                    }
                }
            }
            extra = extra.get(4 + size..)?;
        }
        Some(())
    }

    /// Reads the content; the inner error is one of this entry alone.
    fn content(
        &self,
        input: &mut BufReader<impl Read + Seek>,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), &'static str>, ParseError> {
        if self.size > MAX_ITEM {
            return Ok(Err("the file is too large"));
        }
        if self.flags & 1 != 0 {
            return Ok(Err("the file is encrypted"));
        }
        // Entries mostly follow one another: what is buffered stays of use.
        let here = input.stream_position()?;
        match i64::try_from(i128::from(self.offset) - i128::from(here)) {
            Ok(distance) => input.seek_relative(distance)?,
            Err(_) => return Err(bad("an entry points nowhere")),
        }
        let mut header = [0_u8; 30];
        input.read_exact(&mut header)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(bad("an entry points nowhere"));
        }
        let names = u16_at(&header, 26).zip(u16_at(&header, 28)).map_or(0, |(a, b)| a + b);
        input.seek_relative(i64::try_from(names).unwrap_or_default())?;
        let most = self.size.saturating_add(1);
        let packed = input.by_ref().take(self.packed);
        let read = match self.method {
            0 => packed.take(most).read_to_end(out),
            8 => flate2::bufread::DeflateDecoder::new(packed).take(most).read_to_end(out),
            _ => return Ok(Err("the file is packed in an unknown way")),
        };
        match read {
            Ok(size) if size as u64 == self.size => {}
            Ok(_) => return Ok(Err("the file has not the size that is stated")),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Err("the file does not inflate"));
            }
            Err(error) => return Err(error.into()),
        }
        let mut crc = flate2::Crc::new();
        crc.update(out);
        if u64::from(crc.sum()) != self.crc {
            return Ok(Err("the checksum of the file is wrong"));
        }
        Ok(Ok(()))
    }
}
