//! `ImageExemption`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Moment, conditions, plain};

const SOMETHING: (&str, &str) = (
    "(has(self.images) && size(self.images) > 0) || \
     (has(self.vulnerabilities) && size(self.vulnerabilities) > 0) || \
     (has(self.packages) && size(self.packages) > 0)",
    "name images, vulnerabilities or packages; what should not be blocked at all needs a policy \
     with mode: Audit",
);
const REASON: (&str, &str) = ("self.trim() != ''", "say why");

/// Findings that somebody answers for, until a day that must be named. A finding is exempt if all
/// of the lists that are given match it.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema,
)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "ImageExemption",
    doc = "Findings that somebody answers for in a namespace, until a day that must be named.",
    namespaced,
    status = "ImageExemptionStatus",
    derive = "PartialEq",
    shortname = "iex",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Active\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain, extend("x-kubernetes-validations" = schema::rules(&[SOMETHING])))]
pub struct ImageExemptionSpec {
    /// Images, as globs over registry/repository or registry/repository:tag; none means all of the
    /// namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 512)))]
    pub images: Vec<String>,
    /// Ids of vulnerabilities in any case, CVE-2026-1234 or GHSA-…; * stands for any part. None
    /// means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 128)))]
    pub vulnerabilities: Vec<String>,
    /// Names of packages; * stands for any part. None means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 256)))]
    pub packages: Vec<String>,
    /// Why. It is shown with everything that the exemption lets through.
    #[schemars(
        length(min = 1, max = 1024),
        extend("x-kubernetes-validations" = schema::rules(&[REASON]))
    )]
    pub reason: String,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub owner: Option<String>,
    /// When it ends, at most 90 days ahead: 2026-12-31T00:00:00Z.
    #[schemars(with = "Moment")]
    pub expires_at: String,
}

/// What the operator reports about an exemption.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ImageExemptionStatus {
    /// The generation of the exemption that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Active: it holds; otherwise it is over, or something is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
