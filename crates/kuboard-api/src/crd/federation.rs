//! `RegistryFederation`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    problems::Problems,
    schema::{self, conditions, plain},
};
use crate::{error::Problem, text::HttpUrl};

/// Seconds between two looks at a member.
const SYNC_SECONDS: std::ops::RangeInclusive<i64> = 60..=86_400;
const URL: (&str, &str) = (
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != '' && \
     !self.contains('@') && !self.contains('?') && !self.contains('#')",
    "write https://host, https://host:port or, without TLS, http://host:port; credentials, queries \
     and fragments do not belong here",
);

/// Registries whose catalogues are kept together.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema,
)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "RegistryFederation",
    doc = "Registries of several clouds whose catalogues are kept together.",
    namespaced,
    status = "RegistryFederationStatus",
    derive = "PartialEq",
    shortname = "regfed",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    printcolumn(name = "Members", type_ = "string", json_path = ".spec.members[*].name"),
    printcolumn(name = "Conflicts", type_ = "string", json_path = ".spec.conflictResolution"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct RegistryFederationSpec {
    /// The registries, each under a name of its own.
    #[schemars(
        length(min = 1, max = 50),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub members: Vec<FederationMember>,
    /// Which member is right where a tag differs: latestTimestamp, the one that changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["latestTimestamp"]))]
    pub conflict_resolution: Option<String>,
}

/// A registry of a federation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct FederationMember {
    /// Its name in the federation: us-west.
    #[schemars(
        length(min = 1, max = 63),
        extend("pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Its URL: https://us.registry.example.com.
    #[schemars(
        length(min = 1, max = 512),
        extend("x-kubernetes-validations" = schema::rules(&[URL]))
    )]
    pub endpoint: String,
    /// Seconds between two looks at its catalogue, 60 to 86400. Unset is 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86400))]
    pub sync_interval: Option<i64>,
}

/// What is reported about a federation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct RegistryFederationStatus {
    /// The generation of the federation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: all members answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

impl RegistryFederation {
    /// Looks for what the schema cannot say, for files that no API server has seen.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Problems::default();
        let members = &self.spec.members;
        if members.is_empty() || members.len() > 50 {
            problems.add("spec.members", "not between 1 and 50 members", "name the registries");
        }
        for (number, member) in members.iter().enumerate() {
            let key = |field: &str| format!("spec.members[{number}].{field}");
            if members.iter().take(number).any(|other| other.name == member.name) {
                let fact = format!("\"{}\" stands twice", member.name);
                problems.add(key("name"), fact, "give each member a name of its own");
            }
            if let Err(fact) = member.endpoint.parse::<HttpUrl>() {
                problems.told(key("endpoint"), &fact);
            }
            if member.sync_interval.is_some_and(|seconds| !SYNC_SECONDS.contains(&seconds)) {
                let hint = "write 60 to 86400";
                problems.add(key("syncInterval"), "not a number of seconds in the bounds", hint);
            }
        }
        if self.spec.conflict_resolution.as_ref().is_some_and(|it| it != "latestTimestamp") {
            let hint = "latestTimestamp is known";
            problems.add("spec.conflictResolution", "no such way to resolve conflicts", hint);
        }
        problems.end()
    }
}
