//! What is known of an image, cut down to what a verdict at admission reads: one small value per
//! digest, of which a process holds a hundred thousand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Outcome, Report, Severity};

/// How far the facts go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// Everything was read.
    All,
    /// Something was not; the findings are true but may not be all.
    Part(Arc<str>),
    /// Nothing can be said.
    Nothing(Arc<str>),
}

/// A finding as a verdict reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// The CVE id if there is one, else the advisory's own.
    pub id: Arc<str>,
    /// All other ids.
    pub aliases: Arc<[Arc<str>]>,
    /// Name of the package.
    pub package: Arc<str>,
    /// Installed version.
    pub version: Arc<str>,
    /// The lowest version that fixes it, if one is known.
    pub fixed_in: Option<Arc<str>>,
    /// The step that counts.
    pub severity: Severity,
    /// Known to be exploited.
    pub exploited: bool,
    /// Probability of exploitation, in 1/100000, where known.
    pub epss: Option<u32>,
    /// When it was first seen in this image, milliseconds since 1970.
    pub first_seen_ms: i64,
}

/// What is known of an image's manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageFacts {
    /// How far the facts go.
    pub known: Known,
    /// What counts, the most severe first. What rules and VEX documents took away is not here.
    pub findings: Vec<Fact>,
    /// When it was first scanned, milliseconds since 1970.
    pub first_scanned_ms: i64,
    /// When it was last matched with advisories, milliseconds since 1970.
    pub scanned_ms: i64,
}

impl ImageFacts {
    /// The facts of a report. `first_scanned_ms` comes from who keeps history; findings whose
    /// first sight nobody noted count as seen at that moment.
    #[must_use]
    pub fn of(report: &Report, first_scanned_ms: i64) -> Self {
        let known = match &report.outcome {
            Outcome::Complete => Known::All,
            Outcome::Partial { problems } => Known::Part(
                problems.first().map_or("the image was partly read", |it| it.why.as_str()).into(),
            ),
            Outcome::Unsupported { reason } => Known::Nothing(reason.as_str().into()),
        };
        let fact = |finding: &crate::Finding| Fact {
            id: finding.id.as_str().into(),
            aliases: finding.aliases.iter().map(|id| id.as_str().into()).collect(),
            package: finding.package.name.as_str().into(),
            version: finding.package.version.as_str().into(),
            fixed_in: finding.fixed_in.first().map(|version| version.as_str().into()),
            severity: finding.severity,
            exploited: finding.known_exploited.is_some(),
            epss: finding.epss.map(|epss| epss.probability),
            first_seen_ms: finding.first_seen_ms.unwrap_or(first_scanned_ms),
        };
        Self {
            known,
            findings: report.findings.iter().map(fact).collect(),
            first_scanned_ms,
            scanned_ms: report.scanned_ms,
        }
    }
}
