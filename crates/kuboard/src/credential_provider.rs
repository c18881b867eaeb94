//! `kubelet` runs `kuboard credential-provider` before it pulls an image: a request on the standard
//! input, credentials on the standard output (`credentialprovider.kubelet.k8s.io/v1`).
//!
//! The credentials are the pod's own service-account token, which kubelet hands over (KEP-4412).
//! The registry checks it with the API server and knows pod, namespace and node; no Secret is
//! needed. The token goes nowhere else: nothing here opens a connection or a file but the docker
//! configuration for pods without a service account, if one is named.

mod install;
mod protocol;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use kuboard_rt::{Clock, SystemClock};

use crate::output;
use protocol::{CacheKey, Request, Settings};

/// Longest request that is read, in bytes.
const MAX_REQUEST: u64 = 1024 * 1024;
/// Longest docker configuration that is read, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;

#[derive(Args)]
pub(crate) struct CredentialProviderArgs {
    /// Set a node up instead: copy this program into kubelet's --image-credential-provider-bin-dir
    #[arg(long, value_name = "DIR", requires_all = ["provider_config", "match_image"])]
    install: Option<PathBuf>,
    /// With --install: kubelet's --image-credential-provider-config, a file or (from 1.36) a folder
    #[arg(long, value_name = "PATH")]
    provider_config: Option<PathBuf>,
    /// Images to answer for, such as registry.example.com or *.example.com:5000; may be given
    /// several times
    #[arg(long, value_name = "PATTERN")]
    match_image: Vec<String>,
    /// Audience that the registry wants tokens to be for
    #[arg(long, value_name = "NAME", default_value = kuboard_api::names::AUDIENCE)]
    audience: String,
    /// For which pulls one answer is good: image, registry or global (all of --match-image)
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "registry",
        requires_if("global", "match_image")
    )]
    cache_key: CacheKey,
    /// docker config.json for pods without a service account, such as static pods
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &CredentialProviderArgs) -> anyhow::Result<ExitCode> {
    if let (Some(folder), Some(config)) = (&args.install, &args.provider_config) {
        let wanted = install::Wanted {
            match_images: &args.match_image,
            audience: &args.audience,
            cache_key: args.cache_key,
            docker_config: args.docker_config.as_deref(),
        };
        let done = install::install(folder, config, &wanted)?;
        output::note(&done);
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_REQUEST)
        .read_to_end(&mut text)
        .context("kubelet's request cannot be read")?;
    let request = Request::read(&text)?;
    let docker_config = match &args.docker_config {
        Some(path) if request.token().is_none() => Some(read_config(path)?),
        _ => None,
    };
    let settings = Settings {
        audience: &args.audience,
        cache_key: args.cache_key,
        match_images: &args.match_image,
        docker_config: docker_config.as_deref(),
    };
    let response = protocol::answer(&request, &settings, SystemClock.now_ms())?;
    output::line(&response.to_string());
    Ok(ExitCode::SUCCESS)
}

fn read_config(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let unread = || format!("the docker configuration {} cannot be read", path.display());
    let file = std::fs::File::open(path).with_context(unread)?;
    let mut text = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut text).with_context(unread)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_CONFIG) {
        bail!("{} is above 1 MiB", path.display());
    }
    Ok(text)
}
