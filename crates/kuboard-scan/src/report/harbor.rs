//! Harbor's reports: the answers of a pluggable scanner.
//!
//! `application/vnd.security.vulnerability.report; version=1.1` and
//! `application/vnd.security.sbom.report+json; version=1.0`, of Harbor's "pluggable image
//! vulnerability scanning" API 1.x. Harbor's report has no word for "partly read"; the fields
//! `outcome` and `problems` are additions that it ignores, and a report that is not complete and
//! has no findings has the severity `Unknown`, not `None`.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use kuboard_vuln::{Finding, Outcome, Rating, Report, severity_rule};
use serde::Serialize;
use serde_json::{Value, json};

use super::{WriteOptions, counts, dates, text};
use crate::sbom;

/// Media type of [`VulnerabilityReport`].
pub const VULNERABILITY_REPORT_MEDIA_TYPE: &str =
    "application/vnd.security.vulnerability.report; version=1.1";
/// Media type of [`SbomReport`].
pub const SBOM_REPORT_MEDIA_TYPE: &str = "application/vnd.security.sbom.report+json; version=1.0";

/// What was scanned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Artifact {
    /// Repository in Harbor, `library/nginx`.
    pub repository: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Tag, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

/// Who scanned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Scanner {
    /// `Kuboard`.
    pub name: String,
    /// `Kuboard`.
    pub vendor: String,
    /// Version of this program.
    pub version: String,
}

impl Scanner {
    /// This program.
    #[must_use]
    pub fn this(version: &str) -> Self {
        Self {
            name: "Kuboard".to_owned(),
            vendor: "Kuboard".to_owned(),
            version: version.to_owned(),
        }
    }
}

/// The vulnerability report.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct VulnerabilityReport {
    /// RFC 3339.
    pub generated_at: String,
    /// What was scanned.
    pub artifact: Artifact,
    /// Who scanned.
    pub scanner: Scanner,
    /// The most severe one's: `Critical` to `Negligible`, `Unknown`, or `None`.
    pub severity: &'static str,
    /// No two have the same id, package and version.
    pub vulnerabilities: Vec<Vulnerability>,
    /// `complete`, `partial` or `unsupported`.
    pub outcome: &'static str,
    /// What was not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A vulnerability of a package.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Vulnerability {
    /// CVE or advisory.
    pub id: String,
    /// Name of the package.
    pub package: String,
    /// Installed version.
    pub version: String,
    /// Versions that fix it, or empty.
    pub fix_version: String,
    /// `Critical` to `Negligible`, or `Unknown`.
    pub severity: &'static str,
    /// `fixed`, `affected`, `will_not_fix`, …
    pub status: String,
    /// Text.
    pub description: String,
    /// Addresses.
    pub links: Vec<String>,
    /// Digests of the artifacts that have it.
    pub artifact_digests: Vec<String>,
    /// The CVSS that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_cvss: Option<PreferredCvss>,
    /// `CWE-79`.
    pub cwe_ids: Vec<String>,
    /// All scores by source in the form of Trivy's adapter, which Harbor shows; and EPSS, KEV,
    /// path and source of the severity.
    pub vendor_attributes: Value,
}

/// Scores and vectors.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct PreferredCvss {
    /// CVSS 3's base score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_v3: Option<f64>,
    /// CVSS 2's base score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_v2: Option<f64>,
    /// CVSS 3's vector.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vector_v3: String,
    /// CVSS 2's vector.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vector_v2: String,
}

/// The document of [`VULNERABILITY_REPORT_MEDIA_TYPE`].
#[must_use]
pub fn vulnerability_report(report: &Report, options: &WriteOptions<'_>) -> VulnerabilityReport {
    let digest = digest(report);
    let mut seen = HashSet::new();
    let vulnerabilities: Vec<_> = report
        .findings
        .iter()
        .filter(|one| seen.insert((&one.id, &one.package.name, &one.package.version)))
        .map(|finding| vulnerability(finding, &digest))
        .collect();
    let (outcome, problems) = outcome(&report.outcome);
    let severity = match (report.worst(), &report.outcome) {
        (Some(severity), _) => counts::title(severity),
        (None, Outcome::Complete) => "None",
        (None, _) => "Unknown",
    };
    VulnerabilityReport {
        generated_at: dates::rfc3339(report.scanned_ms),
        artifact: artifact(report),
        scanner: Scanner::this(options.tool_version),
        severity,
        vulnerabilities,
        outcome,
        problems,
    }
}

fn outcome(outcome: &Outcome) -> (&'static str, Vec<String>) {
    match outcome {
        Outcome::Complete => ("complete", Vec::new()),
        Outcome::Unsupported { reason } => ("unsupported", vec![reason.clone()]),
        Outcome::Partial { problems } => {
            let text = |path: &str, why: &str| match path {
                "" => why.to_owned(),
                path => format!("{path}: {why}"),
            };
            let problems = problems.iter().take(100).map(|one| text(&one.path, &one.why));
            ("partial", problems.collect())
        }
    }
}

fn digest(report: &Report) -> String {
    report.image.digest.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn artifact(report: &Report) -> Artifact {
    let image = &report.image;
    let name = if image.repository.is_empty() { &image.name } else { &image.repository };
    Artifact { repository: name.clone(), digest: digest(report), tag: image.tag.clone() }
}

fn vulnerability(finding: &Finding, digest: &str) -> Vulnerability {
    let links = finding.references.iter().filter_map(|one| text::link(&one.url));
    let status = serde_json::to_value(finding.status).ok();
    let status = status.as_ref().and_then(Value::as_str).unwrap_or("affected");
    let text = if finding.details.is_empty() { &finding.summary } else { &finding.details };
    Vulnerability {
        id: finding.id.clone(),
        package: finding.package.name.clone(),
        version: finding.package.version.clone(),
        fix_version: finding.fixed_in.join(", "),
        severity: counts::title(finding.severity),
        status: status.to_owned(),
        description: text.clone(),
        links: links.map(str::to_owned).collect(),
        artifact_digests: if digest.is_empty() { Vec::new() } else { vec![digest.to_owned()] },
        preferred_cvss: preferred(finding),
        cwe_ids: finding.cwes.clone(),
        vendor_attributes: attributes(finding),
    }
}

/// The vectors of the source that decided, or else of any.
fn preferred(finding: &Finding) -> Option<PreferredCvss> {
    let find = |rating: Rating| {
        let of = |own: bool| {
            finding.scores.iter().find(|score| {
                score.rating == rating && (!own || score.source == finding.severity_source)
            })
        };
        let score = of(true).or_else(|| of(false))?;
        Some((severity_rule::base_score(score)?, score.value.clone()))
    };
    let (three, two) = (find(Rating::CvssV3), find(Rating::CvssV2));
    if three.is_none() && two.is_none() {
        return None;
    }
    let (score_v3, vector_v3) = three.map_or((None, String::new()), |(s, v)| (Some(s), v));
    let (score_v2, vector_v2) = two.map_or((None, String::new()), |(s, v)| (Some(s), v));
    Some(PreferredCvss { score_v3, score_v2, vector_v3, vector_v2 })
}

fn attributes(finding: &Finding) -> Value {
    let mut sources: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for score in &finding.scores {
        let version = match score.rating {
            Rating::CvssV2 => "V2",
            Rating::CvssV3 => "V3",
            Rating::CvssV4 => "V40",
            Rating::Word => continue,
        };
        let source = sources.entry(&score.source).or_default();
        if let Some(number) = severity_rule::base_score(score) {
            source.insert(format!("{version}Score"), json!(number));
        }
        source.insert(format!("{version}Vector"), json!(score.value));
    }
    let mut attributes = serde_json::Map::new();
    attributes.insert("CVSS".to_owned(), json!(sources));
    attributes.insert("severity_source".to_owned(), json!(finding.severity_source));
    attributes.insert("path".to_owned(), json!(finding.path));
    if let Some(epss) = finding.epss {
        attributes.insert("epss".to_owned(), json!(f64::from(epss.probability) / 100_000.0));
    }
    if let Some(day) = &finding.known_exploited {
        attributes.insert("known_exploited".to_owned(), json!(day));
    }
    Value::Object(attributes)
}

/// Which bill of materials Harbor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SbomForm {
    /// `application/spdx+json`.
    Spdx,
    /// `application/vnd.cyclonedx+json`.
    CycloneDx,
}

impl SbomForm {
    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            SbomForm::Spdx => sbom::SPDX_MEDIA_TYPE,
            SbomForm::CycloneDx => sbom::CYCLONEDX_MEDIA_TYPE,
        }
    }
}

/// The bill of materials with Harbor's envelope.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SbomReport {
    /// RFC 3339.
    pub generated_at: String,
    /// What was scanned.
    pub artifact: Artifact,
    /// Who scanned.
    pub scanner: Scanner,
    /// Media type of `sbom`.
    pub media_type: &'static str,
    /// The document.
    pub sbom: Value,
}

/// The document of [`SBOM_REPORT_MEDIA_TYPE`]; findings are left out.
///
/// # Errors
/// The document is not JSON, which does not happen.
pub fn sbom_report(
    report: &Report,
    form: SbomForm,
    options: &WriteOptions<'_>,
) -> io::Result<SbomReport> {
    let mut document = Vec::new();
    let bare = sbom::without_findings(report);
    match form {
        SbomForm::Spdx => sbom::write_spdx(&bare, options, &mut document)?,
        SbomForm::CycloneDx => sbom::write_cyclonedx(&bare, options, &mut document)?,
    }
    Ok(SbomReport {
        generated_at: dates::rfc3339(report.scanned_ms),
        artifact: artifact(report),
        scanner: Scanner::this(options.tool_version),
        media_type: form.media_type(),
        sbom: serde_json::from_slice(&document)?,
    })
}
