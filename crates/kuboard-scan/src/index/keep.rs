//! Contents of files, held until indexers have read them.
//!
//! One temporary file without a name takes all contents of a layer that are too large for memory,
//! one after the other; the place of one that is not needed any more is used again. It is read
//! with `pread` and not mapped, so that it doesn't count as this process's memory.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::Content;

/// A content.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// A range of the temporary file.
    Spilled { file: Arc<File>, offset: u64, size: u64 },
}

impl Content for Body {
    fn size(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Spilled { size, .. } => *size,
        }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (file, start, size) = match self {
            Body::Memory(bytes) => return bytes.as_slice().read_at(offset, into),
            Body::Spilled { file, offset, size } => (file, *offset, *size),
        };
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(into.len());
        let into = into.get_mut(..length).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        file.read_exact_at(into, start.saturating_add(offset))?;
        Ok(length)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Body::Memory(bytes) => Some(bytes),
            Body::Spilled { .. } => None,
        }
    }
}

/// The temporary file, made when it is first needed.
#[derive(Debug)]
pub(super) struct Spill {
    folder: PathBuf,
    max: u64,
    file: Option<Arc<File>>,
    /// Where the next byte goes.
    end: u64,
}

impl Spill {
    pub(super) fn new(folder: &Path, max: u64) -> Self {
        Self { folder: folder.to_owned(), max, file: None, end: 0 }
    }

    /// Whether a content of this size fits.
    pub(super) fn has_room(&self, size: u64) -> bool {
        self.end.checked_add(size).is_some_and(|end| end <= self.max)
    }

    /// Where the next content begins.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes the next piece of the content that is last.
    pub(super) fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(tempfile::tempfile_in(&self.folder)?)),
        };
        file.write_all_at(piece, self.end)?;
        self.end = self.end.saturating_add(piece.len() as u64);
        Ok(())
    }

    /// The content that began at `offset` and is last.
    pub(super) fn body(&self, offset: u64) -> Option<Body> {
        let size = self.end.checked_sub(offset)?;
        self.file.clone().map(|file| Body::Spilled { file, offset, size })
    }

    /// Gives up the contents from `offset` on.
    pub(super) fn release(&mut self, offset: u64) {
        self.end = self.end.min(offset);
    }
}
