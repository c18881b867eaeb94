//! A vulnerability found in a package of an image.

use serde::{Deserialize, Serialize};

use crate::{Package, Reference, Severity, SeverityScore, Status};

/// The Exploit Prediction Scoring System's figures, in 1/100000.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epss {
    /// Probability of exploitation in 30 days, 0 to 100000.
    pub probability: u32,
    /// Share of vulnerabilities with the same or a lower probability, 0 to 100000.
    pub percentile: u32,
}

/// One vulnerability in one package. Two findings of a report differ in (id, package, path).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The CVE id if there is one, else the advisory's own.
    pub id: String,
    /// All other ids, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Source of the advisory that decided (`debian`, `osv:go`).
    pub source: String,
    /// The advisory's id in that source.
    pub advisory: String,
    /// Namespace that matched.
    pub namespace: String,
    /// The package.
    pub package: Package,
    /// The file that states it.
    pub path: String,
    /// Index of the layer in the report's list.
    pub layer: u32,
    /// Versions that fix it, in order; empty if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_in: Vec<String>,
    /// The source's word.
    pub status: Status,
    /// The step that counts, chosen by the stable rule of `severity.rs`.
    pub severity: Severity,
    /// Who said so.
    pub severity_source: String,
    /// All judgements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<SeverityScore>,
    /// EPSS, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epss: Option<Epss>,
    /// Known to be exploited (CISA KEV): the day it was listed, `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_exploited: Option<String>,
    /// One line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// `CWE-79`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cwes: Vec<String>,
    /// Links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// When the advisory was published, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_ms: Option<i64>,
    /// When it was last changed, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<i64>,
    /// When this platform first saw it in this image; set by who keeps history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_ms: Option<i64>,
}

/// Why a finding does not count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Suppression {
    /// An ignore rule.
    Rule {
        /// What the rule's author wrote.
        reason: String,
        /// When the rule ends, milliseconds since 1970.
        expires_ms: Option<i64>,
    },
    /// A VEX statement.
    Vex {
        /// Who made it: the document's author or id.
        author: String,
        /// `not_affected` or `fixed`.
        status: String,
        /// The justification.
        justification: String,
    },
    /// The language package belongs to a package of the distribution, whose vendor speaks for it.
    OwnedByPackage,
    /// No fix exists and unfixed ones were not wanted.
    Unfixed,
}

/// A finding that does not count, kept so that a report hides nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suppressed {
    /// The finding.
    pub finding: Finding,
    /// Why.
    pub suppression: Suppression,
}
