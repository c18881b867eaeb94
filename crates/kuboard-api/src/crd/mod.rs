//! The kinds of objects in a cluster, `kuboard.cn/v1alpha1`: as they are written ([`ImageScanPolicy`]
//! and the others hold a spec and a status), and the definitions that an API server takes.
//!
//! A spec is read leniently: words that have a meaning are text here and are checked by
//! [`crate::policy`] and the `check` functions, so that one object which an older or newer schema
//! let through can't keep the others from being read.

#![expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

mod condition;
mod credential;
mod exemption;
mod federation;
mod fields;
mod policy;
pub(crate) mod problems;
mod reference;
mod report;
mod schema;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use condition::{ACTIVE, COMPLIANT, ENFORCING, READY, Said, set_condition, time};
pub use credential::{
    Credential, CredentialProvider, CredentialSource, RegistryCredential, RegistryCredentialSpec,
    RegistryCredentialStatus, SecretReference,
};
pub use exemption::{ImageExemption, ImageExemptionSpec, ImageExemptionStatus};
pub use federation::{
    FederationMember, RegistryFederation, RegistryFederationSpec, RegistryFederationStatus,
};
pub(crate) use fields::unknown_fields;
pub use policy::{
    ClusterImageScanPolicy, ClusterImageScanPolicySpec, ImageCounts, ImageScanPolicy,
    ImageScanPolicySpec, ImageScanPolicyStatus, LabelRequirement, LabelSelector,
};
pub use reference::{manifests, reference_markdown};
pub use report::{
    AdvisoryStamp, FindingCounts, ImageReport, ImageReportSpec, ImageReportStatus, MAX_BYTES,
    MAX_FINDINGS, NamespaceVerdict, ReportedFinding, report_digest, report_name,
};

/// The definitions of all kinds, by name.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        ClusterImageScanPolicy::crd(),
        ImageExemption::crd(),
        ImageReport::crd(),
        ImageScanPolicy::crd(),
        RegistryCredential::crd(),
        RegistryFederation::crd(),
    ]
}
