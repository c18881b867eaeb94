//! Documents in compressed blocks: small enough to be read for one document, large enough to
//! compress well, all with one dictionary of typical documents.
//!
//! A table entry has 24 bytes: number of the first document `u32`, compressed length `u32`, offset
//! `u64`, length `u32`, zero `u32`. A block's documents stand one after another, each with its
//! length before it.

use std::io;
use std::sync::Arc;

use kuboard_vuln::conditions::{put, take};
use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};

use super::format::{u32_at, u64_at};

const ENTRY: usize = 24;
/// The longest block, hence the longest document.
pub(super) const MAX_BLOCK: usize = 64 << 20;
/// More brings little and costs every hourly build.
const LEVEL: i32 = 9;
const CACHED: usize = 64;

/// Writes blocks.
pub(super) struct BlockWriter {
    compressor: Compressor<'static>,
    size: usize,
    block: Vec<u8>,
    first: u32,
    next: u32,
    written: u64,
    table: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn new(dictionary: &[u8], size: usize) -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::with_dictionary(LEVEL, dictionary)?,
            size,
            block: Vec::with_capacity(size * 2),
            first: 0,
            next: 0,
            written: 0,
            table: Vec::new(),
        })
    }

    /// Adds the next document; gives a block when one is full.
    pub(super) fn add(&mut self, document: &[u8]) -> io::Result<Option<Vec<u8>>> {
        put(&mut self.block, document);
        self.next += 1;
        if self.block.len() >= self.size { self.flush().map(Some) } else { Ok(None) }
    }

    fn flush(&mut self) -> io::Result<Vec<u8>> {
        let packed = self.compressor.compress(&self.block)?;
        self.table.extend_from_slice(&self.first.to_le_bytes());
        self.table.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        self.table.extend_from_slice(&self.written.to_le_bytes());
        self.table.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        self.table.extend_from_slice(&0_u32.to_le_bytes());
        self.written += packed.len() as u64;
        self.first = self.next;
        self.block.clear();
        Ok(packed)
    }

    /// The last block, and the table.
    pub(super) fn finish(mut self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let last = if self.block.is_empty() { Vec::new() } else { self.flush()? };
        Ok((last, self.table))
    }
}

type Slot = Mutex<Option<(usize, Arc<Vec<u8>>)>>;

/// Reads blocks; the ones read last are kept, at most one for each place of the cache.
pub(super) struct BlockReader {
    cache: Box<[Slot]>,
    idle: Mutex<Vec<Decompressor<'static>>>,
}

/// Parts of the file that a reader needs.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) table: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) dictionary: &'a [u8],
}

impl BlockReader {
    pub(super) fn new() -> Self {
        let cache = (0..CACHED).map(|_| Mutex::new(None)).collect();
        Self { cache, idle: Mutex::new(Vec::new()) }
    }

    /// Document number `index`.
    pub(super) fn read(&self, blocks: Blocks<'_>, index: u32) -> Result<Vec<u8>, &'static str> {
        let (number, first) = find(blocks.table, index).ok_or("no block has the document")?;
        let block = self.block(blocks, number)?;
        let mut rest = block.as_slice();
        for _ in first..index {
            rest = take(rest).ok_or("a block is cut short")?.1;
        }
        take(rest).map(|(document, _)| document.to_vec()).ok_or("a block is cut short")
    }

    fn block(&self, blocks: Blocks<'_>, number: usize) -> Result<Arc<Vec<u8>>, &'static str> {
        let slot = self.cache.get(number % CACHED).ok_or("no cache")?;
        if let Some((found, block)) = &*slot.lock()
            && *found == number
        {
            return Ok(block.clone());
        }
        let block = Arc::new(self.unpacked(blocks, number)?);
        // Giant blocks are rare; they are not worth holding on to.
        if block.len() <= 1 << 20 {
            *slot.lock() = Some((number, block.clone()));
        }
        Ok(block)
    }

    fn unpacked(&self, blocks: Blocks<'_>, number: usize) -> Result<Vec<u8>, &'static str> {
        let at = number * ENTRY;
        let packed = || {
            let start = usize::try_from(u64_at(blocks.table, at + 8)?).ok()?;
            let len = u32_at(blocks.table, at + 4)? as usize;
            blocks.data.get(start..start.checked_add(len)?)
        };
        let packed = packed().ok_or("a block lies outside")?;
        let len = u32_at(blocks.table, at + 16).unwrap_or_default() as usize;
        if len > MAX_BLOCK + 16 {
            return Err("a block is too long");
        }
        let idle = self.idle.lock().pop();
        let mut decompressor = match idle {
            Some(ready) => ready,
            None => Decompressor::with_dictionary(blocks.dictionary)
                .map_err(|_| "the dictionary cannot be used")?,
        };
        let block = decompressor.decompress(packed, len).map_err(|_| "a block cannot be unpacked");
        self.idle.lock().push(decompressor);
        block.and_then(|block| if block.len() == len { Ok(block) } else { Err("a block is short") })
    }
}

/// The block that holds a document, and the number of its first one.
fn find(table: &[u8], index: u32) -> Option<(usize, u32)> {
    let first_of = |number: usize| u32_at(table, number * ENTRY);
    let (mut low, mut high) = (0, table.len() / ENTRY);
    while low < high {
        let middle = low + (high - low) / 2;
        if first_of(middle)? <= index {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let number = low.checked_sub(1)?;
    let first = first_of(number)?;
    (first <= index).then_some((number, first))
}

/// Walks over all documents in order, each block unpacked once.
pub(super) struct Cursor<'a> {
    reader: &'a BlockReader,
    blocks: Blocks<'a>,
    number: usize,
    block: Vec<u8>,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(reader: &'a BlockReader, blocks: Blocks<'a>) -> Self {
        Self { reader, blocks, number: 0, block: Vec::new(), at: 0 }
    }

    /// The next document; an error if there is none.
    pub(super) fn next(&mut self) -> Result<Vec<u8>, &'static str> {
        if self.at >= self.block.len() {
            self.block = self.reader.unpacked(self.blocks, self.number)?;
            self.number += 1;
            self.at = 0;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let (document, after) = take(rest).ok_or("a block is cut short")?;
        self.at = self.block.len() - after.len();
        Ok(document.to_vec())
    }
}
