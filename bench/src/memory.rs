//! Resident memory of the server while a crowd downloads one blob.

use std::time::Instant;

use anyhow::Result;

use crate::blobs::{REPOSITORY, crowd};
use crate::contender::{Kind, Setup};
use crate::plan::size;
use crate::process::{Memory, watched};
use crate::registry::Context;
use crate::report::{Row, Target};
use crate::series::Series;
use crate::wire::{Download, blob_path};

/// What the issue allows, in MiB.
const LIMIT: f64 = 64.0;
/// Each form is measured so often; a fresh process every time.
const ROUNDS: usize = 2;

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let stock = context.stock()?;
    let mut rows = Vec::new();
    for tls in [false, true] {
        for blob in [&stock.small, &stock.blob] {
            let way = if tls { "TLS" } else { "plain" };
            let name =
                format!("memory, {} pulls of {}, {way}", context.plan.crowd, size(blob.size));
            let mut peak = Row::new(name, "MiB").target(Target::AtMost(LIMIT));
            let mut own = Row::new("  of it not pages of files", "MiB");
            let mut series = vec![(Series::default(), Series::default()); context.kinds.len()];
            for round in 0..ROUNDS {
                eprint!("\rmemory {way} {}: round {} of {ROUNDS} ", size(blob.size), round + 1);
                for (kind, (peak, own)) in context.kinds.iter().zip(&mut series) {
                    let memory = measure(context, *kind, tls, &blob_path(REPOSITORY, blob))?;
                    peak.push(memory.peak.max(memory.most));
                    own.push(memory.most_own);
                }
            }
            eprintln!();
            for (kind, (all, anonymous)) in context.kinds.iter().zip(series) {
                peak = peak.cell(*kind, all);
                own = own.cell(*kind, anonymous);
            }
            rows.extend([peak, own]);
        }
    }
    Ok(rows)
}

fn measure(context: &Context<'_>, kind: Kind, tls: bool, path: &str) -> Result<Memory> {
    let plan = context.plan;
    let data = context.stock()?.data(kind);
    let certificate = tls.then_some(&context.certificate);
    let contender =
        kind.start(Setup { data: Some(&data), tls: certificate, ..Setup::default() })?;
    let address = contender.address();
    let until = Instant::now() + plan.crowd_time;
    let pull = || {
        if tls {
            return context.tls_client.pull(address, path, Some(until)).map(drop);
        }
        Download::open(address, path)?.discard(u64::MAX, Some(until)).map(drop)
    };
    let ((), memory) = watched(contender.process(), || crowd(plan.crowd, pull))?;
    Ok(memory)
}
