//! CycloneDX's vulnerabilities: findings of the same vulnerability with the same judgement are
//! one entry that affects several components.

use std::collections::{BTreeMap, HashMap};

use kuboard_vuln::{
    Finding, Package, Rating, Report, Severity, Status, Suppression, severity_rule,
};
use serde_json::{Map, Value, json};

use super::{filled, property};
use crate::report::{dates, text};

/// Entries in the order of their first finding; `refs` has the reference of each package.
pub(super) fn of(report: &Report, refs: &[String]) -> Vec<Value> {
    let mut by_place: HashMap<(&Package, &str), &str> = HashMap::new();
    for (placed, reference) in report.packages.iter().zip(refs) {
        by_place.entry((&placed.package, &placed.path)).or_insert(reference);
    }
    let live = report.findings.iter().map(|finding| (finding, None));
    let hidden = report.suppressed.iter().map(|one| (&one.finding, Some(&one.suppression)));
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (finding, suppression) in live.chain(hidden) {
        let key = key(finding, suppression);
        let next = groups.len();
        let index = *known.entry(key).or_insert(next);
        if index == next {
            groups.push(Group { finding, suppression, affects: BTreeMap::new() });
        }
        let reference = by_place.get(&(&finding.package, finding.path.as_str()));
        if let (Some(reference), Some(group)) = (reference, groups.get_mut(index)) {
            group.affects.insert(reference, &finding.package.version);
        }
    }
    groups.iter().enumerate().map(|(number, group)| entry(number, group)).collect()
}

struct Group<'a> {
    finding: &'a Finding,
    suppression: Option<&'a Suppression>,
    /// Versions by reference.
    affects: BTreeMap<&'a str, &'a str>,
}

fn key(finding: &Finding, suppression: Option<&Suppression>) -> String {
    format!(
        "{}\0{}\0{}\0{:?}\0{:?}\0{}\0{suppression:?}",
        finding.id,
        finding.source,
        finding.namespace,
        finding.status,
        finding.severity,
        finding.fixed_in.join("\0")
    )
}

fn entry(number: usize, group: &Group<'_>) -> Value {
    let finding = group.finding;
    let mut out = Map::new();
    out.insert("bom-ref".to_owned(), json!(format!("vulnerability-{number}")));
    out.insert("id".to_owned(), json!(finding.id));
    out.insert("source".to_owned(), json!({ "name": finding.source }));
    if !finding.aliases.is_empty() {
        let alias = |id: &String| json!({ "id": id, "source": { "name": origin(id) } });
        let aliases: Vec<_> = finding.aliases.iter().map(alias).collect();
        out.insert("references".to_owned(), json!(aliases));
    }
    out.insert("ratings".to_owned(), json!(ratings(finding)));
    let cwes: Vec<u32> = finding
        .cwes
        .iter()
        .filter_map(|cwe| cwe.strip_prefix("CWE-")?.parse().ok())
        .filter(|number| *number > 0)
        .collect();
    if !cwes.is_empty() {
        out.insert("cwes".to_owned(), json!(cwes));
    }
    for (key, value) in [("description", &finding.summary), ("detail", &finding.details)] {
        if !value.is_empty() {
            out.insert(key.to_owned(), json!(value));
        }
    }
    if !finding.fixed_in.is_empty() {
        let advice = format!("update to {}", finding.fixed_in.join(" or "));
        out.insert("recommendation".to_owned(), json!(advice));
    }
    let links = finding.references.iter().filter_map(|one| text::link(&one.url));
    let links: Vec<_> = links.map(|url| json!({ "url": url_of(url) })).collect();
    if !links.is_empty() {
        out.insert("advisories".to_owned(), json!(links));
    }
    for (key, time) in [("published", finding.published_ms), ("updated", finding.modified_ms)] {
        if let Some(ms) = time {
            out.insert(key.to_owned(), json!(dates::rfc3339(ms)));
        }
    }
    out.insert("analysis".to_owned(), analysis(finding, group.suppression));
    let affects = group.affects.iter().map(|(reference, version)| {
        let is_free = group.suppression.is_some_and(is_free);
        let status = if is_free { "unaffected" } else { "affected" };
        json!({ "ref": reference, "versions": [{ "version": version, "status": status }] })
    });
    out.insert("affects".to_owned(), Value::Array(affects.collect()));
    out.insert("properties".to_owned(), json!(properties(finding, group.suppression)));
    Value::Object(out)
}

/// A link whose characters are all those of an address.
fn url_of(url: &str) -> String {
    text::percent_encoded(url, b":/?#[]@!$&'()*+,;=%")
}

fn origin(id: &str) -> &str {
    id.split_once('-').map_or("unknown", |(prefix, _)| prefix)
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
        Severity::Negligible => "info",
        Severity::Unknown => "unknown",
    }
}

/// The judgement that counts first, then all of them.
fn ratings(finding: &Finding) -> Vec<Value> {
    let who = if finding.severity_source.is_empty() { "none" } else { &finding.severity_source };
    let mut out = vec![json!({
        "source": { "name": who },
        "severity": word(finding.severity),
        "method": "other",
        "justification": "the severity that counts here",
    })];
    for score in &finding.scores {
        let mut rating = Map::new();
        rating.insert("source".to_owned(), json!({ "name": score.source }));
        if let Some(number) = severity_rule::base_score(score) {
            rating.insert("score".to_owned(), json!(number));
        }
        let severity = severity_rule::of_score(score).unwrap_or_default();
        rating.insert("severity".to_owned(), json!(word(severity)));
        let method = match score.rating {
            Rating::CvssV2 => "CVSSv2",
            Rating::CvssV3 if score.value.trim().starts_with("CVSS:3.0/") => "CVSSv3",
            Rating::CvssV3 => "CVSSv31",
            Rating::CvssV4 => "CVSSv4",
            Rating::Word => "other",
        };
        rating.insert("method".to_owned(), json!(method));
        let key = if score.rating == Rating::Word { "justification" } else { "vector" };
        rating.insert(key.to_owned(), json!(score.value.trim()));
        out.push(Value::Object(rating));
    }
    out
}

/// Whether a suppression says that the package does not have the vulnerability.
fn is_free(suppression: &Suppression) -> bool {
    match suppression {
        Suppression::Vex { .. } | Suppression::OwnedByPackage => true,
        Suppression::Rule { .. } | Suppression::Unfixed => false,
    }
}

fn analysis(finding: &Finding, suppression: Option<&Suppression>) -> Value {
    let mut out = Map::new();
    let state = match suppression {
        Some(Suppression::Vex { status, .. }) if status == "fixed" => "resolved",
        Some(Suppression::Vex { .. }) => "not_affected",
        Some(Suppression::OwnedByPackage) => "false_positive",
        _ if finding.status == Status::UnderInvestigation => "in_triage",
        _ => "exploitable",
    };
    out.insert("state".to_owned(), json!(state));
    if let Some(Suppression::Vex { justification, .. }) = suppression
        && let Some(word) = justified(justification)
    {
        out.insert("justification".to_owned(), json!(word));
    }
    let response = match finding.status {
        Status::WillNotFix | Status::EndOfLife => Some("will_not_fix"),
        Status::Fixed if !finding.fixed_in.is_empty() => Some("update"),
        _ => None,
    };
    if let Some(response) = response {
        out.insert("response".to_owned(), json!([response]));
    }
    if let Some(suppression) = suppression {
        out.insert("detail".to_owned(), json!(crate::report::suppression_reason(suppression)));
    }
    Value::Object(out)
}

/// OpenVEX's and CSAF's justifications in CycloneDX's words.
fn justified(justification: &str) -> Option<&'static str> {
    Some(match justification {
        "component_not_present" | "vulnerable_code_not_present" => "code_not_present",
        "vulnerable_code_not_in_execute_path" => "code_not_reachable",
        "inline_mitigations_already_exist" => "protected_by_mitigating_control",
        _ => return None,
    })
}

fn properties(finding: &Finding, suppression: Option<&Suppression>) -> Vec<Value> {
    let status = serde_json::to_value(finding.status).ok();
    let by = match suppression {
        None => "",
        Some(Suppression::Rule { .. }) => "rule",
        Some(Suppression::Vex { .. }) => "vex",
        Some(Suppression::OwnedByPackage) => "owned_by_package",
        Some(Suppression::Unfixed) => "unfixed",
    };
    let mut out = filled([
        ("kuboard:advisory", finding.advisory.as_str()),
        ("kuboard:namespace", &finding.namespace),
        ("kuboard:status", status.as_ref().and_then(Value::as_str).unwrap_or_default()),
        ("kuboard:suppressed-by", by),
        ("kuboard:known-exploited", finding.known_exploited.as_deref().unwrap_or_default()),
    ]);
    if let Some(epss) = finding.epss {
        let number = f64::from(epss.probability) / 100_000.0;
        out.push(property("kuboard:epss", &number.to_string()));
    }
    out
}
