//! A database of SQLite, as far as rpm's needs it: the b-tree of the table `Packages`, whose rows
//! are a number and a header. Pages are read one by one, each at most once, from the log where it
//! has a newer one.
//! <https://www.sqlite.org/fileformat2.html>

use rustc_hash::FxHashSet;

use super::{
    Damage, MAX_HEADER, header,
    number::{be16, be32},
    read_exactly,
    wal::Log,
};
use crate::{Content, indexers::os::draft::Draft};

pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";
const FILE_HEADER: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
const UTF_8: u32 = 1;
/// Columns of a row that are looked at.
const COLUMNS: usize = 5;
/// Bytes of a statement in the schema.
const MAX_STATEMENT: usize = 1 << 20;

struct Database<'a> {
    content: &'a dyn Content,
    log: Option<Log<'a>>,
    page_size: usize,
    /// Bytes of a page without those at its end that are reserved for extensions.
    usable: usize,
    /// Pages that were read or are going to be.
    claimed: FxHashSet<u32>,
}

pub(super) fn read(
    content: &dyn Content,
    log: Option<Log<'_>>,
    draft: &mut Draft,
) -> Result<(), Damage> {
    if content.size() == 0 && log.is_none() {
        return Ok(());
    }
    let mut database = Database::open(content, log)?;
    let mut root = None;
    database.walk(1, MAX_STATEMENT, draft, &mut |row, _| {
        let columns = columns(row);
        let is_it = matches!(
            columns[..],
            [Some(Value::Bytes(b"table")), Some(Value::Bytes(b"Packages")), ..]
        );
        if let (true, Some(Some(Value::Integer(page)))) = (is_it, columns.get(3)) {
            root = u32::try_from(*page).ok();
        }
    });
    let root = root.ok_or(Damage::Broken("it has no table of packages"))?;
    database.walk(root, MAX_HEADER, draft, &mut |row, draft| {
        let blob = columns(row).into_iter().flatten().find_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Integer(_) => None,
        });
        match blob {
            Some(blob) => header::add(blob, draft),
            None => draft.partly("a row has no header"),
        }
    });
    Ok(())
}

/// What a row is handed to.
type Each<'a> = &'a mut dyn FnMut(&[u8], &mut Draft);

impl<'a> Database<'a> {
    fn open(content: &'a dyn Content, log: Option<Log<'a>>) -> Result<Self, Damage> {
        let mut start = vec![0; FILE_HEADER];
        match &log {
            Some(log) if log.has(1) => log.read(1, &mut start)?,
            _ => read_exactly(content, 0, &mut start)?,
        }
        if !start.starts_with(MAGIC) {
            return Err(Damage::Broken("it is no database of SQLite"));
        }
        // 65536 does not fit into the field.
        let page_size = match be16(&start, 16).unwrap_or_default() {
            1 => 65536,
            size => usize::from(size),
        };
        if !page_size.is_power_of_two() || page_size < 512 {
            return Err(Damage::Broken("its pages have an impossible size"));
        }
        if log.as_ref().is_some_and(|log| log.page_size() != page_size) {
            return Err(Damage::Broken("its log has pages of another size"));
        }
        if start[18] > 2 || start[19] > 2 {
            return Err(Damage::Unsupported("this version of SQLite's format"));
        }
        if be32(&start, 56).unwrap_or_default() > UTF_8 {
            return Err(Damage::Unsupported("a database with text in UTF-16"));
        }
        let usable = page_size - usize::from(start[20]);
        if usable < 480 {
            return Err(Damage::Broken("its pages have an impossible size"));
        }
        Ok(Self { content, log, page_size, usable, claimed: FxHashSet::default() })
    }

    /// Reserves a page: each belongs to one place of one tree.
    fn claim(&mut self, page: u32) -> Result<(), Damage> {
        let offset = u64::from(page) * self.page_size as u64;
        let is_there = page > 0
            && (offset <= self.content.size()
                || self.log.as_ref().is_some_and(|log| log.has(page)));
        if !is_there {
            return Err(Damage::Broken("a page is missing"));
        }
        if self.claimed.insert(page) { Ok(()) } else { Err(Damage::Broken("a page is used twice")) }
    }

    fn load(&self, page: u32) -> Result<Vec<u8>, Damage> {
        let mut bytes = vec![0; self.page_size];
        match &self.log {
            Some(log) if log.has(page) => log.read(page, &mut bytes)?,
            _ => {
                let offset = u64::from(page.saturating_sub(1)) * self.page_size as u64;
                read_exactly(self.content, offset, &mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Hands out the rows of a table in their order. What is broken is left out.
    fn walk(&mut self, root: u32, max: usize, draft: &mut Draft, each: Each<'_>) {
        let mut pages = match self.claim(root) {
            Ok(()) => vec![root],
            Err(damage) => return draft.partly(damage.to_string()),
        };
        while let Some(number) = pages.pop() {
            if draft.is_full() {
                return;
            }
            let read = self.load(number).and_then(|page| {
                let at = if number == 1 { FILE_HEADER } else { 0 };
                match page.get(at) {
                    Some(&INTERIOR) => self.children(&page, at, &mut pages, draft),
                    Some(&LEAF) => self.rows(&page, at, max, draft, each),
                    _ => Err(Damage::Broken("a page is not of a table")),
                }
            });
            if let Err(damage) = read {
                draft.partly(damage.to_string());
            }
        }
    }

    /// Puts the children of a page on the stack, the first on top.
    fn children(
        &mut self,
        page: &[u8],
        at: usize,
        pages: &mut Vec<u32>,
        draft: &mut Draft,
    ) -> Result<(), Damage> {
        let below = pages.len();
        let cells = cells(page, at, 12)?;
        let children = cells.map(|cell| be32(page, cell)).chain([be32(page, at + 8)]);
        for child in children {
            match child.ok_or(Damage::Broken("a page is broken")).and_then(|child| {
                self.claim(child)?;
                Ok(child)
            }) {
                Ok(child) => pages.push(child),
                Err(damage) => draft.partly(damage.to_string()),
            }
        }
        if let Some(new) = pages.get_mut(below..) {
            new.reverse();
        }
        Ok(())
    }

    fn rows(
        &mut self,
        page: &[u8],
        at: usize,
        max: usize,
        draft: &mut Draft,
        each: Each<'_>,
    ) -> Result<(), Damage> {
        let mut taken = 0;
        for cell in cells(page, at, 8)? {
            match self.row(page, cell, max, &mut taken) {
                Ok(row) => each(&row, draft),
                Err(damage) => draft.partly(damage.to_string()),
            }
            // Cells that overlap would let a small file say the same many times over.
            if taken > page.len() {
                return Err(Damage::Broken("the rows of a page overlap"));
            }
        }
        Ok(())
    }

    /// One row: what the cell has of it, and the rest from overflow pages.
    fn row(
        &mut self,
        page: &[u8],
        cell: usize,
        max: usize,
        taken: &mut usize,
    ) -> Result<Vec<u8>, Damage> {
        const BROKEN: Damage = Damage::Broken("a row is broken");
        let (length, after) = variable(page, cell).ok_or(BROKEN)?;
        let (_, start) = variable(page, after).ok_or(BROKEN)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= max);
        let length = length.ok_or(Damage::Broken("a row has an impossible size"))?;
        let local = self.local(length);
        *taken += local + (start - cell);
        let mut row = page.get(start..start + local).ok_or(BROKEN)?.to_vec();
        let mut next = be32(page, start + local);
        while row.len() < length {
            let number = next.filter(|page| *page > 0).ok_or(BROKEN)?;
            self.claim(number)?;
            let overflow = self.load(number)?;
            let here = (length - row.len()).min(self.usable - 4);
            row.extend_from_slice(overflow.get(4..4 + here).ok_or(BROKEN)?);
            next = be32(&overflow, 0);
        }
        Ok(row)
    }

    /// How many bytes of a row are in its cell.
    fn local(&self, length: usize) -> usize {
        let most = self.usable - 35;
        if length <= most {
            return length;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fit = least + (length - least) % (self.usable - 4);
        if fit <= most { fit } else { least }
    }
}

/// The offsets of a page's cells.
fn cells(page: &[u8], at: usize, header: usize) -> Result<impl Iterator<Item = usize>, Damage> {
    let count = usize::from(be16(page, at + 3).unwrap_or_default());
    let pointers = page.get(at + header..at + header + count * 2);
    let pointers = pointers.ok_or(Damage::Broken("a page is broken"))?;
    Ok(pointers.chunks_exact(2).map(|cell| usize::from(be16(cell, 0).unwrap_or_default())))
}

enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
}

/// The first columns of a row; nothing for `NULL`, for numbers that are no integers, and from
/// where it is broken.
fn columns(row: &[u8]) -> Vec<Option<Value<'_>>> {
    let mut columns = Vec::with_capacity(COLUMNS);
    let Some((length, mut kind_at)) = variable(row, 0) else { return columns };
    let Ok(mut at) = usize::try_from(length) else { return columns };
    let kinds_end = at;
    while kind_at < kinds_end && columns.len() < COLUMNS {
        let Some((kind, after)) = variable(row, kind_at) else { break };
        kind_at = after;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            _ => kind.saturating_sub(12) / 2,
        };
        let Some(end) = usize::try_from(size).ok().and_then(|size| at.checked_add(size)) else {
            break;
        };
        let Some(bytes) = row.get(at..end) else { break };
        at = end;
        columns.push(match kind {
            8 | 9 => Some(Value::Integer(i64::from(kind == 9))),
            1..=6 => Some(Value::Integer(integer(bytes))),
            12.. => Some(Value::Bytes(bytes)),
            _ => None,
        });
    }
    columns
}

/// A signed big-endian number of up to 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| (value << 8) | i64::from(*byte))
}

/// A number of variable length, and where it ends: seven bits a byte, eight of the ninth.
fn variable(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (count, byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if count == 8 {
            return Some(((value << 8) | u64::from(*byte), at + 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + count + 1));
        }
    }
    None
}
