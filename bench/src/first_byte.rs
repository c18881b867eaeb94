//! How long a client waits for the first byte of a large image that is not cached yet, beyond what
//! it would wait at the upstream itself.

use std::time::Instant;

use anyhow::Result;
use kuboard_testkit::distribution::DistributionRegistry;

use crate::contender::{Contender, Kind, Setup};
use crate::payload::LargeImage;
use crate::plan::{MIB, size};
use crate::process;
use crate::registry::Context;
use crate::report::{Row, Target};
use crate::rounds::alternate;
use crate::wire::{self, Download, blob_path};

const REPOSITORY: &str = "bench/huge";
const TAG: &str = "v1";
/// Pulled first, so that the server has met its upstream before: the image is cold, not the server.
const OTHER: &str = "bench/other";

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let plan = context.plan;
    let image = LargeImage::noise(context.folder.path(), 70, &[plan.cold_blob])?;
    let upstream = DistributionRegistry::start()?;
    wire::push(upstream.address(), REPOSITORY, TAG, &image)?;
    let other = LargeImage::noise(context.folder.path(), 71, &[MIB])?;
    wire::push(upstream.address(), OTHER, TAG, &other)?;
    for blob in &image.blobs {
        std::fs::remove_file(&blob.path)?;
        // Warms the upstream's page cache.
        wire::pull(upstream.address(), &blob_path(REPOSITORY, blob))?;
    }
    let mut kinds = context.kinds.clone();
    let series = alternate("first byte", plan.rounds, &mut kinds, |kind: &mut Kind, _| {
        let url = upstream.url();
        // The round before has left up to the whole image in the page cache.
        process::settle_disk();
        let direct = wait(upstream.address(), REPOSITORY, &image)?;
        let contender: Contender =
            kind.start(Setup { upstream: Some(&url), ..Setup::default() })?;
        let address = contender.address();
        let first = wait(address, &contender.proxied(OTHER), &other)?;
        let through = wait(address, &contender.proxied(REPOSITORY), &image)?;
        let over = |waited: f64, upstream: f64| (waited - upstream) * 1e3;
        Ok([
            over(through.0, direct.0),
            over(through.1, direct.1),
            over(first.1, direct.1),
            direct.1 * 1e3,
        ])
    })?;
    let name = format!("first layer byte, cold {} image", size(plan.cold_blob));
    let mut layer = Row::new(format!("{name}, after its manifest"), "ms over upstream").absolute();
    let mut whole =
        Row::new(format!("{name}, from the first request"), "ms over upstream").absolute();
    let new = "  the same of a small image, the first pull of a new process";
    let mut new = Row::new(new, "ms over upstream").absolute();
    for (kind, [first, all, very_first, _]) in kinds.iter().zip(&series) {
        layer = layer.cell(*kind, first.clone());
        whole = whole.cell(*kind, all.clone());
        new = new.cell(*kind, very_first.clone());
    }
    let mut direct = Row::new("  the upstream itself, from the first request", "ms");
    if let Some([.., own]) = series.first() {
        direct = direct.cell(Kind::Distribution, own.clone());
    }
    let target = Target::AtMost(20.0);
    Ok(vec![layer.target(target).floor(0.0), whole.target(target).floor(0.0), new, direct])
}

/// Seconds from the layer's request, and from the manifest's, to the layer's first byte.
fn wait(address: &str, repository: &str, image: &LargeImage) -> Result<(f64, f64)> {
    let begun = Instant::now();
    wire::pull(address, &format!("/v2/{repository}/manifests/{TAG}"))?;
    let asked = Instant::now();
    let Some(layer) = image.blobs.get(1) else { anyhow::bail!("an image without layers") };
    Download::open(address, &blob_path(repository, layer))?.first_byte()?;
    Ok((asked.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64()))
}
