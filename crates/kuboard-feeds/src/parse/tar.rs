//! The regular files of a tar stream, one by one: ustar, GNU long names, pax paths and sizes.
//! Nothing is written anywhere, so links, devices and paths that climb are of no concern.

use std::io::{self, Read};

use super::{MAX_ENTRIES, MAX_ITEM, ParseError};

const BLOCK: usize = 512;
/// Long names and pax records are no longer than this.
const MAX_NAME_RECORD: u64 = 1 << 20;

/// Takes a file: its path and its content, or why there is none.
pub(super) type Take<'a> =
    dyn FnMut(&str, Result<&[u8], &'static str>) -> Result<(), ParseError> + 'a;

/// Calls `take` for each regular file that `wanted` names. An archive without its end is an error.
pub(super) fn files(
    mut input: impl Read,
    wanted: &dyn Fn(&str) -> bool,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    let mut header = [0_u8; BLOCK];
    let mut content = Vec::new();
    let mut next = Override::default();
    for _ in 0..MAX_ENTRIES {
        if !fill(&mut input, &mut header)? {
            return Err(cut_off().into());
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        check_sum(&header)?;
        let kind = header[156];
        let size = match (kind, next.size) {
            (b'x' | b'g' | b'L' | b'K', _) | (_, None) => number(&header[124..136])?,
            (_, Some(size)) => size,
        };
        match kind {
            b'L' | b'x' => {
                read_content(&mut input, size, MAX_NAME_RECORD, &mut content)?;
                next.learn(kind, &content);
            }
            b'0' | 0 | b'7' => {
                let path = next.path.take().unwrap_or_else(|| path_of(&header));
                next = Override::default();
                if !wanted(&path) {
                    skip(&mut input, padded(size)?)?;
                } else if size > MAX_ITEM {
                    skip(&mut input, padded(size)?)?;
                    take(&path, Err("the file is too large"))?;
                } else {
                    read_content(&mut input, size, MAX_ITEM, &mut content)?;
                    take(&path, Ok(&content))?;
                }
            }
            _ => {
                if !matches!(kind, b'K' | b'g') {
                    next = Override::default();
                }
                skip(&mut input, padded(size)?)?;
            }
        }
    }
    Err(ParseError::TooMuch { what: "entries", limit: MAX_ENTRIES })
}

/// What the entries before a file say of it.
#[derive(Default)]
struct Override {
    path: Option<String>,
    size: Option<u64>,
}

impl Override {
    fn learn(&mut self, kind: u8, content: &[u8]) {
        if kind == b'L' {
            let name = content.split(|byte| *byte == 0).next().unwrap_or_default();
            self.path = Some(String::from_utf8_lossy(name).into_owned());
            return;
        }
        // `LENGTH KEY=VALUE\n`, the length counts itself.
        let mut rest = content;
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length =
                std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok());
            let Some(length) = length.filter(|length: &usize| *length > space) else { return };
            let Some(record) = rest.get(space + 1..length) else { return };
            let record = record.strip_suffix(b"\n").unwrap_or(record);
            if let Some(path) = record.strip_prefix(b"path=") {
                self.path = Some(String::from_utf8_lossy(path).into_owned());
            } else if let Some(size) = record.strip_prefix(b"size=") {
                self.size = std::str::from_utf8(size).ok().and_then(|text| text.parse().ok());
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}

fn bad(why: &'static str) -> ParseError {
    ParseError::format("tar", why)
}

/// False at a clean end.
fn fill(input: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut at = 0;
    while at < BLOCK {
        match input.read(&mut block[at..]) {
            Ok(0) if at == 0 => return Ok(false),
            Ok(0) => return Err(cut_off()),
            Ok(size) => at += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn check_sum(header: &[u8; BLOCK]) -> Result<(), ParseError> {
    let stated = number(&header[148..156])?;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    if sum == stated { Ok(()) } else { Err(bad("the checksum of a header is wrong")) }
}

/// Octal text, or base 256 with the highest bit set.
fn number(field: &[u8]) -> Result<u64, ParseError> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return field.iter().enumerate().try_fold(0_u64, |sum, (at, byte)| {
            let byte = if at == 0 { byte & 0x7f } else { *byte };
            sum.checked_mul(256).map(|sum| sum | u64::from(byte)).ok_or(bad("a size is too large"))
        });
    }
    let text = std::str::from_utf8(field).map_err(|_| bad("a figure in a header is no figure"))?;
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| bad("a figure in a header is no figure"))
}

fn path_of(header: &[u8; BLOCK]) -> String {
    let text = |field: &[u8]| {
        let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(field).into_owned()
    };
    let name = text(&header[..100]);
    let prefix =
        if &header[257..262] == b"ustar" { text(&header[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

fn padded(size: u64) -> Result<u64, ParseError> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or(bad("a size is too large"))
}

fn read_content(
    input: &mut impl Read,
    size: u64,
    most: u64,
    content: &mut Vec<u8>,
) -> Result<(), ParseError> {
    if size > most {
        return Err(bad("a name is too long"));
    }
    content.clear();
    let whole = padded(size)?;
    if input.take(whole).read_to_end(content)? as u64 != whole {
        return Err(cut_off().into());
    }
    content.truncate(usize::try_from(size).map_err(|_| bad("a size is too large"))?);
    Ok(())
}

fn skip(input: &mut impl Read, size: u64) -> Result<(), ParseError> {
    if io::copy(&mut input.take(size), &mut io::sink())? == size {
        Ok(())
    } else {
        Err(cut_off().into())
    }
}
