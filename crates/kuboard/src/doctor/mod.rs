//! `kuboard doctor`: why pulls fail, scans wait or pods are refused; each finding with what proves
//! it and the command that mends it.
//!
//! What is seen of the cluster is read once ([`cluster`]); what is wrong with it is said by pure
//! functions over that ([`pulls`], [`network`], [`platform`], [`containerd`]). What can't be looked
//! at is said too: it is never "nothing found".

mod certificates;
mod cluster;
mod containerd;
mod finding;
mod local;
mod message;
mod network;
mod observed;
mod platform;
mod pulls;
mod secrets;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use kuboard_rt::{Clock as _, SystemClock};

use self::finding::Diagnosis;
use crate::{
    boot,
    cli::{Format, Place},
    output,
};

/// What is looked at.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    place: Place,
    /// A pod, as NAMESPACE/NAME, whose image does not come; without it, everything
    pod: Option<String>,
    /// Look at this machine only, not at the cluster
    #[arg(long)]
    local: bool,
    /// Look at the cluster only, not at this machine
    #[arg(long, conflicts_with = "local")]
    cluster: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Exit code 0: nothing is wrong; 3: something is; 1: something could not be looked at, and nothing
/// else is wrong.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    boot::block_on(async {
        let mut diagnosis = Diagnosis::default();
        let now_ms = SystemClock.now_ms();
        if !args.cluster && args.pod.is_none() {
            local::look(&args.place, now_ms, &mut diagnosis).await;
        }
        if !args.local {
            look_at_cluster(args, now_ms, &mut diagnosis).await?;
        }
        diagnosis.settle();
        match args.output {
            Format::Json => output::json(&diagnosis)?,
            Format::Table => diagnosis.print(),
        }
        Ok(match (diagnosis.has_problems(), diagnosis.is_blind()) {
            (true, _) => ExitCode::from(3),
            (false, true) => ExitCode::FAILURE,
            (false, false) => ExitCode::SUCCESS,
        })
    })
}

async fn look_at_cluster(
    args: &DoctorArgs,
    now_ms: i64,
    diagnosis: &mut Diagnosis,
) -> anyhow::Result<()> {
    let config = boot::config(&args.place).unwrap_or_default();
    let client = match crate::webhook::cluster(&config, None).client().await {
        Ok(client) => client,
        // A laptop has no cluster; who asks for one is told.
        Err(error) if args.cluster || args.pod.is_some() => return Err(error.into()),
        Err(_) => return Ok(()),
    };
    let home = &config.kubernetes.namespace;
    let only = args.pod.as_deref();
    let seen = cluster::observe(&client, home, only, now_ms, diagnosis).await;
    if let Some(name) = only {
        let is_there = seen.pods.iter().any(|pod| observed::full_name(&pod.metadata) == name);
        anyhow::ensure!(is_there, "there is no pod {name}; hint: kubectl get pods -A");
    }
    diagnosis.add(judge(&seen, only));
    Ok(())
}

/// All that is wrong with what was seen.
fn judge(seen: &observed::Observed, only: Option<&str>) -> Vec<finding::Finding> {
    let mut findings = pulls::judge(seen, only);
    findings.extend(network::judge(seen));
    findings.extend(platform::judge(seen));
    findings
}
