//! Photon OS, `cve_data_photonN.json`: a list of `{cve_id, pkg, cve_score, aff_ver, res_ver,
//! status}`, one file a release. Names are those of source packages; newer files name some of the
//! binary ones beside them.

use std::io::Read;

use kuboard_vuln::{Ecosystem, Status};
use serde::Deserialize;

use super::merge::{Merge, Statement, Until};
use super::{ParseError, Summary, json, text};
use crate::Sink;

/// The advisories' source.
pub const SOURCE: &str = "photon";

#[derive(Deserialize)]
struct Item {
    cve_id: String,
    pkg: String,
    cve_score: Option<serde_json::Number>,
    #[serde(default)]
    res_ver: Option<String>,
    #[serde(default)]
    status: Option<String>,
}

/// Reads the files of all releases and makes one advisory a CVE of them.
pub struct Reader {
    merge: Merge,
    summary: Summary,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { merge: Merge::new(SOURCE, Ecosystem::Rpm, true), summary: Summary::default() }
    }

    /// Reads the file of a release; `namespace` is the release's: `photon:5.0`.
    ///
    /// # Errors
    /// If it is no such list or cut off.
    pub fn read(&mut self, input: impl Read, namespace: &str) -> Result<(), ParseError> {
        json::values(input, "Photon CVE data", &mut |_, raw| {
            let item: Item = match serde_json::from_str(raw) {
                Ok(item) => item,
                Err(error) => {
                    self.summary.skip("an entry", error);
                    return Ok(());
                }
            };
            if !text::is_id(&item.cve_id) || !text::is_name(&item.pkg) {
                self.summary.skip(&item.cve_id, "its id or its package's name is unusable");
                return Ok(());
            }
            self.item(&item, namespace)
        })
    }

    fn item(&mut self, item: &Item, namespace: &str) -> Result<(), ParseError> {
        let version = item.res_ver.as_deref().map_or("", str::trim);
        let named = text::is_name(version) && version != "NA";
        let (status, until) = match item.status.as_deref().unwrap_or_default() {
            "Not Affected" => (Status::NotAffected, Until::None),
            "Affected" | "Open" => (Status::Affected, Until::None),
            "Fixed" if named => (Status::Fixed, Until::Fixed(version)),
            "" if named => (Status::Fixed, Until::Fixed(version)),
            // Fixed in no version that is named: nothing can be compared.
            _ => {
                self.summary.ignored += 1;
                return Ok(());
            }
        };
        let word = item.cve_score.as_ref().and_then(serde_json::Number::as_f64).map_or("", word);
        self.merge.add(&Statement {
            id: &item.cve_id,
            namespace,
            package: &item.pkg,
            status,
            introduced: None,
            until,
            word,
        })
    }

    /// Gives what was read to the sink.
    ///
    /// # Errors
    /// If it was nothing, or most of it was bad.
    pub fn finish(self, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
        let mut summary = self.summary;
        self.merge.finish(&mut summary, sink);
        summary.judge_full()
    }
}

/// The qualitative scale of CVSS 3, since the vector is not told.
fn word(score: f64) -> &'static str {
    match score {
        score if score >= 9.0 => "Critical",
        score if score >= 7.0 => "High",
        score if score >= 4.0 => "Medium",
        score if score > 0.0 => "Low",
        _ => "",
    }
}
