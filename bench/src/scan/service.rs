//! The scan engine as a service: what indexing costs a pull that passes, how soon after it the
//! report is there, and how fast a report is given again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::rootfs::{self, RealImage};
use kuboard_testkit::{Kuboard, tool};

use super::peers::{OURS, list};
use super::table::Row;
use crate::plan::Plan;
use crate::process;
use crate::series::Series;

/// Longer than any report takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most that indexing may add to the time of a pull, in percent.
const OVERHEAD: f64 = 3.0;
/// Longest time from the last byte to the report, in milliseconds.
const VERDICT_MS: f64 = 50.0;
/// Longest time of a report that is known, in milliseconds: of a hundred all but one.
const WARM_MS: f64 = 5.0;

/// A server with an empty cache. `advisories` is the folder of the compiled ones.
fn serve(advisories: &Path, scans: bool, upstream: &str) -> Result<Kuboard> {
    let settings =
        format!("[scan]\nenable = {scans}\n[advisories]\nupdate = false\ndir = {advisories:?}\n");
    Kuboard::builder().config(&settings).upstream("up.test", upstream).start()
}

/// Cold pulls through the proxy, with and without the scan engine, in turn.
pub(super) fn passing(plan: &Plan, advisories: &Path, image: &RealImage) -> Result<Vec<Row>> {
    let upstream = DistributionRegistry::start()?;
    image.push(upstream.address(), "bench/app", "v1")?;
    let mut walls = [Series::default(), Series::default()];
    let mut costs = [Series::default(), Series::default()];
    let (mut overheads, mut verdicts) = (Series::default(), Series::default());
    for round in 0..plan.rounds {
        eprintln!("proxied pull: round {} of {}", round + 1, plan.rounds);
        let mut pair = [0.0; 2];
        // Who comes first changes, since the upstream's files are warmer for the second.
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for scans in order {
            let kuboard = serve(advisories, scans, &upstream.url())?;
            process::settle_disk();
            let client = kuboard.client();
            let (took, cost) = process::cpu(&kuboard.process, || {
                let started = Instant::now();
                client.pull("up.test/bench/app", "v1")?;
                let took = started.elapsed();
                if scans {
                    let late = verdict(&kuboard, image, Instant::now())?;
                    verdicts.push(late.as_secs_f64() * 1000.0);
                }
                Ok(took.as_secs_f64())
            })?;
            pair[usize::from(scans)] = took;
            walls[usize::from(scans)].push(took);
            costs[usize::from(scans)].push(cost);
        }
        let [without, with] = pair;
        overheads.push((with / without - 1.0) * 100.0);
    }
    let row = |name: &str, unit: &'static str, series: &Series| {
        let mut row = Row::new(format!("proxied pull of {}, {name}", image.name), unit);
        row.put(OURS, series.clone());
        row
    };
    let mut overhead = row("longer by scanning", "%", &overheads);
    overhead.at_most(OVERHEAD);
    let mut late = row("report after the last byte", "ms", &verdicts);
    late.at_most(VERDICT_MS);
    Ok(vec![
        row("wall without scanning", "s", &walls[0]),
        row("wall with scanning", "s", &walls[1]),
        overhead,
        row("CPU without scanning", "s", &costs[0]),
        row("CPU with scanning and report", "s", &costs[1]),
        late,
    ])
}

/// The time until the report on the image is there.
fn verdict(kuboard: &Kuboard, image: &RealImage, since: Instant) -> Result<Duration> {
    let path = format!("/matcher/api/v1/vulnerability_report/{}", image.digest);
    while since.elapsed() < PATIENCE {
        if kuboard.get(&path)?.status == 200 {
            return Ok(since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    anyhow::bail!("no report on {} in {PATIENCE:?}", image.name)
}

/// A report that is asked for again and again.
pub(super) fn warm(plan: &Plan, advisories: &Path) -> Result<Row> {
    let image = rootfs::image("debian-stacks")?;
    let kuboard = serve(advisories, true, "http://127.0.0.1:9")?;
    image.push(kuboard.address(), "bench/app", "v1")?;
    verdict(&kuboard, &image, Instant::now())?;
    let path = format!("/matcher/api/v1/vulnerability_report/{}", image.digest);
    let report = kuboard.get(&path)?.json()?;
    let packages = report["packages"].as_object().context("no packages")?.len();
    let found: usize = report["package_vulnerabilities"]
        .as_object()
        .context("no findings")?
        .values()
        .map(|ids| list(ids).count())
        .sum();
    let asked = if plan.quick { 300 } else { 2000 };
    let mut times = Vec::with_capacity(asked);
    for _ in 0..asked {
        let started = Instant::now();
        ensure!(kuboard.get(&path)?.status == 200, "no report");
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let ninety_ninth = times[(times.len() * 99).div_ceil(100) - 1];
    let name = format!("warm report, {packages} packages, {found} findings, p99");
    let mut row = Row::new(name, "ms");
    row.put(OURS, ninety_ninth.into());
    row.at_most(WARM_MS);
    Ok(row)
}

/// Inventories matched again, by the bench of the scan engine's own crate, which needs no server.
pub(super) fn rematch(plan: &Plan, advisories: &Path) -> Result<Vec<Row>> {
    let images = if plan.quick { 500 } else { 10_000 };
    let mut cargo = tool::command("cargo")?;
    cargo.args(["bench", "--quiet", "-p", "kuboard-scan", "--bench", "rematch", "--"]);
    cargo.arg("--advisories").arg(advisories);
    cargo.args(["--images", &images.to_string(), "--packages", "200"]);
    let told = tool::output(cargo.current_dir(crate::machine::root()))?;
    let told: serde_json::Value = told
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("no figures in {told:?}"))?;
    let mut rows = Vec::new();
    for figure in list(&told["figures"]) {
        let text = |name: &str| figure[name].as_str().unwrap_or_default().to_owned();
        let unit = if text("unit") == "ms" { "ms" } else { "CPU s" };
        let mut row = Row::new(text("name"), unit);
        row.put(OURS, figure["value"].as_f64().context("no value")?.into());
        if let Some(most) = figure["most"].as_f64() {
            row.at_most(most);
        }
        rows.push(row);
    }
    Ok(rows)
}
