//! The report on an image: the one value that all outputs, webhooks and policies read.

use kuboard_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{Distribution, Finding, LayerReference, PlacedPackage, Problem, Severity, Suppressed};

/// What was scanned.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageIdentity {
    /// The name it was asked for: a reference, a path.
    pub name: String,
    /// Registry host, or empty (archives, folders).
    pub registry: String,
    /// Repository, or empty.
    pub repository: String,
    /// Tag, or empty.
    pub tag: String,
    /// Digest of the image's manifest.
    pub digest: Option<Digest>,
    /// Digest of the configuration (docker's image id).
    pub config: Option<Digest>,
    /// `linux/amd64`, `linux/arm64/v8`; empty if unknown.
    pub platform: String,
    /// When the image was made, milliseconds since 1970.
    pub created_ms: Option<i64>,
    /// Bytes of all layers as they are stored.
    pub size: u64,
    /// The configuration's labels.
    pub labels: Vec<(String, String)>,
}

/// How far a scan came. Only `Complete` with no findings means that none are known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// All was read.
    Complete,
    /// Something was not: the findings are true but may not be all.
    Partial {
        /// What was not read, and why.
        problems: Vec<Problem>,
    },
    /// Nothing can be said: no package database, an unknown distribution, no advisories for it.
    Unsupported {
        /// Why.
        reason: String,
    },
}

/// Which advisories were used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseStamp {
    /// Number of the generation.
    pub generation: u64,
    /// sha256 of the database file, hex.
    pub checksum: String,
    /// When it was compiled, milliseconds since 1970.
    pub built_ms: i64,
    /// (source, when it was fetched, milliseconds since 1970).
    pub sources: Vec<(String, i64)>,
}

/// A report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form: 1.
    pub schema: u32,
    /// What was scanned.
    pub image: ImageIdentity,
    /// How far it came.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The distribution.
    pub distribution: Option<Distribution>,
    /// End of the distribution's security support, `YYYY-MM-DD`, where known.
    #[serde(default)]
    pub end_of_life: Option<String>,
    /// Layers from the lowest up.
    pub layers: Vec<LayerReference>,
    /// All packages.
    pub packages: Vec<PlacedPackage>,
    /// What counts, the most severe first, then by package and id.
    pub findings: Vec<Finding>,
    /// What does not count, and why.
    #[serde(default)]
    pub suppressed: Vec<Suppressed>,
    /// The advisories used.
    pub database: DatabaseStamp,
    /// When, milliseconds since 1970.
    pub scanned_ms: i64,
}

impl Report {
    /// The most severe finding's severity; `None` if there are none.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Findings of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
