//! Layers: archives of files, read while their bytes arrive.
//!
//! An [`Unpacker`] is pushed the bytes of a layer's blob in pieces of any length, so that the
//! same code reads a stored blob and one that streams through on its way to someone else. It
//! finds out the compression, inflates into one small buffer that is used again and again, hashes
//! what comes out, walks the archive and tells a [`Visitor`] what stands in it. Nothing is
//! written, no name reaches the machine, no link is followed.
//!
//! Formats: gzip (RFC 1952, several members one after the other), Zstandard (RFC 8878, several
//! frames, skippable ones among them), tar in the forms of V7, POSIX.1-1988 (ustar), POSIX.1-2001
//! (pax), GNU and star; whiteouts of the OCI image specification. Where writers and readers
//! disagree, the choice is that of Go's `archive/tar`, which container runtimes unpack with.

mod compression;
mod gzip;
mod header;
mod name;
mod pax;
#[cfg(test)]
mod tests;
mod unpack;
mod walk;
mod zstandard;

use std::fmt;

pub use compression::{Compression, Unsupported};
pub use unpack::{Unpacker, unpack};

use crate::digest::Digest;

/// How much of a hostile layer is endured. What is beyond ends the walk with [`End::Limit`]; a
/// path that is too long costs only its own entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Bytes of one extended header, and of one long name.
    pub extended: u64,
    /// Bytes of the archive, uncompressed.
    pub inflated: u64,
    /// Bytes that come out for each byte that goes in, counted once more than `free` came out.
    /// Deflate reaches 1032, but only files of zeros reach half of that.
    pub ratio: u64,
    /// Bytes that may come out before `ratio` counts.
    pub free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            path: 4096,
            extended: 1 << 20,
            inflated: 64 << 30,
            ratio: 400,
            free: 1 << 30,
        }
    }
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// Another name of a file that stands before it in the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe, or something that only its writer knows: the type byte of its header.
    Other(u8),
}

/// An entry of the archive, before its content.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Path from the root, normalised: no leading slash, no empty, `.` or `..` part, never empty.
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    pub path: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Bytes of its content as stored in the archive; 0 if it is no file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Where a link points: normalised like `path` for a hard link, as written for a symbolic one.
    pub link: Option<&'a str>,
    /// A sparse file. Its content is a map with pieces, and is never passed on.
    pub sparse: bool,
}

/// Whether an entry's content is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// It is passed over.
    Skip,
    /// It is passed to [`Visitor::content`], then [`Visitor::end`] is called.
    Read,
}

/// Told of what stands in an archive, in its order.
pub trait Visitor {
    /// An entry. What it returns counts for regular files that are not sparse.
    fn entry(&mut self, entry: &Entry<'_>) -> Interest;

    /// The next piece of the content that was asked for; none is empty. The pieces of an entry
    /// add up to its size unless the archive breaks off, and then `end` isn't called.
    fn content(&mut self, piece: &[u8]);

    /// The content that was asked for is complete; also called where it is empty.
    fn end(&mut self);

    /// The layer removes a path (`.wh.NAME`), and all below it, from the layers underneath.
    fn whiteout(&mut self, path: &str);

    /// The layer hides what the layers underneath have in a folder (`.wh..wh..opq`); the path is
    /// empty for the root.
    fn opaque(&mut self, folder: &str);

    /// An entry that is passed over because of its name. `path` is what can be told of it, and
    /// `why` is a lower-case fact.
    fn problem(&mut self, path: &str, why: &str);
}

/// How the reading of a layer ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The whole archive was read.
    Complete,
    /// It breaks off.
    Truncated(String),
    /// It is damaged, or no archive, or in a form that isn't read.
    Broken(String),
    /// It is larger than it may be.
    Limit(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Complete => "complete",
            End::Truncated(why) | End::Broken(why) | End::Limit(why) => why,
        })
    }
}

/// What is known of a layer after its last byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// SHA-256 of the uncompressed archive, if it was read to its end.
    pub diff_id: Option<Digest>,
    /// Bytes of the uncompressed archive, as far as it was read.
    pub size: u64,
    /// Bytes of the blob that were pushed.
    pub compressed: u64,
    /// Entries of the archive, the ones passed over included.
    pub entries: u64,
    /// How it is compressed, unless that is not known or not supported.
    pub compression: Option<Compression>,
    /// How the reading ended.
    pub end: End,
}
