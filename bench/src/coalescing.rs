//! A crowd that pulls one image which is not cached yet, and a client that hangs up early: how
//! many bytes the upstream sends, counted on the wire.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kuboard_testkit::RegistryClient;
use kuboard_testkit::distribution::DistributionRegistry;

use crate::blobs::crowd;
use crate::contender::{Contender, Kind, Setup};
use crate::payload::LargeImage;
use crate::plan::size;
use crate::registry::Context;
use crate::relay::Relay;
use crate::report::{Row, Target};
use crate::wire::{self, Download, blob_path};

const REPOSITORY: &str = "bench/cold";
const TAG: &str = "v1";
/// How long a cache may take to fetch the rest after its client is gone.
const REST: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let plan = context.plan;
    let image = LargeImage::noise(context.folder.path(), 60, plan.cold_layers)?;
    let upstream = DistributionRegistry::start()?;
    wire::push(upstream.address(), REPOSITORY, TAG, &image)?;
    let weight = size(plan.cold_layers.iter().sum());
    let name = format!("upstream bytes, {} cold pulls of {weight}", plan.crowd);
    let mut bytes = Row::new(name, "image sizes").floor(1.0).target(Target::AtMost(1.005));
    let mut failed = Row::new("  pulls that failed", "").absolute().target(Target::AtMost(0.0));
    let cut_name = "cached after a client hung up at 1 %";
    let mut cached =
        Row::new(cut_name, "1 = yes").absolute().floor(1.0).target(Target::AtLeast(1.0));
    for kind in &context.kinds {
        eprintln!("coalescing: {}", kind.name());
        let (ratio, failures) = pulled_by_many(*kind, &upstream, &image, plan.crowd)?;
        bytes = bytes.cell(*kind, ratio);
        failed = failed.cell(*kind, failures as f64);
        let kept = kept_after_a_cut(*kind, &upstream, &image)?;
        cached = cached.cell(*kind, f64::from(u8::from(kept)));
    }
    Ok(vec![bytes, failed, cached])
}

/// A cold cache of the upstream behind a counting relay.
fn cold(kind: Kind, upstream: &DistributionRegistry) -> Result<(Contender, Relay)> {
    let relay = Relay::start(upstream.address())?;
    let url = relay.url();
    let contender = kind.start(Setup { upstream: Some(&url), ..Setup::default() })?;
    Ok((contender, relay))
}

/// Upstream bytes by image bytes, and how many pulls failed.
fn pulled_by_many(
    kind: Kind,
    upstream: &DistributionRegistry,
    image: &LargeImage,
    count: usize,
) -> Result<(f64, usize)> {
    let (contender, relay) = cold(kind, upstream)?;
    let before = relay.received();
    let (address, repository) = (contender.address(), contender.proxied(REPOSITORY));
    let pull = || -> Result<()> {
        wire::pull(address, &format!("/v2/{repository}/manifests/{TAG}"))?;
        image
            .blobs
            .iter()
            .try_for_each(|blob| wire::pull(address, &blob_path(&repository, blob)).map(drop))
    };
    let failures = AtomicUsize::new(0);
    crowd(count, || {
        if let Err(error) = pull()
            && failures.fetch_add(1, Ordering::SeqCst) == 0
        {
            eprintln!("  {}: {error:#}", kind.name());
        }
        Ok(())
    })?;
    relay.wait_quiet(REST);
    let ratio = (relay.received() - before) as f64 / image.bytes() as f64;
    // What was cached is what was asked for.
    let digest = RegistryClient::new(address).pull(&repository, TAG);
    match digest {
        Ok(pulled) if pulled.digest == image.digest => {}
        Ok(pulled) => eprintln!("  {}: served {} afterwards", kind.name(), pulled.digest),
        Err(error) => eprintln!("  {}: {error:#}", kind.name()),
    }
    Ok((ratio, failures.into_inner()))
}

/// Whether a blob is served whole without upstream, after the only client that asked for it has
/// gone at one per cent.
fn kept_after_a_cut(
    kind: Kind,
    upstream: &DistributionRegistry,
    image: &LargeImage,
) -> Result<bool> {
    let (contender, mut relay) = cold(kind, upstream)?;
    let (address, repository) = (contender.address(), contender.proxied(REPOSITORY));
    wire::pull(address, &format!("/v2/{repository}/manifests/{TAG}"))?;
    let blob = image.blobs.last().context("an image without blobs")?;
    let path = blob_path(&repository, blob);
    let download = Download::open(address, &path)?;
    download.discard(blob.size / 100, None)?;
    drop(download);
    relay.wait_quiet(REST);
    relay.stop();
    let again = RegistryClient::new(address).blob(&repository, &blob.digest);
    let answer = again.and_then(|incoming| incoming.digest());
    Ok(answer.is_ok_and(|(length, digest)| length == blob.size && digest == blob.digest))
}
