//! The door that every package ecosystem comes through.

use std::{borrow::Cow, io};

use kuboard_vuln::{FileRecord, Problem};

/// The most that an indexer reads of one file into memory at once, in bytes.
pub const MAX_READ: u64 = 64 << 20;

/// A regular file of a layer, before its content.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Path from the root, normalised, without a leading slash.
    pub path: &'a str,
    /// Bytes of its content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

impl Candidate<'_> {
    /// The last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// What an indexer wants of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Nothing.
    No,
    /// To read it as soon as it is there.
    Now,
    /// To read it if it begins with one of these byte strings (of at most 16 bytes).
    IfStarts(&'static [&'static [u8]]),
    /// To get it at the end of the layer, together with all others of this kind.
    AtEnd,
}

/// The bytes of a file: in memory if small, else in an unnamed temporary file.
pub trait Content {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `into` from `offset`; returns how many bytes there were, fewer only at the end.
    ///
    /// # Errors
    /// The temporary file can't be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// All bytes, if they are in memory.
    fn in_memory(&self) -> Option<&[u8]>;
}

/// What every [`Content`] can do.
pub trait ContentExt: Content {
    /// All bytes, read into memory if they are not there.
    ///
    /// # Errors
    /// There are more than `max` of them, or they can't be read.
    fn whole(&self, max: u64) -> io::Result<Cow<'_, [u8]>> {
        if let Some(bytes) = self.in_memory() {
            return Ok(Cow::Borrowed(bytes));
        }
        if self.size() > max {
            return Err(io::Error::other(format!("it has {} bytes, more than {max}", self.size())));
        }
        let mut bytes = vec![0; usize::try_from(self.size()).map_err(io::Error::other)?];
        let read = self.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(Cow::Owned(bytes))
    }
}

impl<C: Content + ?Sized> ContentExt for C {}

impl Content for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// A file of a layer with its content.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// Path from the root, normalised, without a leading slash.
    pub path: &'a str,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    pub content: &'a dyn Content,
}

/// What indexers found in a layer.
#[derive(Default, Debug)]
pub struct Found {
    /// One record a file that was read, also where nothing was in it.
    pub files: Vec<FileRecord>,
    /// What could not be read, or only in part.
    pub problems: Vec<Problem>,
}

impl Found {
    /// Notes that a file was not read, or only in part.
    pub fn problem(&mut self, by: &str, path: &str, why: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), by: by.to_owned(), why: why.into() });
    }
}

/// Finds packages of one kind. It is shared by threads and keeps no state; its results depend on
/// the files' bytes only.
pub trait Indexer: Send + Sync {
    /// Short and unique: `dpkg`, `go`. It is stored with what was found.
    fn name(&self) -> &'static str;

    /// Counts up when the same bytes may give another result.
    fn version(&self) -> u32;

    /// What it wants of a file. Called for every regular file: it must be cheap.
    fn wants(&self, candidate: &Candidate<'_>) -> Want;

    /// Reads one file that it wanted now, and adds a record for it (also if it holds nothing) or
    /// a problem.
    fn read(&self, file: &File<'_>, found: &mut Found);

    /// Reads all files that it wanted at the end, sorted by path. Called once a layer, if there
    /// are any.
    fn finish(&self, files: &[File<'_>], found: &mut Found) {
        let _ = (files, found);
    }
}
