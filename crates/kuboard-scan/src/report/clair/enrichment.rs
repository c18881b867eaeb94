//! What Clair calls enrichments: CVSS, EPSS and KEV, keyed by the ids of vulnerabilities.

use std::collections::{BTreeMap, HashSet};

use kuboard_vuln::{Finding, Rating, Report, SeverityScore, severity_rule};
use serde_json::{Map, Value, json};

use crate::report::{counts, dates};

/// Key of the CVSS scores.
pub const CVSS_KEY: &str = "message/vnd.clair.map.vulnerability; enricher=clair.cvss \
                            schema=https://csrc.nist.gov/schema/nvd/api/2.0/cve_api_json_2.0.schema";
/// Key of the EPSS figures.
pub const EPSS_KEY: &str = "message/vnd.clair.map.vulnerability; enricher=clair.epss schema=none";
/// Key of the known exploited ones.
pub const KEV_KEY: &str = "message/vnd.clair.map.vulnerability; enricher=clair.kev schema=none";

/// Findings' enrichments; `ids` has the vulnerability's id for each of the report's findings.
pub(super) fn of(report: &Report, ids: &[String]) -> BTreeMap<String, Vec<Value>> {
    let (mut cvss, mut epss, mut kev) = (Map::new(), Map::new(), Map::new());
    let mut seen = HashSet::new();
    let scored = report.database.sources.iter().find(|(source, _)| source == "epss");
    let day = scored.map(|(_, fetched)| dates::day(*fetched)).unwrap_or_default();
    for (finding, id) in report.findings.iter().zip(ids) {
        if !seen.insert(id) {
            continue;
        }
        let scores = scores(finding);
        if !scores.is_empty() {
            cvss.insert(id.clone(), Value::Array(scores));
        }
        if let Some(figures) = finding.epss {
            let item = json!({
                "modelVersion": "",
                "date": day,
                "cve": finding.id,
                "epss": f64::from(figures.probability) / 100_000.0,
                "percentile": f64::from(figures.percentile) / 100_000.0,
            });
            epss.insert(id.clone(), json!([item]));
        }
        if let Some(added) = &finding.known_exploited {
            let item = json!({
                "cve": finding.id,
                "vulnerability_name": finding.summary,
                "catalog_version": "",
                "date_added": added,
                "short_description": finding.summary,
                "required_action": "",
                "due_date": "",
                "known_ransomware_campaign_use": "",
            });
            kev.insert(id.clone(), json!([item]));
        }
    }
    let all = [(CVSS_KEY, cvss), (EPSS_KEY, epss), (KEV_KEY, kev)];
    let filled = all.into_iter().filter(|(_, map)| !map.is_empty());
    filled.map(|(key, map)| (key.to_owned(), vec![Value::Object(map)])).collect()
}

/// The objects of NVD's `cvssData`, that of the deciding source first.
fn scores(finding: &Finding) -> Vec<Value> {
    let own = |score: &&SeverityScore| score.source == finding.severity_source;
    let (first, rest): (Vec<_>, Vec<_>) = finding.scores.iter().partition(own);
    let all = first.into_iter().chain(rest);
    let mut seen = HashSet::new();
    all.filter(|score| seen.insert(&score.value)).filter_map(score).collect()
}

fn score(score: &SeverityScore) -> Option<Value> {
    let number = severity_rule::base_score(score)?;
    let vector = score.value.trim();
    let version = match score.rating {
        Rating::CvssV2 => "2.0",
        Rating::CvssV3 if vector.starts_with("CVSS:3.0/") => "3.0",
        Rating::CvssV3 => "3.1",
        Rating::CvssV4 => "4.0",
        Rating::Word => return None,
    };
    let severity = match severity_rule::of_base_score(number) {
        kuboard_vuln::Severity::Negligible => "NONE",
        severity => counts::word(severity),
    };
    Some(json!({
        "version": version,
        "vectorString": vector,
        "baseScore": number,
        "baseSeverity": severity,
    }))
}
