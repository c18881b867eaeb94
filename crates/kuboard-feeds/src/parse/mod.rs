//! Parsers, one a feed format: bytes in, values into a [`Sink`](crate::Sink), a [`Summary`] out.
//!
//! Every parser streams: what it holds at one time is one advisory, or, where a feed spreads one
//! vulnerability over many places (Debian, secdb, Photon, Azure Linux), compact rows of it
//! ([`merge`]). Everything is bounded: inflated bytes, the size of one item, counts inside it.
//!
//! A bad item is skipped and counted. A bad feed (not the format, cut off, more than half of its
//! items bad) is a [`ParseError`]: then what the sink has taken is to be thrown away, so that a
//! broken download never replaces a good database.

pub mod amazon;
pub mod azure;
pub mod compressed;
mod csaf;
mod cursor;
pub mod debian;
pub mod eol;
pub mod epss;
mod json;
pub mod kev;
mod merge;
pub mod nvd;
pub mod oracle;
pub mod osv;
mod oval;
pub mod photon;
mod purl;
pub mod redhat;
pub mod secdb;
pub mod suse;
mod tar;
mod text;
pub mod ubuntu;
mod zip;

#[cfg(test)]
mod tests;

use std::io;

use thiserror::Error;

/// At most so many skipped items are named in a [`Summary`].
pub const MAX_NAMED_SKIPS: usize = 1000;
/// At most so many bytes of one item (a document of an archive, a value of a list).
pub const MAX_ITEM: u64 = 64 << 20;
/// At most so many bytes of one feed, inflated.
pub const MAX_FEED: u64 = 8 << 30;
/// At most so many bytes of an archive of documents, inflated.
pub const MAX_ARCHIVE: u64 = 64 << 30;
/// At most so many affected packages in one advisory.
pub const MAX_AFFECTED: usize = 100_000;
/// At most so many versions or ranges of one affected package.
pub const MAX_VERSIONS: usize = 100_000;
/// At most so many entries of an archive.
pub const MAX_ENTRIES: u64 = 4_000_000;

/// A whole feed is of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes could not be read, or are cut off, or do not inflate.
    #[error("could not read the feed: {0}; hint: it may be cut off, fetch it again")]
    Read(#[from] io::Error),
    /// It is not what it should be.
    #[error("not a feed of the format {format}: {why}; hint: check the address of the source")]
    Format {
        /// The expected format.
        format: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A limit is reached.
    #[error("the feed exceeds the limit of {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// More than half of the items are bad.
    #[error(
        "{bad} of {all} items are bad, the first one is {id}: {why}; hint: the format may have changed"
    )]
    MostlyBad {
        /// Bad items.
        bad: u64,
        /// All items.
        all: u64,
        /// Id of the first bad one.
        id: String,
        /// Why it is bad.
        why: String,
    },
    /// There is nothing in it, where there always is something.
    #[error("the feed is empty; hint: the source may be broken, the last good data is kept")]
    Empty,
}

impl ParseError {
    pub(crate) fn format(format: &'static str, why: impl ToString) -> Self {
        Self::Format { format, why: why.to_string() }
    }
}

/// What came of one feed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Advisories (or scores, days, …) given to the sink.
    pub advisories: u64,
    /// Items that could not be read, id and reason; at most [`MAX_NAMED_SKIPS`] of them.
    pub skipped: Vec<(String, String)>,
    /// How many were skipped, named or not.
    pub skipped_count: u64,
    /// Well-formed entries that speak of nothing an image can hold, or nothing that can be
    /// matched: an ecosystem without a namespace, container images, ranges of commits.
    pub ignored: u64,
    /// The newest time of modification seen, milliseconds since 1970.
    pub newest_modified_ms: Option<i64>,
}

impl Summary {
    /// An item is bad.
    pub(crate) fn skip(&mut self, id: &str, why: impl ToString) {
        self.skipped_count += 1;
        if self.skipped.len() < MAX_NAMED_SKIPS {
            let why = text::cut(&why.to_string(), 256);
            self.skipped.push((text::cut(id, 128), why));
        }
    }

    /// An advisory is read, modified then.
    pub(crate) fn read(&mut self, modified_ms: Option<i64>) {
        self.advisories += 1;
        self.newest_modified_ms = self.newest_modified_ms.max(modified_ms);
    }

    /// Fails if more is bad than good.
    pub(crate) fn judge(self) -> Result<Self, ParseError> {
        let all = self.advisories.saturating_add(self.ignored).saturating_add(self.skipped_count);
        if self.skipped_count.saturating_mul(2) > all {
            let (id, why) = self.skipped.into_iter().next().unwrap_or_default();
            return Err(ParseError::MostlyBad { bad: self.skipped_count, all, id, why });
        }
        Ok(self)
    }

    /// [`judge`](Self::judge), and fails if there was nothing at all.
    pub(crate) fn judge_full(self) -> Result<Self, ParseError> {
        if self.advisories == 0 && self.ignored == 0 && self.skipped_count == 0 {
            return Err(ParseError::Empty);
        }
        self.judge()
    }
}
