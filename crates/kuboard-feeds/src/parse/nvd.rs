//! NVD 2.0 feeds (`nvdcve-2.0-YEAR.json.gz`): the CVSS vectors of each CVE, and nothing else of it.

use std::io::Read;

use kuboard_vuln::SeverityScore;
use serde::Deserialize;

use super::{ParseError, Summary, json, text};
use crate::Sink;

#[derive(Deserialize)]
struct Item {
    cve: Cve,
}

#[derive(Deserialize)]
struct Cve {
    id: String,
    #[serde(rename = "lastModified")]
    last_modified: Option<String>,
    #[serde(rename = "vulnStatus", default)]
    status: String,
    #[serde(default)]
    metrics: Metrics,
}

#[derive(Deserialize, Default)]
struct Metrics {
    #[serde(rename = "cvssMetricV40", default)]
    v40: Vec<Metric>,
    #[serde(rename = "cvssMetricV31", default)]
    v31: Vec<Metric>,
    #[serde(rename = "cvssMetricV30", default)]
    v30: Vec<Metric>,
    #[serde(rename = "cvssMetricV2", default)]
    v2: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    #[serde(default)]
    source: String,
    #[serde(rename = "cvssData")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "vectorString", default)]
    vector: String,
}

/// One feed: a year, or the recently modified.
///
/// # Errors
/// If it is no such feed, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    json::list(input, "NVD 2.0", "vulnerabilities", &mut |key, raw| {
        if !key.is_empty() {
            return Ok(());
        }
        let cve = match serde_json::from_str::<Item>(raw) {
            Ok(item) if text::is_cve(&item.cve.id) => item.cve,
            Ok(item) => {
                summary.skip(&item.cve.id, "its id is none of a CVE");
                return Ok(());
            }
            Err(error) => {
                summary.skip("an entry", error);
                return Ok(());
            }
        };
        let scores = scores(&cve);
        if scores.is_empty() {
            summary.ignored += 1;
            return Ok(());
        }
        summary.read(cve.last_modified.as_deref().and_then(text::time_ms));
        for score in scores {
            sink.score(&cve.id, score);
        }
        Ok(())
    })?;
    summary.judge()
}

fn scores(cve: &Cve) -> Vec<SeverityScore> {
    if cve.status == "Rejected" {
        return Vec::new();
    }
    let metrics = &cve.metrics;
    let all = [&metrics.v40, &metrics.v31, &metrics.v30, &metrics.v2].into_iter().flatten();
    let mut out: Vec<SeverityScore> = Vec::new();
    for score in all.take(64).filter_map(|one| text::vector(rater(&one.source), &one.data.vector)) {
        if !out.contains(&score) {
            out.push(score);
        }
    }
    out
}

/// NVD passes on what others say of a CVE.
fn rater(source: &str) -> &'static str {
    match source {
        "nvd@nist.gov" => "nvd",
        "134c704f-9b21-4f2e-91b3-4a467353bcc0" => "cisa-adp",
        _ => "cna",
    }
}
