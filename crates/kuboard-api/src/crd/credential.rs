//! `RegistryCredential`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    problems::{Problems, is_namespace},
    schema::{self, Moment, conditions, plain},
};
use crate::{error::Problem, globs::Globs};

const ONE_SOURCE: (&str, &str) =
    ("has(self.secretRef) != has(self.provider)", "name either a secretRef or a provider");

/// What registries are asked with.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema,
)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "RegistryCredential",
    doc = "What registries are asked with, for pulls and scans on behalf of namespaces.",
    namespaced,
    status = "RegistryCredentialStatus",
    derive = "PartialEq",
    shortname = "regcred",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    printcolumn(name = "Registries", type_ = "string", json_path = ".spec.registries"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".spec.secretRef.name"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider.kind"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain, extend("x-kubernetes-validations" = schema::rules(&[ONE_SOURCE])))]
pub struct RegistryCredentialSpec {
    /// Hosts of registries, as globs, with a port where they have one: registry.example.com:5000,
    /// *.dkr.ecr.*.amazonaws.com.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 253)))]
    pub registries: Vec<String>,
    /// A Secret of the same namespace: kubernetes.io/dockerconfigjson, or kubernetes.io/basic-auth
    /// with username and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// A cloud that gives out tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<CredentialProvider>,
    /// Other namespaces whose pods may be served with it; * is all. None means its own only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 63)))]
    pub allowed_namespaces: Vec<String>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A cloud that gives out tokens to who runs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct CredentialProvider {
    /// Ecr: the registry of AWS, with the identity that the pod or node has there.
    #[schemars(extend("enum" = ["Ecr"]))]
    pub kind: String,
    /// Its region, where the host does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
}

/// What the operator reports about a credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct RegistryCredentialStatus {
    /// The generation of the credential that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the Secret is there and has the right shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// When a registry last took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub last_verified: Option<String>,
    /// When it ends, of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub expires_at: Option<String>,
}

/// A credential that was checked.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where the secret comes from.
    pub source: CredentialSource,
    registries: Globs,
    allowed_namespaces: Vec<String>,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The Secret of that name in the credential's namespace.
    Secret(String),
    /// Tokens of the AWS registry, in a region if the host does not tell it.
    Ecr {
        /// The region.
        region: Option<String>,
    },
}

impl Credential {
    /// Whether it is for a registry: a host, with its port if it has one.
    #[must_use]
    pub fn is_for(&self, registry: &str) -> bool {
        self.registries.matches(registry)
    }

    /// Whether pods of a namespace may be served with it.
    #[must_use]
    pub fn allows(&self, namespace: &str) -> bool {
        namespace == self.namespace
            || self.allowed_namespaces.iter().any(|it| it == "*" || it == namespace)
    }
}

impl RegistryCredential {
    /// What it means.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<Credential, Vec<Problem>> {
        let mut problems = Problems::default();
        let spec = &self.spec;
        if spec.registries.is_empty() {
            problems.add("spec.registries", "no registry is named", "write hosts: [quay.io]");
        }
        let registries = problems.globs("spec.registries", &spec.registries, 100);
        for (number, namespace) in spec.allowed_namespaces.iter().enumerate() {
            if namespace != "*" && !is_namespace(namespace) {
                let key = format!("spec.allowedNamespaces[{number}]");
                problems.add(key, "not a namespace", "write its name, or \"*\" for all");
            }
        }
        let source = match (&spec.secret_ref, &spec.provider) {
            (Some(secret), None) => Some(CredentialSource::Secret(secret.name.clone())),
            (None, Some(provider)) if provider.kind == "Ecr" => {
                Some(CredentialSource::Ecr { region: provider.region.clone() })
            }
            (None, Some(_)) => {
                problems.add("spec.provider.kind", "no such provider", "Ecr is known");
                None
            }
            _ => {
                let hint = "one of them says where the secret comes from";
                problems.add("spec", "not exactly one of secretRef and provider", hint);
                None
            }
        };
        match (problems.end(), source) {
            (Ok(()), Some(source)) => Ok(Credential {
                namespace: self.metadata.namespace.clone().unwrap_or_default(),
                name: self.metadata.name.clone().unwrap_or_default(),
                source,
                registries,
                allowed_namespaces: spec.allowed_namespaces.clone(),
            }),
            (Ok(()), None) => Err(Vec::new()),
            (Err(problems), _) => Err(problems),
        }
    }
}
