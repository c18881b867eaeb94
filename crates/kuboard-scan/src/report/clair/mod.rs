//! Clair v4's documents: index reports and vulnerability reports, as claircore 1.5 writes them
//! where the published schemas say something else (`kind` in lower case, empty strings for CPEs
//! that are not known). Clients check that all strings are there, so none is left out.
//!
//! Ids are small decimal numbers in the order of the inventory: the same inventory always has the
//! same ids, in both documents. Clair has no word for a partly read image; who serves these
//! documents must say it elsewhere ([`IndexOutcome::Failed`] for what can't be reported at all).

mod build;
mod cpe;
mod enrichment;

use std::collections::BTreeMap;

use kuboard_oci::Digest;
use kuboard_vuln::{ImageInventory, Report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::enrichment::{CVSS_KEY, EPSS_KEY, KEV_KEY};

/// Media type of [`VulnerabilityReport`].
pub const VULNERABILITY_REPORT_MEDIA_TYPE: &str =
    "application/vnd.clair.vulnerability_report.v1+json";
/// Media type of [`IndexReport`].
pub const INDEX_REPORT_MEDIA_TYPE: &str = "application/vnd.clair.index_report.v1+json";
/// [`IndexReport::state`] of an index that is done.
pub const INDEX_FINISHED: &str = "IndexFinished";
/// [`IndexReport::state`] of one that failed.
pub const INDEX_ERROR: &str = "IndexError";

/// A package.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Package {
    /// Its id in the document.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `binary` or `source`.
    pub kind: String,
    /// The source package it was built from; never `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Package>>,
    /// Always empty: no client reads it.
    pub normalized_version: String,
    /// `name:stream` of a modular rpm.
    pub module: String,
    /// Architecture.
    pub arch: String,
    /// CPE 2.3, or empty.
    pub cpe: String,
}

/// A distribution.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    /// Its id in the document.
    pub id: String,
    /// `ID`.
    pub did: String,
    /// `NAME`.
    pub name: String,
    /// `VERSION`.
    pub version: String,
    /// `VERSION_CODENAME`.
    pub version_code_name: String,
    /// `VERSION_ID`.
    pub version_id: String,
    /// Always empty, as Clair's.
    pub arch: String,
    /// CPE 2.3, or empty.
    pub cpe: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
}

/// A repository of packages.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Repository {
    /// Its id in the document.
    pub id: String,
    /// `go`, `pypi`, …, or a CPE of Red Hat's.
    pub name: String,
    /// `rhel-cpe-repository` for those.
    pub key: String,
    /// Address, or empty.
    pub uri: String,
    /// CPE 2.3, or empty.
    pub cpe: String,
}

/// Where a package is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The file or folder that states it, `var/lib/dpkg/status`, `sqlite:var/lib/rpm`, `go:app`.
    pub package_db: String,
    /// Digest of the layer.
    pub introduced_in: String,
    /// Id of the distribution; empty for packages of languages.
    pub distribution_id: String,
    /// Ids of repositories.
    pub repository_ids: Vec<String>,
}

/// A vulnerability.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Vulnerability {
    /// Its id in the document.
    pub id: String,
    /// Source of the advisory.
    pub updater: String,
    /// `CVE-2024-1234`.
    pub name: String,
    /// Text.
    pub description: String,
    /// RFC 3339; the year 1 if not known, as Go writes it.
    pub issued: String,
    /// Addresses, separated by blanks.
    pub links: String,
    /// The source's own word or vector.
    pub severity: String,
    /// `Critical`, `High`, `Medium`, `Low`, `Negligible`, `Unknown`.
    pub normalized_severity: String,
    /// The package it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Its distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Or its repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The version that fixes it, or empty.
    pub fixed_in_version: String,
    /// How the architecture of `package` compares; an empty one is any.
    pub arch_op: String,
}

/// What an image contains.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexReport {
    /// Digest of the image's manifest.
    pub manifest_hash: String,
    /// [`INDEX_FINISHED`] or [`INDEX_ERROR`].
    pub state: String,
    /// By id.
    pub packages: BTreeMap<String, Package>,
    /// By id.
    pub distributions: BTreeMap<String, Distribution>,
    /// By id.
    pub repository: BTreeMap<String, Repository>,
    /// By the package's id.
    pub environments: BTreeMap<String, Vec<Environment>>,
    /// Whether it was indexed.
    pub success: bool,
    /// Why not.
    pub err: String,
}

/// What an image contains, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VulnerabilityReport {
    /// Digest of the image's manifest.
    pub manifest_hash: String,
    /// By id.
    pub packages: BTreeMap<String, Package>,
    /// By id.
    pub distributions: BTreeMap<String, Distribution>,
    /// By id.
    pub repository: BTreeMap<String, Repository>,
    /// By the package's id.
    pub environments: BTreeMap<String, Vec<Environment>>,
    /// By id.
    pub vulnerabilities: BTreeMap<String, Vulnerability>,
    /// Ids of vulnerabilities by the package's id.
    pub package_vulnerabilities: BTreeMap<String, Vec<String>>,
    /// CVSS, EPSS and KEV, each a list with one map from a vulnerability's id to objects.
    pub enrichments: BTreeMap<String, Vec<Value>>,
}

/// How an index ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexOutcome<'a> {
    /// It is done.
    Finished,
    /// It failed, for this reason.
    Failed(&'a str),
}

/// The index report of an image.
#[must_use]
pub fn index_report(
    manifest: &Digest,
    inventory: &ImageInventory,
    outcome: IndexOutcome<'_>,
) -> IndexReport {
    let contents = build::Contents::of(
        inventory.distribution.as_ref(),
        &inventory.layers,
        &inventory.packages,
    );
    let (state, success, err) = match outcome {
        IndexOutcome::Finished => (INDEX_FINISHED, true, ""),
        IndexOutcome::Failed(reason) => (INDEX_ERROR, false, reason),
    };
    IndexReport {
        manifest_hash: manifest.to_string(),
        state: state.to_owned(),
        packages: contents.packages,
        distributions: contents.distributions,
        repository: contents.repositories,
        environments: contents.environments,
        success,
        err: err.to_owned(),
    }
}

/// The vulnerability report of an image. The manifest's hash is empty if the report's image has
/// neither a manifest nor a configuration (folders, bills of materials).
#[must_use]
pub fn vulnerability_report(report: &Report) -> VulnerabilityReport {
    let contents =
        build::Contents::of(report.distribution.as_ref(), &report.layers, &report.packages);
    let (vulnerabilities, package_vulnerabilities, ids) = contents.vulnerabilities(report);
    let digest = report.image.digest.as_ref().or(report.image.config.as_ref());
    VulnerabilityReport {
        manifest_hash: digest.map(ToString::to_string).unwrap_or_default(),
        packages: contents.packages,
        distributions: contents.distributions,
        repository: contents.repositories,
        environments: contents.environments,
        vulnerabilities,
        package_vulnerabilities,
        enrichments: enrichment::of(report, &ids),
    }
}
