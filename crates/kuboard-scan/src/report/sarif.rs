//! SARIF 2.1.0 (OASIS): a rule for each vulnerability, a result for each finding.
//!
//! What was not read is a notification of the tool, and the execution was not successful then.

use std::{collections::HashMap, io};

use kuboard_oci::Digest;
use kuboard_vuln::{
    Finding, Outcome, Problem, Report, Severity, Suppressed, Suppression, severity_rule,
};
use serde_json::{Map, Value, json};

use super::{WriteOptions, counts, dates, text};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// Notifications that are written.
const MAX_NOTIFICATIONS: usize = 1000;

pub(super) fn write(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut rules = Rules::default();
    let mut results = Vec::new();
    for finding in &report.findings {
        results.push(result(report, finding, rules.index(finding), None));
    }
    for Suppressed { finding, suppression } in &report.suppressed {
        results.push(result(report, finding, rules.index(finding), Some(suppression)));
    }
    let (successful, notifications) = notifications(&report.outcome);
    let image = &report.image;
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "Kuboard",
                "version": options.tool_version,
                "rules": rules.list,
            }},
            "invocations": [{
                "executionSuccessful": successful,
                "endTimeUtc": dates::rfc3339(report.scanned_ms),
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "utf16CodeUnits",
            "results": results,
            "properties": {
                "imageName": image.name,
                "imageDigest": image.digest,
                "imageConfig": image.config,
                "platform": image.platform,
                "packages": report.packages.len(),
                "outcome": match report.outcome {
                    Outcome::Complete => "complete",
                    Outcome::Partial { .. } => "partial",
                    Outcome::Unsupported { .. } => "unsupported",
                },
                "databaseGeneration": report.database.generation,
            },
        }],
    });
    text::write_json(&document, text::Layout::Pretty, to)
}

/// Rules by id; the finding that comes first, the most severe one, describes it.
#[derive(Default)]
struct Rules {
    list: Vec<Value>,
    by_id: HashMap<String, usize>,
}

impl Rules {
    fn index(&mut self, finding: &Finding) -> usize {
        if let Some(index) = self.by_id.get(&finding.id) {
            return *index;
        }
        let index = self.list.len();
        self.by_id.insert(finding.id.clone(), index);
        self.list.push(rule(finding));
        index
    }
}

fn rule(finding: &Finding) -> Value {
    let short = match finding.summary.as_str() {
        "" => format!("{} in {}", finding.id, finding.package.name),
        summary => text::cut(summary, 1000).into_owned(),
    };
    let full = if finding.details.is_empty() { short.as_str() } else { &finding.details };
    let mut rule = json!({
        "id": finding.id,
        "name": "PackageVulnerability",
        "shortDescription": { "text": short },
        "fullDescription": { "text": text::cut(full, 4000) },
        "defaultConfiguration": { "level": level(finding.severity) },
        "help": { "text": help(finding), "markdown": markdown(finding) },
        "properties": {
            "precision": "very-high",
            "security-severity": score(finding),
            "tags": ["vulnerability", "security", counts::word(finding.severity)],
        },
    });
    let link = finding.references.iter().find_map(|one| text::link(&one.url));
    if let (Some(link), Some(rule)) = (link, rule.as_object_mut()) {
        rule.insert(
            "helpUri".to_owned(),
            json!(text::percent_encoded(link, b":/?#[]@!$&'()*+,;=%")),
        );
    }
    rule
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        // What nobody rated may be anything.
        Severity::Medium | Severity::Unknown => "warning",
        Severity::Low | Severity::Negligible => "note",
    }
}

/// A score that lies in the step that counts: of the source that decided, if it gave one.
fn score(finding: &Finding) -> String {
    let own = finding.scores.iter().filter(|score| score.source == finding.severity_source);
    let others = finding.scores.iter().filter(|score| score.source != finding.severity_source);
    let numbers = own.chain(others).filter_map(severity_rule::base_score);
    let fitting = |number: &f64| severity_rule::of_base_score(*number) == finding.severity;
    match numbers.into_iter().find(fitting) {
        Some(number) => format!("{number:.1}"),
        None => counts::stand_in_score(finding.severity).to_owned(),
    }
}

fn facts(finding: &Finding) -> Vec<(&'static str, String)> {
    let fixed = match finding.fixed_in.as_slice() {
        [] => format!("no version ({})", counts::status(finding.status)),
        versions => versions.join(", "),
    };
    let mut facts = vec![
        ("Package", finding.package.name.clone()),
        ("Severity", counts::word(finding.severity).to_owned()),
        ("Severity by", finding.severity_source.clone()),
        ("Fixed in", fixed),
        ("Source", finding.source.clone()),
        ("Aliases", finding.aliases.join(", ")),
    ];
    if let Some(epss) = finding.epss {
        facts.push(("EPSS", format!("{} %", counts::percent(epss.probability))));
    }
    if let Some(day) = &finding.known_exploited {
        facts.push(("Known exploited", format!("since {day}")));
    }
    let links = finding.references.iter().filter_map(|one| text::link(&one.url)).take(1);
    facts.extend(links.map(|link| ("See", link.to_owned())));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn help(finding: &Finding) -> String {
    let lines = facts(finding).into_iter().map(|(label, value)| format!("{label}: {value}"));
    format!("{}\n{}", finding.id, lines.collect::<Vec<_>>().join("\n"))
}

/// The same as a table. Everything in it that Markdown or HTML would read is escaped.
fn markdown(finding: &Finding) -> String {
    let mut out = format!("**{}**\n\n| | |\n| --- | --- |\n", escaped(&finding.id));
    for (label, value) in facts(finding) {
        let value = if label == "See" { format!("<{value}>") } else { escaped(&value) };
        out.push_str(&format!("| {label} | {value} |\n"));
    }
    out
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in text::line(value).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn result(
    report: &Report,
    finding: &Finding,
    rule: usize,
    suppression: Option<&Suppression>,
) -> Value {
    let package = &finding.package;
    let fixed = match finding.fixed_in.as_slice() {
        [] => counts::status(finding.status).to_owned(),
        versions => format!("fixed in {}", versions.join(", ")),
    };
    let message = format!(
        "{} {} has {} ({}, by {}): {fixed}",
        package.name,
        package.version,
        finding.id,
        counts::word(finding.severity),
        if finding.severity_source.is_empty() { "nobody" } else { &finding.severity_source },
    );
    let mut result = Map::new();
    result.insert("ruleId".to_owned(), json!(finding.id));
    result.insert("ruleIndex".to_owned(), json!(rule));
    result.insert("level".to_owned(), json!(level(finding.severity)));
    result.insert("message".to_owned(), json!({ "text": message }));
    result.insert("locations".to_owned(), json!([location(report, finding)]));
    result.insert(
        "partialFingerprints".to_owned(),
        json!({ "kuboardFinding/v1": fingerprint(report, finding) }),
    );
    let layer = usize::try_from(finding.layer).ok().and_then(|index| report.layers.get(index));
    let mut properties = json!({
        "package": package.name,
        "installedVersion": package.version,
        "ecosystem": package.ecosystem,
        "status": finding.status,
        "advisorySource": finding.source,
    });
    if let (Some(layer), Some(properties)) = (layer, properties.as_object_mut()) {
        properties.insert("layer".to_owned(), json!(layer.digest));
    }
    result.insert("properties".to_owned(), properties);
    if let Some(suppression) = suppression {
        let reason = counts::reason(suppression);
        let suppression =
            json!({ "kind": "external", "status": "accepted", "justification": reason });
        result.insert("suppressions".to_owned(), json!([suppression]));
    }
    Value::Object(result)
}

/// A path below the image's name, as the relative reference that code hosts want.
fn location(report: &Report, finding: &Finding) -> Value {
    let image = &report.image;
    let name = if image.repository.is_empty() { &image.name } else { &image.repository };
    let uri = format!("{}/{}", name.trim_matches('/'), finding.path);
    let uri = text::percent_encoded(uri.trim_matches('/'), b"/");
    let package = &finding.package;
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri },
            "region": { "startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1 },
        },
        "logicalLocations": [{
            "name": package.name,
            "fullyQualifiedName": format!("{}@{}", package.name, package.version),
            "kind": "module",
        }],
        "message": { "text": format!("{}: {} {}", image.name, package.name, package.version) },
    })
}

/// The same for the same finding in the next image of this repository.
fn fingerprint(report: &Report, finding: &Finding) -> String {
    let package = &finding.package;
    let parts = [
        report.image.registry.as_str(),
        &report.image.repository,
        &finding.id,
        package.ecosystem.as_str(),
        &package.name,
        &package.version,
        &finding.path,
    ];
    Digest::sha256(parts.join("\0").as_bytes()).hex()
}

fn notifications(outcome: &Outcome) -> (bool, Vec<Value>) {
    match outcome {
        Outcome::Complete => (true, Vec::new()),
        Outcome::Unsupported { reason } => {
            let text = format!("nothing can be said of this image: {reason}");
            (false, vec![json!({ "level": "error", "message": { "text": text } })])
        }
        Outcome::Partial { problems } => {
            let one = |problem: &Problem| {
                let text =
                    format!("partly read: {}: {} ({})", problem.path, problem.why, problem.by);
                json!({ "level": "warning", "message": { "text": text } })
            };
            (false, problems.iter().take(MAX_NOTIFICATIONS).map(one).collect())
        }
    }
}
