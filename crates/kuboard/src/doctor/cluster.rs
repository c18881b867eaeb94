//! Reads a cluster: everything that the judgements want, in one go, with bounded answers.

use std::time::Duration;

use k8s_openapi::{
    NamespaceResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, Resource, api::ListParams};
use kuboard_api::names;
use serde::de::DeserializeOwned;

use super::{finding::Diagnosis, observed::Observed};

/// Objects of a kind that are read.
const MOST: u32 = 5000;
/// No question waits longer.
const WAIT: Duration = Duration::from_secs(10);

/// Reads everything; what can't be read is noted.
pub(crate) async fn observe(
    client: &Client,
    home: &str,
    only: Option<&str>,
    now_ms: i64,
    diagnosis: &mut Diagnosis,
) -> Observed {
    let mut seen = Observed { home: home.to_owned(), now_ms, ..Observed::default() };
    seen.server_ms = server_clock(client).await;
    seen.namespaces = all(client, diagnosis, "namespaces").await.unwrap_or_default();
    seen.nodes = all(client, diagnosis, "nodes").await.unwrap_or_default();
    seen.webhooks = all(client, diagnosis, "webhooks").await.unwrap_or_default();
    let crds: Vec<CustomResourceDefinition> =
        all(client, diagnosis, "custom resources").await.unwrap_or_default();
    seen.crds = crds
        .into_iter()
        .filter(|it| it.spec.group == names::GROUP)
        .map(|it| {
            let conditions = it.status.iter().flat_map(|it| it.conditions.iter().flatten());
            let is_there = |c: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition| {
                c.type_ == "Established" && c.status == "True"
            };
            let established = conditions.into_iter().any(is_there);
            (it.metadata.name.unwrap_or_default(), established)
        })
        .collect();
    // A pod's own namespace is enough to judge it; without one, all are looked at.
    let scope = only.and_then(|name| name.split_once('/')).map(|(namespace, _)| namespace);
    seen.pods = of(client, diagnosis, "pods", scope, home).await.unwrap_or_default();
    seen.events = of(client, diagnosis, "events", scope, home).await.unwrap_or_default();
    seen.service_accounts =
        of(client, diagnosis, "service accounts", scope, home).await.unwrap_or_default();
    let secrets = of(client, diagnosis, "secrets", scope, home).await;
    seen.secrets_known = secrets.is_some();
    seen.secrets = secrets.unwrap_or_default();
    let home = Some(home);
    seen.network_policies = within(client, diagnosis, "network policies", home).await;
    seen.deployments = within(client, diagnosis, "deployments", home).await;
    seen.stateful_sets = within(client, diagnosis, "stateful sets", home).await;
    seen.daemon_sets = within(client, diagnosis, "daemon sets", home).await;
    seen.services = within(client, diagnosis, "services", home).await;
    // Webhooks of others stand behind Services of other namespaces.
    seen.endpoints = within(client, diagnosis, "endpoints", None).await;
    seen.claims = within(client, diagnosis, "volume claims", home).await;
    seen.leases = within(client, diagnosis, "leases", home).await;
    seen
}

/// The API server's clock, from the head of an answer.
async fn server_clock(client: &Client) -> Option<i64> {
    let request = http::Request::get("/version").body(Vec::new()).ok()?;
    let answer =
        tokio::time::timeout(WAIT, client.send(request.map(Into::into))).await.ok()?.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(time.as_millisecond())
}

async fn all<K>(client: &Client, diagnosis: &mut Diagnosis, what: &str) -> Option<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    list(Api::all(client.clone()), diagnosis, what).await
}

/// Objects of our namespace and of the one that is asked for; of all if none is.
async fn of<K>(
    client: &Client,
    diagnosis: &mut Diagnosis,
    what: &str,
    scope: Option<&str>,
    home: &str,
) -> Option<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let Some(scope) = scope else {
        return list(Api::all(client.clone()), diagnosis, what).await;
    };
    let mut found = list(Api::namespaced(client.clone(), scope), diagnosis, what).await?;
    if scope != home {
        found.extend(
            list(Api::namespaced(client.clone(), home), diagnosis, what).await.unwrap_or_default(),
        );
    }
    Some(found)
}

async fn within<K>(
    client: &Client,
    diagnosis: &mut Diagnosis,
    what: &str,
    namespace: Option<&str>,
) -> Vec<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    list(api, diagnosis, what).await.unwrap_or_default()
}

async fn list<K>(api: Api<K>, diagnosis: &mut Diagnosis, what: &str) -> Option<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let parameters = ListParams::default().limit(MOST);
    match tokio::time::timeout(WAIT, api.list(&parameters)).await {
        Ok(Ok(found)) if found.metadata.continue_.as_deref().is_some_and(|it| !it.is_empty()) => {
            diagnosis.blind(what, format!("only the first {MOST} were looked at"));
            Some(found.items)
        }
        Ok(Ok(found)) => {
            diagnosis.looked(what);
            Some(found.items)
        }
        Ok(Err(error)) => {
            diagnosis.blind(what, error);
            None
        }
        Err(_) => {
            diagnosis.blind(what, format!("no answer within {} s", WAIT.as_secs()));
            None
        }
    }
}
