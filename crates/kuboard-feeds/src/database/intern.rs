//! An arena in which equal bytes are kept once; the arena is a section of the file as it is.

use std::hash::{BuildHasher, RandomState};

use kuboard_vuln::conditions::{put, take};

use super::DatabaseError;
use super::format::hash;

pub(super) struct Intern {
    arena: Vec<u8>,
    /// Offsets; 0 is a free slot, and the empty entry, which needs none.
    slots: Vec<u32>,
    used: usize,
    align: usize,
    salt: u64,
    what: &'static str,
}

impl Intern {
    /// Entries begin at multiples of `align`; `what` names them in the error.
    pub(super) fn new(what: &'static str, align: usize) -> Self {
        let mut arena = Vec::new();
        put(&mut arena, b"");
        Self {
            arena,
            slots: vec![0; 1 << 10],
            used: 0,
            align,
            salt: RandomState::new().hash_one(what),
            what,
        }
    }

    /// The offset of the entry with these bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<u32, DatabaseError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(self.salt, bytes) as usize & mask;
        loop {
            match self.slots.get(at).copied().unwrap_or(0) {
                0 => break,
                offset if self.get(offset) == bytes => return Ok(offset),
                _ => at = (at + 1) & mask,
            }
        }
        self.arena.resize(self.arena.len().next_multiple_of(self.align), 0);
        let offset = self.arena.len();
        // Room for the entry itself, so that an offset into it fits as well.
        if offset + bytes.len() + 8 > u32::MAX as usize {
            return Err(DatabaseError::TooLarge(self.what));
        }
        put(&mut self.arena, bytes);
        self.used += 1;
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = offset as u32;
        }
        Ok(offset as u32)
    }

    pub(super) fn get(&self, offset: u32) -> &[u8] {
        entry(&self.arena, offset).unwrap_or_default()
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 4];
        let mask = self.slots.len() - 1;
        for offset in old.into_iter().filter(|offset| *offset != 0) {
            let mut at = hash(self.salt, self.get(offset)) as usize & mask;
            while self.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = offset;
            }
        }
    }

    pub(super) fn arena(&self) -> &[u8] {
        &self.arena
    }
}

/// The entry at an offset of an arena.
pub(super) fn entry(arena: &[u8], offset: u32) -> Option<&[u8]> {
    take(arena.get(offset as usize..)?).map(|(entry, _)| entry)
}
