//! What was seen of a cluster at one moment: all that the judgements read, so that they need no
//! cluster to be tested.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    coordination::v1::Lease,
    core::v1::{
        Event, Namespace, Node, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use serde::Deserialize;

/// A cluster at one moment. What could not be read is empty, and said so elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Observed {
    /// Our namespace.
    pub(crate) home: String,
    /// The time here, milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// The API server's clock, where it told it, milliseconds since 1970.
    pub(crate) server_ms: Option<i64>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) events: Vec<Event>,
    pub(crate) service_accounts: Vec<ServiceAccount>,
    pub(crate) secrets: Vec<Secret>,
    /// Secrets could be listed; without that, a missing one proves nothing.
    pub(crate) secrets_known: bool,
    pub(crate) network_policies: Vec<NetworkPolicy>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) stateful_sets: Vec<StatefulSet>,
    pub(crate) daemon_sets: Vec<DaemonSet>,
    pub(crate) services: Vec<Service>,
    pub(crate) endpoints: Vec<EndpointSlice>,
    pub(crate) claims: Vec<PersistentVolumeClaim>,
    pub(crate) leases: Vec<Lease>,
    pub(crate) webhooks: Vec<ValidatingWebhookConfiguration>,
    /// CRDs of ours that are there, with whether they are established.
    pub(crate) crds: BTreeMap<String, bool>,
}

/// `namespace/name` of an object.
pub(crate) fn full_name(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match metadata.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
