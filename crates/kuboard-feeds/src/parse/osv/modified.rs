//! `modified_id.csv`: `TIME,ID` a line, newest first; the list of all ecosystems has `ECOSYSTEM/ID`.

use std::io::BufRead;

use crate::parse::{ParseError, text};

/// A changed document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Modified {
    /// When, milliseconds since 1970.
    pub modified_ms: i64,
    /// Its id, or `ECOSYSTEM/ID` in the list of all ecosystems.
    pub id: String,
}

const FORMAT: &str = "modified_id.csv";
const MAX_LINE: u64 = 512;
const MAX_LINES: usize = 4_000_000;

/// The documents that changed at `since_ms` or later, newest first. Reading ends there, so the
/// rest of the list need not be fetched. Those of `since_ms` itself are named again, for two may
/// have changed at one time.
///
/// # Errors
/// If it cannot be read or a line is not as described.
pub fn read_modified(mut input: impl BufRead, since_ms: i64) -> Result<Vec<Modified>, ParseError> {
    let mut out = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let size = std::io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line)?;
        if size == 0 {
            return Ok(out);
        }
        if line.last() != Some(&b'\n') && size as u64 == MAX_LINE {
            return Err(ParseError::format(FORMAT, "a line is too long"));
        }
        let text = std::str::from_utf8(&line).map_err(|error| ParseError::format(FORMAT, error))?;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let parsed = text.split_once(',').and_then(|(time, id)| {
            let id = id.trim().trim_matches('"');
            let sound =
                text::is_name(id) && !id.split('/').any(|part| part == ".." || part.is_empty());
            sound.then_some((text::time_ms(time.trim_matches('"'))?, id))
        });
        let Some((modified_ms, id)) = parsed else {
            return Err(ParseError::format(FORMAT, format!("`{}`", text::cut(text, 80))));
        };
        if modified_ms < since_ms {
            return Ok(out);
        }
        if out.len() >= MAX_LINES {
            return Err(ParseError::TooMuch { what: "lines", limit: MAX_LINES as u64 });
        }
        out.push(Modified { modified_ms, id: id.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::read_modified;

    #[test]
    fn reading_ends_at_what_is_known() {
        let list = "2024-08-15T10:00:00.5Z,GO-2024-3\n2024-08-15T09:00:00Z,npm/MAL-2024-1\n\
                    2024-08-14T00:00:00Z,GO-2024-1\ngarbage that is never reached\n";
        let ids = |since: &str| {
            let since = super::text::time_ms(since).unwrap();
            let read = read_modified(list.as_bytes(), since).unwrap();
            read.into_iter().map(|one| one.id).collect::<Vec<_>>()
        };
        assert_eq!(ids("2024-08-15T09:00:00Z"), ["GO-2024-3", "npm/MAL-2024-1"]);
        assert_eq!(ids("2024-08-16T00:00:00Z"), Vec::<String>::new());
        assert!(read_modified(list.as_bytes(), 0).is_err());
        assert!(read_modified("2024-08-15T09:00:00Z,../x\n".as_bytes(), 0).is_err());
        assert!(read_modified("<html>".as_bytes(), 0).is_err());
    }
}
