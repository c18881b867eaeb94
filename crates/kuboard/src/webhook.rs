//! `kuboard admission`: the webhook and its decisions, by hand. Arming and disarming need nothing
//! but a kubeconfig: they work while no pod of ours runs.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kuboard_api::Config;
use kuboard_catalog::{DecisionFilter, DecisionRow};
use kuboard_operator::{client::Cluster, webhook};
use kuboard_rt::{Clock as _, SystemClock, Tasks};
use serde_json::{Value, json};

use crate::{
    boot,
    cli::{Format, Place},
    output,
};

/// How long `arm` waits for the operator.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct AdmissionArgs {
    #[command(flatten)]
    place: Place,
    /// Kubeconfig file [default: kubernetes.kubeconfig, else KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<std::path::PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Show whether the API server asks the webhook, and why not (exit code 3 if it does not)
    Status,
    /// Let the operator arm the webhook again, and wait until it has
    Arm,
    /// Take the webhook away; pods run unjudged until it is armed again
    Disarm {
        /// Also everything else that the API server was told, as before uninstalling
        #[arg(long)]
        uninstall: bool,
    },
    /// List decisions of the catalogue, newest first
    Decisions {
        /// Only of this namespace
        #[arg(long, short, value_name = "NAMESPACE", default_value = "")]
        namespace: String,
        /// Only with this outcome: allow, audit, warn or deny
        #[arg(long, value_name = "OUTCOME", default_value = "")]
        outcome: String,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
}

/// The cluster that the command line or the settings name.
pub(crate) fn cluster(config: &Config, kubeconfig: Option<&std::path::Path>) -> Cluster {
    let named = kubeconfig.map(ToOwned::to_owned);
    Cluster { kubeconfig: named.or_else(|| config.kubernetes.kubeconfig.clone()), context: None }
}

/// Runs `kuboard admission`.
pub(crate) fn run(args: &AdmissionArgs) -> anyhow::Result<ExitCode> {
    let config = boot::config(&args.place)?;
    let namespace = &config.kubernetes.namespace;
    let cluster = cluster(&config, args.kubeconfig.as_deref());
    boot::block_on(async {
        match &args.order {
            Order::Status => {
                let status = webhook::status(&cluster.client().await?, namespace).await?;
                show(&status, args.output)?;
                Ok(if status.armed { ExitCode::SUCCESS } else { ExitCode::from(3) })
            }
            Order::Arm => {
                let client = cluster.client().await?;
                webhook::allow(&client, namespace).await?;
                arm(&client, namespace, args.output).await
            }
            Order::Disarm { uninstall } => {
                let client = cluster.client().await?;
                if *uninstall {
                    webhook::uninstall(&client, namespace).await?;
                    output::note("the webhook and what guards it are gone");
                    return Ok(ExitCode::SUCCESS);
                }
                webhook::disarm(&client, namespace, &person(), SystemClock.now_ms()).await?;
                output::note("disarmed: pods run unjudged until \"kuboard admission arm\"");
                Ok(ExitCode::SUCCESS)
            }
            Order::Decisions { namespace, outcome, limit } => {
                boot::require_data(&config)?;
                let stores = boot::Stores::open(&config, boot::Use::Look, Tasks::default()).await?;
                let filter = DecisionFilter { namespace, outcome, before: 0, since_ms: 0 };
                decisions(stores.catalog.decisions(&filter, *limit).await?, args.output)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Who types.
#[expect(clippy::disallowed_methods, reason = "who is logged in is told by the environment only")]
fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned())
}

/// Waits until the operator has armed it.
async fn arm(client: &kube::Client, namespace: &str, format: Format) -> anyhow::Result<ExitCode> {
    let waiting = output::spinner("waiting for the operator's self-test");
    let mut status = webhook::status(client, namespace).await?;
    let mut waited = Duration::ZERO;
    while !status.armed && waited < PATIENCE {
        tokio::time::sleep(BETWEEN).await;
        waited += BETWEEN;
        status = webhook::status(client, namespace).await?;
    }
    waiting.finish_and_clear();
    show(&status, format)?;
    anyhow::ensure!(
        status.armed,
        "the operator did not arm it within {} s; hint: kubectl logs -n {namespace} -l \
         app.kubernetes.io/component=operator",
        PATIENCE.as_secs()
    );
    Ok(ExitCode::SUCCESS)
}

fn show(status: &webhook::Status, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(status);
    }
    output::line(if status.armed { "armed" } else { "not armed" });
    for (name, policy) in &status.webhooks {
        let means = match policy.as_str() {
            "Fail" => "refuses while nobody answers",
            _ => "lets pass while nobody answers",
        };
        output::line(&format!("  {name}: {means}"));
    }
    if status.mutating {
        output::line("  tags of pods are replaced by digests");
    }
    if let Some(by) = &status.disarmed {
        output::line(&format!("disarmed by {by}; hint: kuboard admission arm"));
    }
    if let Some(problem) = &status.problem {
        output::line(&format!("why: {problem}"));
    }
    Ok(())
}

fn decisions(found: Vec<DecisionRow>, format: Format) -> anyhow::Result<()> {
    let time = |ms| Timestamp::from_millisecond(ms).map(|it| it.to_string()).unwrap_or_default();
    if format == Format::Json {
        let list: Vec<Value> = found
            .iter()
            .map(|DecisionRow { id, decision: it }| {
                let detail: Value = serde_json::from_str(&it.detail).unwrap_or_default();
                json!({"id": id, "at": time(it.at_ms), "uid": it.uid, "operation": it.operation,
                    "namespace": it.namespace, "pod": it.pod, "owner": it.owner, "user": it.user,
                    "outcome": it.outcome, "policy": it.policy, "image": it.image,
                    "digest": it.digest, "detail": detail})
            })
            .collect();
        return output::json(&list);
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|DecisionRow { decision: it, .. }| {
            let pod = format!("{}/{}", it.namespace, it.pod);
            vec![time(it.at_ms), it.outcome, pod, it.image, it.policy, it.user]
        })
        .collect();
    output::table(&["TIME", "OUTCOME", "POD", "IMAGE", "POLICY", "USER"], &rows);
    Ok(())
}
