//! Blob downloads: what a GiB costs the server, and how fast it comes, plain and over TLS 1.3.

use std::time::Instant;

use anyhow::{Result, ensure};
use kuboard_testkit::http::Request;

use crate::contender::{Contender, Setup};
use crate::plan::{GIB, size};
use crate::process;
use crate::registry::Context;
use crate::report::{Row, Target};
use crate::rounds::alternate;
use crate::series::Series;
use crate::wire::{self, blob_path};

/// The content's repository.
pub(crate) const REPOSITORY: &str = "bench/large";

pub(crate) fn plain(context: &Context<'_>) -> Result<Vec<Row>> {
    let series = measure(context, false)?;
    let (name, floor) = (label(context), context.floors.send);
    Ok(vec![
        fill(Row::new(format!("blob GET, {name}"), "CPU s/GiB").floor(floor), context, &series, 0)
            .target(Target::TimesLess(2.5)),
        fill(
            Row::new(format!("blob GET, {name}, with its clients"), "GiB/s").gain(),
            context,
            &series,
            1,
        ),
    ])
}

pub(crate) fn tls(context: &Context<'_>) -> Result<Vec<Row>> {
    let series = measure(context, true)?;
    let (name, floor) = (label(context), context.floors.seal);
    let row = Row::new(format!("blob GET over TLS 1.3, {name}"), "CPU s/GiB").floor(floor);
    Ok(vec![fill(row, context, &series, 0).target(Target::TimesLess(1.6))])
}

fn label(context: &Context<'_>) -> String {
    format!("{}, {} clients", size(context.plan.blob), context.plan.readers)
}

fn fill(row: Row, context: &Context<'_>, series: &[[Series; 2]], figure: usize) -> Row {
    context
        .kinds
        .iter()
        .zip(series)
        .fold(row, |row, (kind, series)| row.cell(*kind, series[figure].clone()))
}

fn measure(context: &Context<'_>, tls: bool) -> Result<Vec<[Series; 2]>> {
    let stock = context.stock()?;
    let path = blob_path(REPOSITORY, &stock.blob);
    let certificate = tls.then_some(&context.certificate);
    let mut contenders = Vec::new();
    for kind in &context.kinds {
        let data = stock.data(*kind);
        let contender =
            kind.start(Setup { data: Some(&data), tls: certificate, ..Setup::default() })?;
        // Also warms the page cache.
        let address = contender.address();
        let digest = if tls {
            context.tls_client.digest(address, &path)?
        } else {
            Request::get(&path).open(address)?.digest()?.1
        };
        ensure!(digest == stock.blob.digest, "{} served {digest}", kind.name());
        contenders.push(contender);
    }
    let pull = |contender: &Contender| {
        if tls {
            context.tls_client.pull(contender.address(), &path, None)
        } else {
            wire::pull(contender.address(), &path)
        }
    };
    let plan = context.plan;
    let moved = (plan.readers * plan.repeats) as f64 * plan.blob as f64 / GIB as f64;
    alternate(if tls { "blob tls" } else { "blob" }, plan.rounds, &mut contenders, |it, _| {
        let begun = Instant::now();
        let (seconds, cpu) = process::cpu(it.process(), || {
            crowd(plan.readers, || (0..plan.repeats).try_for_each(|_| pull(it).map(drop)))?;
            Ok(begun.elapsed().as_secs_f64())
        })?;
        Ok([cpu / moved, moved / seconds])
    })
}

/// Does the same on `count` threads at once; the first error, if any.
pub(crate) fn crowd(count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let gate = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    gate.wait();
                    work()
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        });
        // All are waited for before the first error is told.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}
