//! Pushes of one large blob in one piece: hashing, writing and making it durable.

use anyhow::Result;

use crate::contender::{Kind, Setup};
use crate::payload::Payload;
use crate::plan::{GIB, MIB, size};
use crate::process;
use crate::registry::Context;
use crate::report::{Row, Target};
use crate::rounds::alternate;
use crate::wire::push_blob;

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let plan = context.plan;
    let mut payload = Payload::noise(context.folder.path(), 40, plan.push)?;
    let warm_up = Payload::noise(context.folder.path(), 41, MIB)?;
    let mut kinds = context.kinds.clone();
    let weight = plan.push as f64 / GIB as f64;
    let mut seed = 0;
    let series = alternate("push", plan.rounds, &mut kinds, |kind: &mut Kind, _| {
        // A new store each time: what the round before has left in the page cache goes with it,
        // and no push pays for making room.
        let contender = kind.start(Setup::default())?;
        push_blob(contender.address(), "bench/push", &warm_up)?;
        // No store has seen these bytes.
        seed += 1;
        payload.vary(seed)?;
        process::settle_disk();
        let begun = std::time::Instant::now();
        let (seconds, cpu) = process::cpu(contender.process(), || {
            push_blob(contender.address(), "bench/push", &payload)?;
            Ok(begun.elapsed().as_secs_f64())
        })?;
        Ok([cpu / weight, seconds / weight])
    })?;
    std::fs::remove_file(&payload.path)?;
    let name = format!("push, {} in one PUT", size(plan.push));
    let mut cost = Row::new(name, "CPU s/GiB").floor(context.floors.store);
    let mut time = Row::new("  the same, until acknowledged", "s/GiB");
    for (kind, figures) in context.kinds.iter().zip(&series) {
        cost = cost.cell(*kind, figures[0].clone());
        time = time.cell(*kind, figures[1].clone());
    }
    Ok(vec![cost.target(Target::TimesLess(1.7)), time])
}
