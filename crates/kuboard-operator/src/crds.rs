//! Our kinds in the cluster: made and brought up to date by server-side apply. Only additions are
//! made to a kind, so an older replica beside a newer one does no harm; it does not write what
//! the newer one wrote.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};

use crate::{Error, OperatorMetrics, apply::apply, client::ask};

const PATIENCE: u32 = 60;
const BETWEEN: Duration = Duration::from_millis(250);

/// Applies all kinds and waits until the API server serves them.
///
/// # Errors
/// They can't be written, or are not served within a quarter of a minute.
pub async fn install(client: &Client, metrics: Option<&OperatorMetrics>) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = kuboard_api::crd::all();
    for wanted in &all {
        if apply(&api, wanted, metrics).await? {
            tracing::info!(kind = wanted.spec.names.kind, "kind installed");
        }
    }
    for wanted in &all {
        await_served(&api, &wanted.name_any()).await?;
    }
    Ok(())
}

async fn await_served(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), Error> {
    let what = format!("read CustomResourceDefinition {name}");
    let mut said = String::new();
    for _ in 0..PATIENCE {
        let found = ask(&what, || api.get(name)).await?;
        let conditions = found.status.and_then(|it| it.conditions).unwrap_or_default();
        if conditions.iter().any(|it| it.type_ == "Established" && it.status == "True") {
            return Ok(());
        }
        said = conditions
            .iter()
            .filter(|it| it.status == "False")
            .filter_map(|it| it.message.clone())
            .collect::<Vec<_>>()
            .join("; ");
        tokio::time::sleep(BETWEEN).await;
    }
    Err(Error::Content {
        object: format!("CustomResourceDefinition {name}"),
        reason: format!("the API server does not serve it: {said}"),
    })
}
