//! A full disk: pulls through the proxy go on, pushes are refused with a reason, and the store is
//! whole.

use anyhow::{Result, ensure};
use e2e::figure;
use kuboard_testkit::disk::SmallDisk;
use kuboard_testkit::{FakeUpstream, Image, Kuboard};
use serde_json::json;

const DISK: u64 = 48 << 20;

#[test]
fn pulls_go_on_when_the_disk_is_full() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let disk = SmallDisk::mount(DISK)?;
    let mut images = Vec::new();
    for number in 0..20 {
        let image = Image::oci(number, &[6 << 20, 1 << 20])?;
        upstream.put("team/app", &format!("v{number}"), &image);
        images.push(image);
    }
    // The cache believes in 50 GB: only the disk itself can stop it.
    let mut kuboard = Kuboard::builder()
        .upstream("up.test", &upstream.url())
        .data_dir(&disk.path().join("data"))
        .start()?;
    let client = kuboard.client();
    for (number, image) in images.iter().enumerate() {
        let pulled = client.pull("up.test/team/app", &format!("v{number}"))?;
        ensure!(pulled.digest == image.digest);
    }
    let pulled = images.iter().map(Image::blob_bytes).sum::<u64>();
    ensure!(pulled > 2 * DISK);

    // What is left is taken by pushes, until one is refused; it must be told so, not hang up.
    let mut refused = None;
    for number in 100..200 {
        let image = Image::oci(number, &[4 << 20])?;
        if let Err(error) = client.push("team/hosted", &format!("v{number}"), &image) {
            refused = Some((number - 100, format!("{error:#}")));
            break;
        }
    }
    let (pushes, reason) = refused.ok_or_else(|| anyhow::anyhow!("no push was refused"))?;
    ensure!(reason.contains("507") || reason.contains("503"), "{reason}");
    for number in 0..pushes {
        client.pull("team/hosted", &format!("v{}", number + 100))?;
    }
    let again = client.pull("up.test/team/app", "v0")?;
    ensure!(again.digest == images[0].digest);

    kuboard.terminate()?;
    let (report, status) = Kuboard::json(&["fsck"], kuboard.data_dir())?;
    ensure!(status.success(), "fsck: {status}: {report:#}");
    drop(kuboard);
    figure(json!({
        "figure": "disk full",
        "diskMiB": DISK >> 20,
        "pulledMiB": pulled >> 20,
        "pushesBeforeRefusal": pushes,
        "refusal": reason,
        "fsck": "whole",
    }))
}

/// The configured bound, below the disk's size: evicted, never exceeded, never rejected.
#[test]
fn the_cache_stays_below_its_bound() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    // The smallest bound that the configuration can say.
    const BOUND: u64 = 1_000_000_000;
    const EACH: usize = 60 << 20;
    let kuboard = Kuboard::builder()
        .upstream("up.test", &upstream.url())
        .config("[cache]\nenable = true\ncacheSizeGB = 1")
        .start()?;
    let mut most = 0.0_f64;
    for number in 0..24 {
        let image = Image::oci(number, &[EACH])?;
        let tag = format!("v{number}");
        upstream.put("team/app", &tag, &image);
        kuboard.client().pull("up.test/team/app", &tag)?;
        upstream.delete_tag("team/app", &tag);
        most = most.max(kuboard.metric("registry_storage_used_bytes", &["area=\"cache\""])?);
    }
    figure(json!({
        "figure": "cache bound",
        "boundMB": BOUND / 1_000_000,
        "pulledMB": 24 * EACH as u64 / 1_000_000,
        "mostUsedMB": most as u64 / 1_000_000,
    }))?;
    ensure!(most > 0.5 * BOUND as f64, "the cache is hardly used: {most}");
    // A gigabyte may be read as 1000^3 or 1024^3.
    ensure!(most <= 1.074 * BOUND as f64, "{most} bytes used");
    Ok(())
}
