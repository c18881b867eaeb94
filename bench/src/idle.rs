//! A server that nobody asks anything: time until it is ready on an empty folder, and its memory
//! then.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::contender::{Kind, Setup};
use crate::plan::MIB;
use crate::registry::Context;
use crate::report::Row;
use crate::rounds::alternate;

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let mut kinds = context.kinds.clone();
    let series = alternate("idle", context.plan.rounds, &mut kinds, |kind: &mut Kind, _| {
        let begun = Instant::now();
        let contender = kind.start(Setup::default())?;
        let ready = begun.elapsed();
        std::thread::sleep(Duration::from_secs(1));
        Ok([contender.process().rss()? as f64 / MIB as f64, ready.as_secs_f64() * 1e3])
    })?;
    let mut memory = Row::new("memory when idle", "MiB");
    let mut time = Row::new("start on an empty folder until ready", "ms, by 10");
    for (kind, figures) in kinds.iter().zip(&series) {
        memory = memory.cell(*kind, figures[0].clone());
        time = time.cell(*kind, figures[1].clone());
    }
    Ok(vec![memory, time])
}
