//! The hash of Berkeley DB that rpm kept its headers in before 4.16, in either byte order. Page 0
//! describes the file. Pages of the hash hold pairs of a package's number and its header; what
//! does not fit into a page is in a chain of overflow pages. The pages are read in the file's
//! order, as all of them that are of the hash are in use.

use rustc_hash::FxHashSet;

use super::{
    Damage, MAX_HEADER, header,
    number::{be16, be32, index, le16, le32},
    read_exactly,
};
use crate::{Content, indexers::os::draft::Draft};

const MAGIC_AT: usize = 12;
const HASH_MAGIC: u32 = 0x0006_1561;
const BTREE_MAGIC: u32 = 0x0005_3162;
/// Bytes that begin every page but the first: log position (8), number, previous and next page (4
/// each), entries and offset of free space (2 each), level and kind (1 each).
const PAGE_HEADER: usize = 26;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// Kinds of what is in a page.
const ON_PAGE: u8 = 1;
const OFF_PAGE: u8 = 3;
const CHECKSUMMED: u8 = 1;

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<usize> {
        let read = if matches!(self, Order::Little) { le16 } else { be16 };
        read(bytes, at).map(usize::from)
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let read = if matches!(self, Order::Little) { le32 } else { be32 };
        read(bytes, at)
    }
}

struct Database<'a> {
    content: &'a dyn Content,
    order: Order,
    page_size: usize,
    /// Overflow pages that were read: each belongs to one package.
    used: FxHashSet<u32>,
    /// The last of them. There may be more packages than pages, so none gets a buffer of its own.
    page: Vec<u8>,
}

pub(super) fn read(content: &dyn Content, draft: &mut Draft) -> Result<(), Damage> {
    let mut meta = [0; 96];
    read_exactly(content, 0, &mut meta)?;
    let order = match (le32(&meta, MAGIC_AT), be32(&meta, MAGIC_AT)) {
        (Some(HASH_MAGIC), _) => Order::Little,
        (_, Some(HASH_MAGIC)) => Order::Big,
        (Some(BTREE_MAGIC), _) | (_, Some(BTREE_MAGIC)) => {
            return Err(Damage::Unsupported("a tree of Berkeley DB"));
        }
        _ => return Err(Damage::Broken("it is no database of a known format")),
    };
    let [encrypted, _, flags] = [meta[24], meta[25], meta[26]];
    if encrypted != 0 || flags & CHECKSUMMED != 0 {
        return Err(Damage::Unsupported("an encrypted or checksummed database"));
    }
    let page_size = index(order.u32(&meta, 20).unwrap_or_default());
    if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
        return Err(Damage::Broken("its pages have an impossible size"));
    }
    let last = order.u32(&meta, 32).unwrap_or_default();
    let page = vec![0; page_size];
    Database { content, order, page_size, used: FxHashSet::default(), page }.scan(last, draft)
}

impl Database<'_> {
    fn offset(&self, page: u32) -> u64 {
        u64::from(page) * self.page_size as u64
    }

    fn scan(&mut self, last: u32, draft: &mut Draft) -> Result<(), Damage> {
        let whole = self.content.size() / self.page_size as u64;
        if u64::from(last) >= whole {
            draft.partly(Damage::Short.to_string());
        }
        let end = u32::try_from(whole).unwrap_or(u32::MAX).min(last.saturating_add(1));
        let mut start = [0; PAGE_HEADER];
        for number in 1..end {
            if draft.is_full() {
                break;
            }
            read_exactly(self.content, self.offset(number), &mut start)?;
            if matches!(start[25], HASH | HASH_UNSORTED) {
                let mut page = vec![0; self.page_size];
                read_exactly(self.content, self.offset(number), &mut page)?;
                self.pairs(&page, draft);
            }
        }
        Ok(())
    }

    /// The pairs of a page of the hash. Their offsets fall: each item ends where the one before
    /// it begins.
    fn pairs(&mut self, page: &[u8], draft: &mut Draft) {
        let entries = self.order.u16(page, 20).unwrap_or_default();
        let first_free = PAGE_HEADER + entries * 2;
        let mut end = page.len();
        let mut key: &[u8] = &[];
        for number in 0..entries {
            let offset = self.order.u16(page, PAGE_HEADER + number * 2).unwrap_or_default();
            let Some(item) =
                page.get(offset..end).filter(|item| offset >= first_free && !item.is_empty())
            else {
                return draft.partly("a page of the hash is broken");
            };
            end = offset;
            if number % 2 == 0 {
                key = item;
                continue;
            }
            match self.value(item) {
                // The package numbered 0 is none: it holds the next number.
                Ok(value) if value.len() == 4 && key.ends_with(&[0; 4]) => {}
                Ok(value) => header::add(&value, draft),
                Err(damage) => draft.partly(damage.to_string()),
            }
        }
    }

    fn value(&mut self, item: &[u8]) -> Result<Vec<u8>, Damage> {
        match item.first() {
            Some(&ON_PAGE) => Ok(item.get(1..).unwrap_or_default().to_vec()),
            Some(&OFF_PAGE) => {
                let numbers = (self.order.u32(item, 4), self.order.u32(item, 8));
                let (Some(page), Some(length)) = numbers else {
                    return Err(Damage::Broken("a reference to a package is broken"));
                };
                self.chain(page, index(length))
            }
            _ => Err(Damage::Unsupported("a pair with more than one value")),
        }
    }

    /// The data of a chain of overflow pages.
    fn chain(&mut self, first: u32, length: usize) -> Result<Vec<u8>, Damage> {
        if length > MAX_HEADER {
            return Err(Damage::Broken("a package has an impossible size"));
        }
        let mut data = Vec::new();
        let mut next = first;
        while data.len() < length {
            if next == 0 || !self.used.insert(next) {
                return Err(Damage::Broken("a chain of pages has no end, or ends early"));
            }
            let offset = self.offset(next);
            read_exactly(self.content, offset, &mut self.page)?;
            let page = &self.page;
            let here = self.order.u16(page, 22).unwrap_or_default();
            let bytes = page.get(PAGE_HEADER..PAGE_HEADER + here);
            let Some(bytes) = bytes.filter(|bytes| page[25] == OVERFLOW && !bytes.is_empty())
            else {
                return Err(Damage::Broken("a chain of pages leaves them"));
            };
            data.extend_from_slice(bytes);
            next = self.order.u32(page, 16).unwrap_or_default();
        }
        data.truncate(length);
        Ok(data)
    }
}
