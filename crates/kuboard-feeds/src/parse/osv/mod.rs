//! OSV (<https://ossf.github.io/osv-schema/>): documents, `all.zip` archives of an ecosystem, and
//! the `modified_id.csv` lists that say what changed.

mod document;
mod modified;
mod ranges;

use std::io::{Read, Seek};

use kuboard_vuln::Advisory;

pub use modified::{Modified, read_modified};

use super::{ParseError, Summary, zip};
use crate::Sink;

/// Which part of OSV a source takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feed<'a> {
    /// The advisories' source: `osv:npm`, `osv:go`, `ubuntu`.
    pub source: &'a str,
    /// Keep only packages of this OSV ecosystem (`npm`, `Go`, `AlmaLinux`; the part before a
    /// colon), since one advisory stands in the archives of all its ecosystems. `None` keeps all.
    pub ecosystem: Option<&'a str>,
}

/// Why a document is skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not an OSV document.
    #[error("not an OSV document: {0}")]
    Json(#[from] serde_json::Error),
    /// The id cannot be one.
    #[error("it has no usable id")]
    Id,
    /// A package without a usable name.
    #[error("a package has no usable name")]
    Name,
    /// A version that cannot be one.
    #[error("a version is unusable")]
    Version,
    /// Too many packages, versions or ranges.
    #[error("it lists too many packages, versions or ranges")]
    TooMany,
}

/// One document; `None` where it speaks of nothing that an image can hold. One that is withdrawn
/// is returned as such, so that it replaces what was there.
///
/// # Errors
/// If it is no OSV document, or beyond the limits.
pub fn parse_document(bytes: &[u8], feed: &Feed<'_>) -> Result<Option<Advisory>, DocumentError> {
    document::parse(bytes, feed)
}

/// Gives a changed document to the sink: its advisory, or a retraction where nothing is left of it.
///
/// # Errors
/// If it is no OSV document, or beyond the limits.
pub fn apply_document(
    bytes: &[u8],
    feed: &Feed<'_>,
    sink: &mut dyn Sink,
) -> Result<(), DocumentError> {
    match document::parse_any(bytes, feed)? {
        (_, Some(advisory)) => sink.advisory(advisory),
        (id, None) => sink.retract(feed.source, &id),
    }
    Ok(())
}

/// An `all.zip`: one document a file.
///
/// # Errors
/// If it is no zip archive, empty, or most documents are bad.
pub fn parse_zip(
    input: impl Read + Seek,
    feed: &Feed<'_>,
    sink: &mut dyn Sink,
) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    zip::files(input, &|path| path.ends_with(".json"), &mut |path, content| {
        take(path, content, feed, &mut summary, sink);
        Ok(())
    })?;
    summary.judge_full()
}

/// One file of an archive.
pub(super) fn take(
    path: &str,
    content: Result<&[u8], &'static str>,
    feed: &Feed<'_>,
    summary: &mut Summary,
    sink: &mut dyn Sink,
) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let content = match content {
        Ok(content) => content,
        Err(why) => return summary.skip(name, why),
    };
    match document::parse(content, feed) {
        Ok(Some(advisory)) => {
            summary.read(advisory.modified_ms);
            sink.advisory(advisory);
        }
        Ok(None) => summary.ignored += 1,
        Err(error) => summary.skip(name, error),
    }
}
