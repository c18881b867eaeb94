//! `ImageReport`: what is known of one digest, small enough for the API server; and what follows
//! from it where the image runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use kuboard_oci::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{DIGEST, Moment, conditions, plain};

/// Findings in a report.
pub const MAX_FINDINGS: usize = 100;
/// Bytes of a report's spec as JSON; with metadata and status the object stays below 128 KiB.
pub const MAX_BYTES: usize = 64 * 1024;
const MAX_NAMES: usize = 50;
/// Bytes of all names, so that findings have room beside them.
const MAX_NAME_BYTES: usize = 16 * 1024;
const MAX_PLATFORMS: usize = 32;

/// Facts about an image: they follow from its bytes and the advisories alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "ImageReport",
    doc = "What is known of one image by its digest, and what follows from it where it runs. \
           Written by the operator; the whole report is kept in the catalogue.",
    status = "ImageReportStatus",
    derive = "PartialEq",
    shortname = "imr",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    selectable = ".spec.outcome",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.names[0]"),
    printcolumn(name = "Critical", type_ = "integer", json_path = ".spec.summary.critical"),
    printcolumn(name = "High", type_ = "integer", json_path = ".spec.summary.high"),
    printcolumn(name = "Medium", type_ = "integer", json_path = ".spec.summary.medium"),
    printcolumn(name = "Low", type_ = "integer", json_path = ".spec.summary.low"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".spec.outcome"),
    printcolumn(name = "Scanned", type_ = "date", json_path = ".spec.scannedAt"),
    printcolumn(
        name = "Exploited",
        type_ = "integer",
        json_path = ".spec.summary.exploited",
        priority = 1
    ),
    printcolumn(
        name = "Fixable",
        type_ = "integer",
        json_path = ".spec.summary.fixable",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name == self.spec.digest.replace(':', '-')")
        .message("a report has the name of its digest, with - in place of :")
        .field_path(".spec.digest")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ImageReportSpec {
    /// Digest of the manifest.
    #[schemars(length(max = 135), extend("pattern" = DIGEST))]
    pub digest: String,
    /// Names it was seen under, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 512)))]
    pub names: Vec<String>,
    /// Platforms: linux/amd64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    pub platforms: Vec<String>,
    /// The distribution: Debian 13.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub distribution: Option<String>,
    /// Number of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub layers: Option<i64>,
    /// Complete: all was read. Partial: something was not, the findings are true but may not be
    /// all. Unsupported: nothing can be said.
    #[schemars(extend("enum" = ["Complete", "Partial", "Unsupported"]))]
    pub outcome: String,
    /// Why it is not Complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub problem: Option<String>,
    /// All findings, counted.
    pub summary: FindingCounts,
    /// The most severe findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub findings: Vec<ReportedFinding>,
    /// The advisories that were used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advisories: Option<AdvisoryStamp>,
    /// When it was last matched with advisories.
    #[schemars(with = "Moment")]
    pub scanned_at: String,
    /// When it was scanned for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub first_scanned_at: Option<String>,
    /// Where the whole report is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub full_report: Option<String>,
}

/// Findings, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct FindingCounts {
    /// Critical ones.
    #[serde(default)]
    pub critical: i64,
    /// High ones.
    #[serde(default)]
    pub high: i64,
    /// Medium ones.
    #[serde(default)]
    pub medium: i64,
    /// Low ones.
    #[serde(default)]
    pub low: i64,
    /// Those without practical effect.
    #[serde(default)]
    pub negligible: i64,
    /// Those that nobody rated.
    #[serde(default)]
    pub unknown: i64,
    /// Those of all severities that a known version fixes.
    #[serde(default)]
    pub fixable: i64,
    /// Those of all severities that are known to be exploited.
    #[serde(default)]
    pub exploited: i64,
}

/// A vulnerability in a package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ReportedFinding {
    /// The CVE id if there is one, else the advisory's own.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Name of the package.
    #[schemars(length(max = 256))]
    pub package: String,
    /// Its version in the image.
    #[schemars(length(max = 128))]
    pub installed: String,
    /// The lowest version that fixes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub fixed: Option<String>,
    /// CRITICAL, HIGH, MEDIUM, LOW, NEGLIGIBLE or UNKNOWN.
    #[schemars(extend("enum" = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "NEGLIGIBLE", "UNKNOWN"]))]
    pub severity: String,
    /// When it was first seen in this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub first_seen: Option<String>,
    /// It is known to be exploited (CISA KEV).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exploited: bool,
    /// Probability of exploitation in 30 days, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub epss: Option<f64>,
}

/// Which advisories were used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct AdvisoryStamp {
    /// Number of the database's generation.
    pub generation: i64,
    /// When it was compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub built_at: Option<String>,
}

/// What follows from the facts where the image runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ImageReportStatus {
    /// The generation of the report that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Compliant: no policy would refuse it where it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// When it was last held against the policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub evaluated_at: Option<String>,
    /// Namespaces in which it runs; of more than 200, those with the strictest verdicts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["namespace"]
        )
    )]
    pub namespaces: Vec<NamespaceVerdict>,
}

/// What the policies of a namespace say of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct NamespaceVerdict {
    /// The namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Allow, Audit, Warn or Deny, as if a new pod wanted to run it.
    #[schemars(extend("enum" = ["Allow", "Audit", "Warn", "Deny"]))]
    pub verdict: String,
    /// Policies that say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 320)))]
    pub policies: Vec<String>,
    /// In one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
}

/// The name of a digest's report.
#[must_use]
pub fn report_name(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

/// The digest that a report of this name is about.
#[must_use]
pub fn report_digest(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

impl ImageReportSpec {
    /// Cuts it to what the schema and [`MAX_BYTES`] allow: texts are shortened, and findings left
    /// out from the end, so they must stand with the most severe first. What is not shown is still
    /// in `summary`.
    pub fn fit(&mut self) {
        self.names.retain(|name| !name.is_empty());
        self.names.truncate(MAX_NAMES);
        self.platforms.retain(|platform| !platform.is_empty());
        self.platforms.truncate(MAX_PLATFORMS);
        self.names.iter_mut().for_each(|name| shorten(name, 512));
        let mut room = MAX_NAME_BYTES;
        self.names.retain(|name| match room.checked_sub(json_bytes(name)) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        self.platforms.iter_mut().for_each(|platform| shorten(platform, 64));
        let texts = [
            (&mut self.distribution, 128),
            (&mut self.problem, 512),
            (&mut self.full_report, 1024),
        ];
        for (text, most) in texts {
            if let Some(text) = text {
                shorten(text, most);
            }
        }
        self.findings.retain(|finding| !finding.id.is_empty());
        self.findings.truncate(MAX_FINDINGS);
        for finding in &mut self.findings {
            shorten(&mut finding.id, 128);
            shorten(&mut finding.package, 256);
            shorten(&mut finding.installed, 128);
            if let Some(fixed) = &mut finding.fixed {
                shorten(fixed, 128);
            }
        }
        let mut excess = json_bytes(self).saturating_sub(MAX_BYTES);
        while excess > 0 {
            let Some(finding) = self.findings.pop() else { break };
            excess = excess.saturating_sub(json_bytes(&finding));
        }
    }
}

/// Bytes of a value in an object, with the comma.
fn json_bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |it| it.len().saturating_add(1))
}

/// At most so many characters; what control characters stand in it become spaces, because each
/// would take six bytes.
fn shorten(text: &mut String, most: usize) {
    if text.chars().any(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
}
