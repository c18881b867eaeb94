//! The scanner beside Trivy, Grype, osv-scanner, Clair and Syft: the same images, the same
//! advisories, one process for each scan (of Clair, which is a service, one request). CPU seconds,
//! wall time and peak memory of each.
//!
//! The peers' databases are made from the feeds by their own libraries (`bench/peers`), so that
//! everybody matches against the same records. Syft only lists packages and stands beside.

mod clair;
mod feeds;
mod meter;
mod ours;
mod peers;
mod service;
mod table;

use anyhow::{Result, bail};
use kuboard_testkit::rootfs::{self, RealImage};
use kuboard_testkit::tool;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::rounds::alternate;
use crate::scan::peers::Scanner;
use crate::scan::table::Row;
use crate::series::Series;
use crate::{machine, registry};

pub(crate) use clair::{CLAIR, is_comparable};
pub(crate) use feeds::Feeds;
pub(crate) use meter::run as meter;
pub(crate) use peers::{Found, normal, prepare};
pub(crate) use table::columns;

/// The images that are scanned cold; the first is the one that the targets speak of.
const IMAGES: &[&str] =
    &["debian", "debian-stacks", "python-app", "java-app", "go-app", "almalinux-sqlite"];

/// What the first image may cost.
const TIMES_LESS_CPU: f64 = 5.0;
const PEAK_MIB: f64 = 64.0;
/// What an image that shares all but one small layer with a scanned one may take.
const SECOND_MS: f64 = 20.0;

/// Measures, prints and keeps the figures. An error only when something could not be measured.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = tool::folder("bench-scan")?;
    let feeds = Feeds::get()?;
    let (mut scanners, missing) = prepare(&feeds, folder.path())?;
    let hardware = machine::hardware();
    let versions: Value = scanners
        .iter()
        .map(|it| (it.name().to_owned(), json!(it.version())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    println!("{hardware:#}\n{versions:#}\nadvisories: {}", feeds.text());
    for reason in &missing {
        println!("not here: {reason}");
    }
    let mut rows = Vec::new();
    let names = if plan.quick { &IMAGES[..1] } else { IMAGES };
    for name in names.iter().filter(|name| plan.wants(name)) {
        let image = rootfs::image(name)?;
        rows.extend(cold(plan, &mut scanners, &image, *name == IMAGES[0])?);
    }
    if plan.wants("second") {
        rows.push(second(plan, &mut scanners)?);
    }
    let advisories = ours::advisories(folder.path());
    if plan.wants("passing") {
        rows.extend(service::passing(plan, &advisories, &rootfs::image(IMAGES[0])?)?);
    }
    if plan.wants("warm") {
        rows.push(service::warm(plan, &advisories)?);
    }
    if plan.wants("rematch") {
        rows.extend(service::rematch(plan, &advisories)?);
    }
    let names: Vec<&str> = scanners.iter().map(|it| it.name()).collect();
    println!("\nmedian (least..most) of the rounds\n{}", table::table(&rows, &names));
    let (passed, judged) = table::score(&rows);
    println!("{passed} of {judged} targets met");
    let result = json!({
        "machine": hardware, "versions": versions, "missing": missing, "quick": plan.quick,
        "rounds": plan.rounds, "advisories": feeds.json(), "measures": table::json(&rows),
    });
    registry::keep("scan", plan, &result)?;
    if scanners.iter().all(|it| it.name() != peers::OURS) {
        bail!("kuboard was not measured");
    }
    Ok(())
}

/// One image, nothing of it known before.
fn cold(
    plan: &Plan,
    scanners: &mut [Box<dyn Scanner>],
    image: &RealImage,
    judged: bool,
) -> Result<Vec<Row>> {
    // Each reads the form that it likes best, made before anything is measured.
    for scanner in scanners.iter() {
        scanner.warm_up(image)?;
    }
    let measured = alternate(&image.name, plan.rounds, scanners, |scanner, _| {
        scanner.forget()?;
        let usage = scanner.scan(image)?;
        Ok([usage.cpu, usage.wall, usage.peak])
    })?;
    let titles = [("CPU", "s"), ("wall", "s"), ("peak", "MiB")];
    let mut rows: Vec<Row> = titles
        .iter()
        .map(|(what, unit)| Row::new(format!("{} {what}", image.name), unit))
        .collect();
    for (scanner, series) in scanners.iter().zip(measured) {
        for (row, series) in rows.iter_mut().zip(series) {
            row.put(scanner.name(), series);
        }
    }
    if judged && let [cpu, _, peak] = &mut rows[..] {
        cpu.times_less(TIMES_LESS_CPU, &["trivy", "grype"]);
        peak.at_most(PEAK_MIB);
    }
    Ok(rows)
}

/// An image of which all but one small layer was scanned before.
fn second(plan: &Plan, scanners: &mut [Box<dyn Scanner>]) -> Result<Row> {
    let base = rootfs::image(IMAGES[0])?;
    let images: Vec<RealImage> = (0..=plan.rounds)
        .map(|number| rootfs::rebuilt(&base, u32::try_from(number)?))
        .collect::<Result<_>>()?;
    // osv-scanner reads archives alone: a full copy of the image for each round, and no memory.
    let mut scanners: Vec<&mut Box<dyn Scanner>> =
        scanners.iter_mut().filter(|it| it.name() != "osv-scanner").collect();
    for scanner in &scanners {
        scanner.forget()?;
        scanner.scan(&images[0])?;
    }
    let measured = alternate("second", plan.rounds, &mut scanners, |scanner, round| {
        Ok([scanner.scan(&images[round + 1])?.wall * 1000.0])
    })?;
    let mut row = Row::new("second image wall".to_owned(), "ms");
    for (scanner, [series]) in scanners.iter().zip(measured) {
        let series: Series = series;
        row.put(scanner.name(), series);
    }
    row.at_most(SECOND_MS);
    Ok(row)
}
