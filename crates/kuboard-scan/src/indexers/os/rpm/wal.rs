//! SQLite's write-ahead log: pages that are newer than the database's, in frames. What counts are
//! the frames up to the last commit, as far as their salts and running checksums hold; the rest
//! was never committed, or is left from before the last checkpoint.
//! <https://www.sqlite.org/fileformat2.html#walformat>

use rustc_hash::FxHashMap;

use super::{
    Damage,
    number::{be32, index, le32},
    read_exactly,
};
use crate::Content;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The lowest bit of the magic number says which order the checksums are computed in.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

pub(super) struct Log<'a> {
    content: &'a dyn Content,
    page_size: usize,
    /// Where the newest committed content of a page is.
    pages: FxHashMap<u32, u64>,
}

impl<'a> Log<'a> {
    /// Reads a log; nothing if no transaction of it was committed.
    pub(super) fn open(content: &'a dyn Content) -> Result<Option<Self>, Damage> {
        let mut start = [0; HEADER];
        read_exactly(content, 0, &mut start)?;
        let magic = be32(&start, 0).unwrap_or_default();
        if magic & !1 != MAGIC || be32(&start, 4) != Some(VERSION) {
            return Err(Damage::Broken("it is no log of a known version"));
        }
        let page_size = index(be32(&start, 8).unwrap_or_default());
        if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
            return Err(Damage::Broken("its pages have an impossible size"));
        }
        let mut sum = Sum { read: if magic & 1 == 1 { be32 } else { le32 }, value: (0, 0) };
        sum.add(&start[..24]);
        if !sum.is_at(&start, 24) {
            return Err(Damage::Broken("its checksum is wrong"));
        }
        let mut log = Self { content, page_size, pages: FxHashMap::default() };
        log.frames(&start[16..24], sum)?;
        Ok((!log.pages.is_empty()).then_some(log))
    }

    fn frames(&mut self, salts: &[u8], mut sum: Sum) -> Result<(), Damage> {
        let mut frame = vec![0; FRAME_HEADER + self.page_size];
        let mut uncommitted = Vec::new();
        let mut offset = HEADER as u64;
        while self.content.read_at(offset, &mut frame)? == frame.len() {
            let (start, page) = frame.split_at(FRAME_HEADER);
            sum.add(&start[..8]);
            sum.add(page);
            if start[8..16] != *salts || !sum.is_at(start, 16) {
                break;
            }
            uncommitted.push((be32(start, 0).unwrap_or_default(), offset + FRAME_HEADER as u64));
            if be32(start, 4) != Some(0) {
                self.pages.extend(uncommitted.drain(..));
            }
            offset += frame.len() as u64;
        }
        Ok(())
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// Whether it has a page.
    pub(super) fn has(&self, page: u32) -> bool {
        self.pages.contains_key(&page)
    }

    /// Reads a page that it has.
    pub(super) fn read(&self, page: u32, into: &mut [u8]) -> Result<(), Damage> {
        let offset = self.pages.get(&page).ok_or(Damage::Short)?;
        read_exactly(self.content, *offset, into)
    }
}

/// The running checksum.
struct Sum {
    read: fn(&[u8], usize) -> Option<u32>,
    value: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let first = (self.read)(pair, 0).unwrap_or_default();
            let second = (self.read)(pair, 4).unwrap_or_default();
            self.value.0 = self.value.0.wrapping_add(first).wrapping_add(self.value.1);
            self.value.1 = self.value.1.wrapping_add(second).wrapping_add(self.value.0);
        }
    }

    fn is_at(&self, bytes: &[u8], at: usize) -> bool {
        be32(bytes, at) == Some(self.value.0) && be32(bytes, at + 4) == Some(self.value.1)
    }
}
