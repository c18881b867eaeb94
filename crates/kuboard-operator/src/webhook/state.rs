//! Whether the webhook is armed, and whether somebody took it away on purpose.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::ConfigMap,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
};
use kuboard_api::names;
use serde::Serialize;

use super::configuration::PROBE_CONFIGURATION;
use crate::{Error, apply::remove, client::ask};

/// The ConfigMap that says so, in our own namespace.
pub const STATE: &str = "kuboard-admission-state";
const DISARMED: &str = "disarmed";
const PROBLEM: &str = "problem";

/// What `kuboard admission status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The API server calls us for pods.
    pub armed: bool,
    /// Pods get digests in the place of tags.
    pub mutating: bool,
    /// Who took it away on purpose and when; the operator leaves it so until it is armed again.
    pub disarmed: Option<String>,
    /// Why it is not armed though nobody took it away.
    pub problem: Option<String>,
    /// The webhooks and what happens while they do not answer, `Fail` or `Ignore`.
    pub webhooks: BTreeMap<String, String>,
    /// The authorities that the API server trusts, PEM.
    #[serde(skip)]
    pub bundle: String,
}

/// Reads it.
///
/// # Errors
/// The cluster could not be read.
pub async fn status(client: &Client, namespace: &str) -> Result<Status, Error> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let what = format!("read ValidatingWebhookConfiguration {}", names::WEBHOOK);
    let validating = ask(&what, || api.get_opt(names::WEBHOOK)).await?;
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let what = format!("read MutatingWebhookConfiguration {}", names::WEBHOOK);
    let mutating = ask(&what, || api.get_opt(names::WEBHOOK)).await?;
    let marks = marks(client, namespace).await?;
    let webhooks = validating.and_then(|it| it.webhooks).unwrap_or_default();
    let bundle = webhooks
        .iter()
        .find_map(|it| it.client_config.ca_bundle.as_ref())
        .map(|it| String::from_utf8_lossy(&it.0).into_owned())
        .unwrap_or_default();
    let mark = |key: &str| marks.get(key).filter(|it| !it.is_empty()).cloned();
    Ok(Status {
        armed: !webhooks.is_empty(),
        mutating: mutating.and_then(|it| it.webhooks).is_some_and(|it| !it.is_empty()),
        disarmed: mark(DISARMED),
        problem: mark(PROBLEM),
        webhooks: webhooks
            .into_iter()
            .map(|it| (it.name, it.failure_policy.unwrap_or_else(|| "Fail".to_owned())))
            .collect(),
        bundle,
    })
}

/// Takes the webhook away and leaves word of it, so that the operator does not arm it again.
/// Needs no running pod of ours. `by` is who did it, for whoever wonders later.
///
/// # Errors
/// The cluster could not be written. Done again, it goes on where it ended.
pub async fn disarm(client: &Client, namespace: &str, by: &str, now_ms: i64) -> Result<(), Error> {
    // The word first: else the operator might arm it again in between. But a namespace that is
    // gone, or going, must not keep anybody from taking the webhook away.
    let told = mark(client, namespace, DISARMED, &format!("{by}, {}", moment(now_ms))).await;
    take_away(client).await?;
    match told {
        Err(error) if !error.is_not_found() && !error.is_forbidden() => Err(error),
        _ => Ok(()),
    }
}

/// Lets the operator arm the webhook again, which it does after its self-test. Whether it did
/// [`status`] tells.
///
/// # Errors
/// The cluster could not be written.
pub async fn allow(client: &Client, namespace: &str) -> Result<(), Error> {
    mark(client, namespace, DISARMED, "").await
}

/// Removes the webhook configurations.
pub(super) async fn take_away(client: &Client) -> Result<(), Error> {
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    remove(&validating, names::WEBHOOK).await?;
    remove(&mutating, names::WEBHOOK).await?;
    remove(&validating, PROBE_CONFIGURATION).await?;
    Ok(())
}

/// Notes why the webhook is not armed; empty: it is.
pub(super) async fn note_problem(
    client: &Client,
    namespace: &str,
    problem: &str,
) -> Result<(), Error> {
    let noted = marks(client, namespace).await?;
    if noted.get(PROBLEM).map_or("", String::as_str) == problem {
        return Ok(());
    }
    mark(client, namespace, PROBLEM, problem).await
}

async fn marks(client: &Client, namespace: &str) -> Result<BTreeMap<String, String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let what = format!("read ConfigMap {namespace}/{STATE}");
    let found = ask(&what, || api.get_opt(STATE)).await?;
    Ok(found.and_then(|it| it.data).unwrap_or_default())
}

/// Says that we are being uninstalled; the word goes with `owner`, so that it keeps nobody from
/// arming the webhook of a later installation.
pub(super) async fn say_uninstalled(
    client: &Client,
    namespace: &str,
    owner: OwnerReference,
) -> Result<(), Error> {
    mark_with(client, namespace, (DISARMED, "uninstalled"), Some(owner)).await
}

pub(super) fn marks_of(client: &Client, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), namespace)
}

async fn mark(client: &Client, namespace: &str, key: &str, value: &str) -> Result<(), Error> {
    mark_with(client, namespace, (key, value), None).await
}

/// Each key has a field manager of its own, so that writing one leaves the other.
async fn mark_with(
    client: &Client,
    namespace: &str,
    (key, value): (&str, &str),
    owner: Option<OwnerReference>,
) -> Result<(), Error> {
    let api = marks_of(client, namespace);
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(STATE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([(key.to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(&format!("{}-{key}", names::MANAGER)).force();
    let what = format!("write ConfigMap {namespace}/{STATE}");
    let patch = Patch::Apply(&object);
    ask(&what, || api.patch(STATE, &params, &patch)).await.map(drop)
}

fn moment(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}
