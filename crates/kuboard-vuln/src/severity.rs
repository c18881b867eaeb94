//! How bad a vulnerability is, and who says so.

use serde::{Deserialize, Serialize};

/// The six steps, from the least. `Unknown` is below all: it reaches no threshold but its own.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Nobody rated it.
    #[default]
    Unknown,
    /// No practical effect.
    Negligible,
    /// CVSS 0.1 to 3.9.
    Low,
    /// CVSS 4.0 to 6.9.
    Medium,
    /// CVSS 7.0 to 8.9.
    High,
    /// CVSS 9.0 to 10.0.
    Critical,
}

/// In which words a [`SeverityScore`] is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rating {
    /// A CVSS 2 vector.
    #[serde(rename = "CVSS_V2")]
    CvssV2,
    /// A CVSS 3.0 or 3.1 vector.
    #[serde(rename = "CVSS_V3")]
    CvssV3,
    /// A CVSS 4.0 vector.
    #[serde(rename = "CVSS_V4")]
    CvssV4,
    /// A word of the source's own scale.
    #[serde(rename = "WORD")]
    Word,
}

/// One judgement of the severity, never separated from its source.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeverityScore {
    /// Who judged: `debian`, `redhat`, `nvd`, `ghsa`, …
    pub source: String,
    /// What `value` is.
    pub rating: Rating,
    /// The vector or the word, as the source wrote it.
    pub value: String,
}
