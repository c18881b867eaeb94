//! Ubuntu's `osv-all.tar.xz`: OSV documents, one a CVE (`osv/cve/…`) and one a notice
//! (`osv/usn/…`).
//!
//! A notice only repeats, for the CVEs that it names, what their documents say of the release, so
//! it is read only where it names none.

use std::io::Read;

use super::osv::{self, Feed};
use super::{MAX_ARCHIVE, ParseError, Summary, compressed, tar};
use crate::Sink;

const FEED: Feed<'static> = Feed { source: "ubuntu", ecosystem: Some("Ubuntu") };

/// The whole archive.
///
/// # Errors
/// If it is no tar archive, cut off, empty, or most documents are bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let plain = compressed::open(input, MAX_ARCHIVE)?;
    tar::files(plain, &|path| path.ends_with(".json"), &mut |path, content| {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !(name.starts_with("USN-") || name.starts_with("LSN-")) {
            osv::take(path, content, &FEED, &mut summary, sink);
            return Ok(());
        }
        match content.map(|content| osv::parse_document(content, &FEED)) {
            Ok(Ok(Some(notice))) if notice.upstream.is_empty() => {
                summary.read(notice.modified_ms);
                sink.advisory(notice);
            }
            Ok(Ok(_)) => summary.ignored += 1,
            Ok(Err(error)) => summary.skip(name, error),
            Err(why) => summary.skip(name, why),
        }
        Ok(())
    })?;
    summary.judge_full()
}
