//! What monitoring sees: metrics that promtool finds clean and that say what happened, and health
//! that tells the truth.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::{FakeUpstream, Image, Kuboard, tool};

fn promtool(metrics: &str) -> Result<()> {
    let mut child = tool::command("promtool")?
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("promtool has no input")?.write_all(metrics.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    Ok(())
}

#[test]
fn metrics_are_clean_and_count() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let image = Image::oci(1, &[500_000])?;
    upstream.put("team/app", "v1", &image);
    // The scanner reads what it scans the way of a pull, and would be counted with the clients.
    let kuboard = Kuboard::builder()
        .config("[scan]\nenable = false\n")
        .upstream("up.test", &upstream.url())
        .start()?;
    promtool(&kuboard.get("/metrics")?.text())?;
    let hosted = Image::oci(2, &[300_000])?;
    kuboard.client().push("team/app", "v1", &hosted)?;
    kuboard.client().pull("team/app", "v1")?;
    let bytes = image.blob_bytes() as f64;
    kuboard.client().pull("up.test/team/app", "v1")?;
    // A client that comes while the last bytes are written to disk joins the download: a miss.
    tool::wait_until("the cached blobs", Duration::from_secs(60), || {
        Ok(kuboard.metric("registry_storage_used_bytes", &["area=\"cache\""])? >= bytes)
    })?;
    for _ in 0..2 {
        kuboard.client().pull("up.test/team/app", "v1")?;
    }
    let text = kuboard.get("/metrics")?.text();
    promtool(&text)?;
    let value = |name: &str, labels: &[&str]| kuboard.metric(name, labels);
    let blobs = image.blobs.len() as f64;
    ensure!(value("registry_proxy_requests_total", &["type=\"blob\""])? == 3.0 * blobs, "{text}");
    ensure!(value("registry_proxy_misses_total", &["type=\"blob\""])? == blobs, "{text}");
    ensure!(value("registry_proxy_hits_total", &["type=\"blob\""])? == 2.0 * blobs, "{text}");
    ensure!(value("registry_proxy_pulled_bytes_total", &["type=\"blob\""])? == bytes, "{text}");
    ensure!(value("registry_proxy_pushed_bytes_total", &["type=\"blob\""])? >= bytes, "{text}");
    ensure!(value("registry_pull_requests_total", &["registry=\"up.test\""])? > 0.0, "{text}");
    Ok(())
}

#[test]
fn health_tells_the_truth_and_a_stop_is_a_drain() -> Result<()> {
    let mut kuboard = Kuboard::start(&[])?;
    for path in ["/healthz", "/readyz"] {
        ensure!(kuboard.get(path)?.status == 200, "{path}");
    }
    let answer = kuboard.get("/v2/")?;
    ensure!(answer.headers.get("x-request-id").is_some(), "no request id");
    let status = kuboard.terminate()?;
    ensure!(status.success(), "stop: {status}");
    let log = kuboard.process.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// A request that runs while the stop is asked for is answered to its end.
#[test]
fn a_download_under_way_outlives_the_stop() -> Result<()> {
    use std::io::Read;
    let mut kuboard = Kuboard::start(&[])?;
    let image = Image::oci(1, &[64 << 20])?;
    kuboard.client().push("team/app", "v1", &image)?;
    let mut body = kuboard.client().blob("team/app", &image.layers()[0].digest)?;
    let mut first = [0; 1000];
    body.read_exact(&mut first)?;
    kuboard.process.signal(15)?;
    tool::wait_until("no new connections", Duration::from_secs(30), || {
        Ok(!kuboard.get("/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    let mut rest = Vec::new();
    body.read_to_end(&mut rest)?;
    ensure!([&first[..], &rest].concat() == image.layers()[0].bytes.to_vec());
    ensure!(kuboard.process.terminate(Duration::from_secs(60))?.success());
    Ok(())
}
