//! Many clients, one download: a hundred concurrent cold pulls cost the upstream one image, and a
//! client that hangs up costs it nothing more.

use std::io::Read;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::figure;
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::http::Request;
use kuboard_testkit::{FakeUpstream, Fault, Image, Kuboard, On, RegistryClient, tool};
use serde_json::json;

const CLIENTS: usize = 100;
const LAYERS: &[usize] = &[8 << 20, 6 << 20, 2 << 20];

/// Slow enough that all clients come while the first one's download is under way.
fn slow() -> Fault {
    Fault::Drip { piece: 256 << 10, pause: Duration::from_millis(10) }
}

/// Pulls the image with all clients at once; the bytes that each of them got are checked.
fn pull_by_all(address: &str, repository: &str, image: &Image) -> Result<Duration> {
    let together = Barrier::new(CLIENTS);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let pulling: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let client = RegistryClient::new(address);
                    together.wait();
                    client.pull(repository, "v1")
                })
            })
            .collect();
        for thread in pulling {
            let pulled = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(pulled.digest == image.digest);
        }
        Ok(started.elapsed())
    })
}

fn upstream_with(image: &Image) -> Result<FakeUpstream> {
    let upstream = FakeUpstream::start()?;
    upstream.put("team/app", "v1", image);
    upstream.fault(On::blobs().method("GET"), slow(), None);
    Ok(upstream)
}

fn ratio(upstream: &FakeUpstream, image: &Image) -> f64 {
    upstream.bytes(&On::blobs()) as f64 / image.blob_bytes() as f64
}

#[test]
fn a_hundred_cold_pulls_cost_the_upstream_one() -> Result<()> {
    let image = Image::oci(1, LAYERS)?;

    let upstream = upstream_with(&image)?;
    let theirs = DistributionRegistry::builder().proxy(&upstream.url()).start()?;
    let their_time = pull_by_all(theirs.address(), "team/app", &image)?;
    let their_ratio = ratio(&upstream, &image);

    let upstream = upstream_with(&image)?;
    let kuboard = Kuboard::builder().upstream("up.test", &upstream.url()).start()?;
    let our_time = pull_by_all(kuboard.address(), "up.test/team/app", &image)?;
    let our_ratio = ratio(&upstream, &image);

    figure(json!({
        "figure": "upstream bytes of 100 concurrent cold pulls, by image size",
        "kuboard": format!("{our_ratio:.2}x"),
        "distribution": format!("{their_ratio:.2}x"),
        "kuboardSeconds": format!("{:.1}", our_time.as_secs_f64()),
        "distributionSeconds": format!("{:.1}", their_time.as_secs_f64()),
        "kuboardPeakMiB": kuboard.process.peak_rss()? >> 20,
        "distributionPeakMiB": theirs.process.peak_rss()? >> 20,
    }))?;
    ensure!(
        upstream.bytes(&On::blobs()) == image.blob_bytes(),
        "{our_ratio:.3}x of the image came from the upstream: {:#?}",
        upstream.requests().iter().map(|it| (&it.method, &it.path, it.bytes)).collect::<Vec<_>>()
    );
    ensure!(upstream.count(&On::manifests().method("GET")) <= 1);
    Ok(())
}

#[test]
fn a_client_that_hangs_up_at_one_percent_leaves_the_blob_cached() -> Result<()> {
    let image = Image::oci(2, &[16 << 20])?;
    let mut upstream = upstream_with(&image)?;
    let kuboard = Kuboard::builder().upstream("up.test", &upstream.url()).start()?;
    let layer = &image.layers()[0];
    let path = format!("/v2/up.test/team/app/blobs/{}", layer.digest);
    let mut cut = Request::get(&path).open(kuboard.address())?;
    let mut little = vec![0; layer.bytes.len() / 100];
    cut.read_exact(&mut little)?;
    ensure!(little == layer.bytes[..little.len()]);
    drop(cut);
    let all = layer.bytes.len() as u64;
    tool::wait_until("the rest of the download", Duration::from_secs(60), || {
        Ok(upstream.bytes(&On::blobs()) >= all && cached(&kuboard, &layer.digest.to_string())?)
    })?;
    upstream.kill();
    let answer = Request::get(&path).send(kuboard.address())?;
    ensure!(answer.status == 200 && answer.body == layer.bytes.to_vec(), "{}", answer.status);
    ensure!(upstream.bytes(&On::blobs()) == all, "the upstream gave it more than once");
    figure(json!({"figure": "client cut at 1 %", "upstreamBytes": "1.00x", "cached": true}))
}

/// Whether the cache lists the digest.
fn cached(kuboard: &Kuboard, digest: &str) -> Result<bool> {
    let (list, status) = Kuboard::json(&["cache", "ls", "--blobs"], kuboard.data_dir())?;
    ensure!(status.success(), "cache ls: {status}");
    let list = list.as_array().context("cache ls printed no list")?;
    Ok(list.iter().any(|it| it["digest"] == digest))
}

/// Late clients and ranges join the download that is under way.
#[test]
fn ranges_and_late_clients_share_the_download() -> Result<()> {
    let image = Image::oci(3, &[8 << 20])?;
    let upstream = upstream_with(&image)?;
    let kuboard = Kuboard::builder().upstream("up.test", &upstream.url()).start()?;
    let layer = &image.layers()[0];
    let path = format!("/v2/up.test/team/app/blobs/{}", layer.digest);
    std::thread::scope(|scope| -> Result<()> {
        let first = scope.spawn(|| Request::get(&path).send(kuboard.address()));
        tool::wait_until("the download's begin", Duration::from_secs(20), || {
            Ok(upstream.bytes(&On::blobs()) > 0)
        })?;
        let part = Request::get(&path).header("Range", "bytes=100-299").send(kuboard.address())?;
        ensure!(part.status == 206 && part.body == layer.bytes[100..300], "{}", part.status);
        let late = Request::get(&path).send(kuboard.address())?;
        ensure!(late.body == layer.bytes.to_vec());
        let first = first.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(first.body == layer.bytes.to_vec());
        Ok(())
    })?;
    ensure!(upstream.bytes(&On::blobs()) == layer.bytes.len() as u64);
    Ok(())
}

/// A range on a miss is answered as a range, from an upstream that is asked for that range.
#[test]
fn a_range_on_a_miss_is_a_range() -> Result<()> {
    let image = Image::oci(4, &[32 << 20])?;
    let upstream = upstream_with(&image)?;
    let kuboard = Kuboard::builder().upstream("up.test", &upstream.url()).start()?;
    let layer = &image.layers()[0];
    let path = format!("/v2/up.test/team/app/blobs/{}", layer.digest);
    let from = layer.bytes.len() - 1000;
    let range = format!("bytes={from}-{}", from + 99);
    let started = Instant::now();
    let part = Request::get(&path).header("Range", range).send(kuboard.address())?;
    ensure!(part.status == 206, "{} {}", part.status, part.text());
    ensure!(part.body == layer.bytes[from..from + 100]);
    let expected = format!("bytes {from}-{}/{}", from + 99, layer.bytes.len());
    ensure!(part.headers.get("content-range") == Some(expected.as_str()));
    // The whole blob at this upstream's pace takes longer than that.
    figure(json!({
        "figure": "first byte of a range at the end of a cold 32 MiB blob",
        "milliseconds": started.elapsed().as_millis() as u64,
    }))
}
