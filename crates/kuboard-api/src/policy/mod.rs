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
//! Objects of a cluster go through [`Policy::from_object`], [`Policy::from_cluster_object`] and
//! [`Exemption::from_object`].

mod admission;
mod check;
mod cron;
mod exemption;
mod load;
mod schedule;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

pub use admission::{Admission, Mode, OnError, OnUnscanned, Requirement, Selector};
pub use check::{Policy, Threshold};
pub use exemption::{Exemption, MAX_AHEAD_MS};
pub use load::{Folder, Loaded, LoadedExemption, PolicyError, PolicyProblem, Skipped, load, parse};
pub use schedule::{Schedule, ScheduleError};

pub use crate::crd::ImageScanPolicySpec;

/// Group and version of the objects.
pub const API_VERSION: &str = "kuboard.cn/v1alpha1";

/// Which object it is. Other metadata of a cluster is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name, unique for its kind in its namespace.
    pub name: String,
    /// Namespace, of a kind that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl From<&ObjectMeta> for Metadata {
    fn from(metadata: &ObjectMeta) -> Self {
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone(),
            labels: metadata.labels.clone().unwrap_or_default(),
        }
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
