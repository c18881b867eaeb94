//! Block distribution in the simulator: how close the slowest node is to the physical bound, what
//! the cache sends, what crosses zones and regions, and what faults cost. Simulated time; the time
//! and memory that the simulation itself took stand in the last columns.

use std::time::Instant;

use anyhow::Result;
use kuboard_p2p::sim::{Conduct, Fault, Report, Scenario, dragonfly_like, run, spegel_like};

/// Of a cache with ten times a node's link, in bytes per second.
const WIDE: u64 = 1_250_000_000;

/// One row: a name, and what to play.
struct Row {
    name: String,
    scenario: Scenario,
    play: fn(&Scenario) -> Report,
}

/// Plays all rows for clusters of these sizes and prints them.
pub(crate) fn run_all(nodes: &[usize]) -> Result<()> {
    println!(
        "{:<44} {:>9} {:>6} {:>7} {:>6} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7}",
        "1 GiB, 1 Gbit/s links",
        "done",
        "bound",
        "last/b",
        "spread",
        "cache F",
        "zone NF",
        "region F",
        "twice",
        "wall s",
        "MiB"
    );
    let mut missed = Vec::new();
    for row in nodes.iter().flat_map(|nodes| rows(*nodes)) {
        let began = Instant::now();
        let report = (row.play)(&row.scenario);
        print(&row.name, &report, began.elapsed().as_secs_f64());
        missed.extend(misses(&row, &report));
    }
    println!(
        "last/b: slowest node over the Kumar-Ross bound; spread: p99/p50; NF: of all bytes received"
    );
    println!("targets: last/b 1.25, cache 1.25 F, zone 0.12 NF, region 1.0 F, twice 0.01");
    if missed.is_empty() {
        println!("all rows without faults and without models meet them");
    }
    for line in missed {
        println!("missed: {line}");
    }
    Ok(())
}

fn rows(nodes: usize) -> Vec<Row> {
    let row = |name: &str, change: &dyn Fn(&mut Scenario)| {
        let mut scenario = Scenario::flash_crowd(nodes);
        change(&mut scenario);
        Row { name: format!("{nodes} nodes, {name}"), scenario, play: run }
    };
    let mut rows = vec![row("3 regions x 3 zones, wide caches", &|of| {
        (of.regions, of.zones, of.cache_rate) = (3, 3, WIDE);
    })];
    if nodes > 300 {
        return rows;
    }
    let fault = |name: &str, fault: Fault| {
        row(name, &|of| {
            of.zones = 3;
            of.faults.push(fault);
        })
    };
    rows.extend([
        row("1 zone", &|_| {}),
        row("wide cache", &|of| of.cache_rate = WIDE),
        row("3 zones", &|of| of.zones = 3),
        row("have +20 ms", &|of| of.have_delay_ms = 20),
        row("have +250 ms (no target)", &|of| of.have_delay_ms = 250),
        row("slow tenth (uplinks / 10)", &|of| of.slow_percent = 10),
        row("100 MiB layer (no target)", &|of| of.size = 100 << 20),
        row("5 layers", &|of| of.layers = 5),
        row("while the cache downloads", &|of| of.upstream_rate = Some(of.node_rate)),
        row("half leave when done", &|of| of.half_leave = true),
        fault("fault: 30 % killed at 3 s", Fault::Kill { percent: 30, at_ms: 3_000, back_ms: 0 }),
        fault(
            "fault: 30 % killed, back 2 s later",
            Fault::Kill { percent: 30, at_ms: 3_000, back_ms: 2_000 },
        ),
        row("fault: cache lost after 1.05 F (wide)", &|of| {
            // A cache that gave each block once gives no more, so it is lost then at the latest.
            of.cache_rate = WIDE;
            of.faults.push(Fault::CacheLost { sent_percent: 100 });
        }),
        fault("fault: tracker restarts at 3 s", Fault::TrackerRestart { at_ms: 3_000 }),
        fault("fault: tracker lost at 3 s", Fault::TrackerLost { at_ms: 3_000 }),
        fault(
            "fault: 1 % stand still for 5 s",
            Fault::Stop { percent: 1, at_ms: 3_000, for_ms: 5_000 },
        ),
        fault(
            "fault: partition of zones for 3 s",
            Fault::Partition { at_ms: 3_000, for_ms: 3_000 },
        ),
        fault("fault: 1 % poison", Fault::Rogue { percent: 1, conduct: Conduct::Poisons }),
        fault("fault: 1 % lie", Fault::Rogue { percent: 1, conduct: Conduct::Lies }),
        fault("fault: 1 % flood", Fault::Rogue { percent: 1, conduct: Conduct::Floods }),
        Row { play: spegel_like, ..row("model: Spegel-like", &|_| {}) },
        Row {
            play: spegel_like,
            ..row("model: Spegel-like, wide origin", &|of| of.cache_rate = WIDE)
        },
        Row { play: dragonfly_like, ..row("model: Dragonfly-like", &|_| {}) },
        Row {
            play: dragonfly_like,
            ..row("model: Dragonfly-like, wide seed", &|of| of.cache_rate = WIDE)
        },
    ]);
    rows
}

fn print(name: &str, report: &Report, wall_s: f64) {
    println!(
        "{name:<44} {:>4}/{:<4} {:>6.2} {:>7.3} {:>6.3} {:>7.3} {:>7.3} {:>7.3} {:>6.4} {:>7.1} {:>7}",
        report.done,
        report.nodes,
        report.bound_s,
        report.last_over_bound(),
        report.spread(),
        report.cache_egress(),
        report.zone_share(),
        report.region_ingress(),
        report.duplicates(),
        wall_s,
        peak_mib().map_or_else(|| "-".to_owned(), |mib| mib.to_string()),
    );
}

/// Most memory that this process has had, in MiB.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}

/// The targets that a row does not meet; rows with faults and models have none.
fn misses(row: &Row, report: &Report) -> Vec<String> {
    if ["fault:", "model:", "no target"].iter().any(|tag| row.name.contains(tag)) {
        return Vec::new();
    }
    let checks = [
        ("last/bound", report.last_over_bound(), 1.25),
        ("cache egress", report.cache_egress(), 1.25),
        ("cross-zone", report.zone_share(), 0.12),
        ("inter-region", report.region_ingress(), 1.005),
        ("duplicates", report.duplicates(), 0.01),
    ];
    checks
        .into_iter()
        .filter(|(_, value, most)| value > most)
        .map(|(what, value, most)| format!("{}: {what} {value:.3} > {most}", row.name))
        .collect()
}
