//! Policies: what is scanned when, and which findings count. The same objects as in a cluster
//! (`kuboard.cn/v1alpha1`), read from YAML files where there is none.
//!
//! ```yaml
//! apiVersion: kuboard.cn/v1alpha1
//! kind: ImageScanPolicy
//! metadata:
//!   name: production-scan
//! spec:
//!   severityThreshold: HIGH
//!   excludeRegistries:
//!     - "*.internal.corp"
//!   schedule: "0 */6 * * *"
//!   timeZone: Asia/Shanghai
//! ```
//!
//! [`load`] reads a folder, [`parse`] one text; both check everything and say where what is wrong.

mod check;
mod cron;
mod load;
mod schedule;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use check::{Policy, Threshold};
pub use load::{Folder, Loaded, PolicyError, PolicyProblem, Skipped, load, parse};
pub use schedule::{Schedule, ScheduleError};

/// Group and version of the objects.
pub const API_VERSION: &str = "kuboard.cn/v1alpha1";

/// A policy of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageScanPolicy {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ImageScanPolicy`.
    pub kind: String,
    /// Its name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: ImageScanPolicySpec,
    /// What a cluster reports about it; not read.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

/// A policy of the whole cluster: the same, without a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterImageScanPolicy {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ClusterImageScanPolicy`.
    pub kind: String,
    /// Its name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: ImageScanPolicySpec,
    /// What a cluster reports about it; not read.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

/// Which policy it is. Other metadata of a cluster is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name, unique for its kind in its namespace.
    pub name: String,
    /// Namespace, of an `ImageScanPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a policy says. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageScanPolicySpec {
    /// The least severity that counts: `LOW`, `MEDIUM`, `HIGH` or `CRITICAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity_threshold: Option<String>,
    /// Findings that no known version fixes do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_unfixed: bool,
    /// Registries whose images are left alone, as globs over the host: `*.internal.corp`. A port
    /// need not be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_registries: Vec<String>,
    /// Images it is about, as globs over `registry/repository` or `registry/repository:tag`; `*`
    /// is a part of one component, `**` any number of them. None means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// When images are scanned again, in five fields of cron.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Time zone of `schedule`, such as `Asia/Shanghai`; unset is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Keep the policy and do nothing by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
}

/// Any value, passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

/// Whom a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One namespace.
    Namespace,
    /// The cluster.
    Cluster,
}

impl Scope {
    /// The kind of its objects.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Namespace => "ImageScanPolicy",
            Self::Cluster => "ClusterImageScanPolicy",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}
