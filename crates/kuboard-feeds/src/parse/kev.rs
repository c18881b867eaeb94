//! CISA's catalogue of known exploited vulnerabilities.

use std::io::Read;

use serde::Deserialize;

use super::{ParseError, Summary, json, text};
use crate::Sink;

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "cveID")]
    cve: String,
    #[serde(rename = "dateAdded")]
    added: String,
}

/// The catalogue.
///
/// # Errors
/// If it is no such catalogue, empty, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let mut released = None;
    json::list(input, "KEV", "vulnerabilities", &mut |key, raw| {
        if key == "dateReleased" {
            let text: Option<String> = serde_json::from_str(raw).unwrap_or_default();
            released = text.as_deref().and_then(text::time_ms);
        }
        if !key.is_empty() {
            return Ok(());
        }
        match serde_json::from_str::<Item>(raw) {
            Err(error) => summary.skip("an entry", error),
            Ok(item) => match text::day(&item.added).filter(|_| text::is_cve(&item.cve)) {
                Some(day) => {
                    summary.read(text::time_ms(&day));
                    sink.known_exploited(&item.cve, &day);
                }
                None => summary.skip(&item.cve, "its id or its day is unusable"),
            },
        }
        Ok(())
    })?;
    summary.newest_modified_ms = summary.newest_modified_ms.max(released);
    summary.judge_full()
}
