//! Plays one scenario and prints its figures: `cargo run --release -p kuboard-p2p --example sim --
//! nodes=1000 zones=3 seed=2`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::{process::ExitCode, str::FromStr, time::Instant};

use kuboard_p2p::sim::{Conduct, Fault, Scenario, run};

fn set<T: FromStr>(slot: &mut T, value: &str) -> Option<()> {
    *slot = value.parse().ok()?;
    Some(())
}

fn apply(scenario: &mut Scenario, key: &str, value: &str) -> Option<()> {
    let number: u64 = value.parse().ok()?;
    match key {
        "nodes" => set(&mut scenario.nodes, value)?,
        "regions" => set(&mut scenario.regions, value)?,
        "zones" => set(&mut scenario.zones, value)?,
        "mib" => scenario.size = number << 20,
        "layers" => set(&mut scenario.layers, value)?,
        "rate" => set(&mut scenario.node_rate, value)?,
        "cache" => set(&mut scenario.cache_rate, value)?,
        "upstream" => scenario.upstream_rate = Some(number),
        "slow" => set(&mut scenario.slow_percent, value)?,
        "arrivals" => set(&mut scenario.arrivals_ms, value)?,
        "delay" => set(&mut scenario.have_delay_ms, value)?,
        "warm" => set(&mut scenario.warm_percent, value)?,
        "leave" => scenario.half_leave = number > 0,
        "seed" => set(&mut scenario.seed, value)?,
        "end" => set(&mut scenario.end_ms, value)?,
        "slots" => set(&mut scenario.agent.upload_slots, value)?,
        "downs" => set(&mut scenario.agent.download_slots, value)?,
        "load" => set(&mut scenario.agent.download_load, value)?,
        "wants" => set(&mut scenario.agent.wants_per_slot, value)?,
        "peers" => set(&mut scenario.agent.neighbours_wanted, value)?,
        "far" => set(&mut scenario.agent.far_percent, value)?,
        "starve" => set(&mut scenario.agent.starve_ms, value)?,
        "cacheslots" => set(&mut scenario.cache.upload_slots, value)?,
        "upperslots" => set(&mut scenario.cache.upper_slots, value)?,
        "lost" => scenario.faults.push(Fault::CacheLost { sent_percent: number }),
        "restart" => scenario.faults.push(Fault::TrackerRestart { at_ms: number }),
        "kill" => {
            scenario.faults.push(Fault::Kill { percent: 30, at_ms: number, back_ms: 0 });
        }
        "stop" => scenario.faults.push(Fault::Stop { percent: 1, at_ms: number, for_ms: 60_000 }),
        "cut" => scenario.faults.push(Fault::Partition { at_ms: 3_000, for_ms: number }),
        "poison" => rogue(scenario, number, Conduct::Poisons),
        "lie" => rogue(scenario, number, Conduct::Lies),
        "flood" => rogue(scenario, number, Conduct::Floods),
        _ => return None,
    }
    Some(())
}

fn rogue(scenario: &mut Scenario, percent: u64, conduct: Conduct) {
    let percent = u8::try_from(percent).unwrap_or(100);
    scenario.faults.push(Fault::Rogue { percent, conduct });
}

fn main() -> ExitCode {
    let mut scenario = Scenario::flash_crowd(100);
    for argument in std::env::args().skip(1) {
        let known =
            argument.split_once('=').and_then(|(key, value)| apply(&mut scenario, key, value));
        if known.is_none() {
            eprintln!("unknown argument {argument}; hint: key=number, keys are in examples/sim.rs");
            return ExitCode::FAILURE;
        }
    }
    let began = Instant::now();
    let report = run(&scenario);
    println!(
        "{}/{} done, bound {:.2} s, p50 {:.2} p99 {:.2} last {:.2}, last/bound {:.3}, p99/p50 {:.3}",
        report.done,
        report.nodes,
        report.bound_s,
        report.quantile(0.5),
        report.quantile(0.99),
        report.quantile(1.0),
        report.last_over_bound(),
        report.spread(),
    );
    println!(
        "  cache {:.3} F, region {:.3} F, zone {:.3} NF, twice {:.4}, upstream {}, bad {:.1} MB, uploads {}, bans {} ({} wrong), refused {}, offers {:?}, short {}, tracked {}",
        report.cache_egress(),
        report.region_ingress(),
        report.zone_share(),
        report.duplicates(),
        report.upstream_blocks,
        report.bad_bytes / 1e6,
        report.most_uploads,
        report.bans,
        report.wrong_bans,
        report.refused,
        report.offers,
        report.ended_short,
        report.tracked,
    );
    println!(
        "  {} steps in {:.1} s, trace {:016x}",
        report.steps,
        began.elapsed().as_secs_f64(),
        report.trace
    );
    ExitCode::SUCCESS
}
