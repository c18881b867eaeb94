//! Red Hat's CSAF-VEX documents, one a CVE: single ones, the archive of all of them, and the lists
//! `changes.csv` and `deletions.csv` that say what changed since.

mod document;
mod platform;

use std::io::{BufRead, Read};

pub use super::csaf::{DocumentError, Parsed};
use super::{MAX_ARCHIVE, ParseError, Summary, compressed, tar, text};
use crate::Sink;

/// The advisories' source.
pub const SOURCE: &str = "redhat";

const MAX_LINES: usize = 4_000_000;

/// One document.
///
/// # Errors
/// If it is no CSAF document, or beyond the limits.
pub fn parse_document(bytes: &[u8]) -> Result<Parsed, DocumentError> {
    document::parse(bytes)
}

/// Gives a changed document to the sink: its advisory, or a retraction where nothing is left of it.
///
/// # Errors
/// If it is no CSAF document, or beyond the limits.
pub fn apply_document(bytes: &[u8], sink: &mut dyn Sink) -> Result<(), DocumentError> {
    document::parse(bytes)?.give(SOURCE, &mut Summary::default(), sink);
    Ok(())
}

/// The archive (`csaf_vex_DATE.tar.zst`) of all documents.
///
/// # Errors
/// If it is no tar archive, cut off, empty, or most documents are bad.
pub fn parse_archive(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let plain = compressed::open(input, MAX_ARCHIVE)?;
    tar::files(plain, &|path| path.ends_with(".json"), &mut |path, content| {
        match content.map(document::parse) {
            Ok(Ok(parsed)) => parsed.give(SOURCE, &mut summary, sink),
            Ok(Err(error)) => summary.skip(path, error),
            Err(why) => summary.skip(path, why),
        }
        Ok(())
    })?;
    summary.judge_full()
}

/// A line of `changes.csv` or `deletions.csv`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// `2023/cve-2023-0030.json`, below the folder of the list.
    pub path: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

impl Change {
    /// The id of the document: `CVE-2023-0030`.
    #[must_use]
    pub fn id(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.trim_end_matches(".json").to_ascii_uppercase()
    }
}

/// Those lines of `changes.csv` or `deletions.csv` that are of `since_ms` or later. The lists are
/// newest first, but not to the second, so all is read.
///
/// # Errors
/// If it cannot be read, or a line is not `"PATH","TIME"`.
pub fn read_changes(mut input: impl BufRead, since_ms: i64) -> Result<Vec<Change>, ParseError> {
    const FORMAT: &str = "changes.csv";
    let mut out = Vec::new();
    let mut line = Vec::new();
    for _ in 0..MAX_LINES {
        line.clear();
        if input.by_ref().take(1024).read_until(b'\n', &mut line)? == 0 {
            return Ok(out);
        }
        let text = std::str::from_utf8(&line).map_err(|error| ParseError::format(FORMAT, error))?;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let parsed = text.split_once(',').and_then(|(path, time)| {
            let path = path.trim_matches('"');
            let climbs = path.split('/').any(|part| part.is_empty() || part.starts_with('.'));
            let sound = text::is_name(path) && path.ends_with(".json") && !climbs;
            sound.then_some((path, text::time_ms(time.trim_matches('"'))?))
        });
        let Some((path, at_ms)) = parsed else {
            return Err(ParseError::format(FORMAT, format!("`{}`", text::cut(text, 80))));
        };
        if at_ms >= since_ms {
            out.push(Change { path: path.to_owned(), at_ms });
        }
    }
    Err(ParseError::TooMuch { what: "lines", limit: MAX_LINES as u64 })
}

/// `archive_latest.txt`: the name of the newest archive, a plain file name.
///
/// # Errors
/// If it is none.
pub fn read_archive_name(input: impl Read) -> Result<String, ParseError> {
    let mut name = String::new();
    input.take(1024).read_to_string(&mut name)?;
    let name = name.trim();
    let plain = !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && name.contains(".tar.") && text::is_name(name) {
        Ok(name.to_owned())
    } else {
        Err(ParseError::format("archive_latest.txt", format!("`{}`", text::cut(name, 80))))
    }
}

#[cfg(test)]
mod tests {
    use super::{read_archive_name, read_changes};

    #[test]
    fn lists_are_read_and_distrusted() {
        let list = "\"2023/cve-2023-0030.json\",\"2023-12-10T00:00:00+00:00\"\n\
                    \"2023/cve-2023-0044.json\",\"2023-12-12T00:00:00+00:00\"\n";
        let since = super::text::time_ms("2023-12-11").unwrap();
        let changes = read_changes(list.as_bytes(), since).unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].id(), "CVE-2023-0044");
        assert_eq!(read_changes(list.as_bytes(), 0).unwrap().len(), 2);
        for bad in ["\"../x.json\",\"2023-12-10\"", "\"/x.json\",\"2023-12-10\"", "<html>"] {
            assert!(read_changes(bad.as_bytes(), 0).is_err(), "{bad}");
        }
        assert_eq!(
            read_archive_name("csaf_vex_2023-10-31.tar.zst\n".as_bytes()).unwrap(),
            "csaf_vex_2023-10-31.tar.zst"
        );
        assert!(read_archive_name("../x.tar.zst".as_bytes()).is_err());
    }
}
