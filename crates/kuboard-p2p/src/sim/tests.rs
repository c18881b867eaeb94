//! Properties of the state machines, seen in small simulated clusters.

use proptest::prelude::*;

use super::{Conduct, Fault, Report, Scenario, run};

/// 16 MiB for 24 nodes: 64 blocks.
fn small() -> Scenario {
    Scenario { size: 16 << 20, end_ms: 300_000, ..Scenario::flash_crowd(24) }
}

fn all_done(report: &Report) {
    assert_eq!(report.done, report.nodes, "{report:?}");
    assert!(report.duplicates() <= 0.01, "{} twice", report.duplicates());
    assert_eq!(report.wrong_bans, 0);
}

#[test]
fn a_calm_crowd_is_near_the_bound() {
    let report = run(&Scenario { size: 128 << 20, ..small() });
    all_done(&report);
    assert!(report.last_over_bound() < 1.4, "{}", report.last_over_bound());
    assert!(report.cache_egress() < 1.1, "{}", report.cache_egress());
    assert!(report.most_uploads <= Scenario::flash_crowd(1).agent.upload_slots);
    assert_eq!((report.upstream_blocks, report.ended_short, report.bans), (0, 0, 0));
}

#[test]
fn one_seed_has_one_course() {
    let scenario = Scenario { zones: 3, slow_percent: 20, ..small() };
    let (one, two) = (run(&scenario), run(&scenario));
    assert_eq!(one, two);
    assert_ne!(one.trace, run(&Scenario { seed: 2, ..scenario }).trace);
}

#[test]
fn whatever_goes_wrong_all_who_stay_get_it() {
    let check = |name: &str, change: &dyn Fn(&mut Scenario)| {
        let mut scenario = small();
        change(&mut scenario);
        let report = run(&scenario);
        assert_eq!(report.done, report.nodes, "{name}: {report:?}");
        assert_eq!(report.wrong_bans, 0, "{name}");
    };
    let rogue = |conduct| Fault::Rogue { percent: 10, conduct };
    check("layers", &|of| of.layers = 4);
    check("regions", &|of| (of.regions, of.zones) = (3, 2));
    check("from the upstream", &|of| of.upstream_rate = Some(50_000_000));
    check("late announcements", &|of| of.have_delay_ms = 250);
    check("spread arrivals", &|of| of.arrivals_ms = 5_000);
    check("leavers", &|of| of.half_leave = true);
    check("warm", &|of| of.warm_percent = 30);
    check("cache lost at the end", &|of| {
        of.faults.push(Fault::CacheLost { sent_percent: 100 });
    });
    check("cache lost half-way", &|of| of.faults.push(Fault::CacheLost { sent_percent: 50 }));
    check("tracker restarts", &|of| of.faults.push(Fault::TrackerRestart { at_ms: 100 }));
    check("tracker lost", &|of| of.faults.push(Fault::TrackerLost { at_ms: 250 }));
    check("killed", &|of| of.faults.push(Fault::Kill { percent: 30, at_ms: 150, back_ms: 0 }));
    check("killed and back", &|of| {
        of.faults.push(Fault::Kill { percent: 30, at_ms: 150, back_ms: 500 });
    });
    check("stopped", &|of| of.faults.push(Fault::Stop { percent: 8, at_ms: 100, for_ms: 4_000 }));
    check("partition", &|of| {
        of.zones = 3;
        of.faults.push(Fault::Partition { at_ms: 60, for_ms: 20_000 });
    });
    check("poison", &|of| of.faults.push(rogue(Conduct::Poisons)));
    check("lies", &|of| of.faults.push(rogue(Conduct::Lies)));
    check("floods", &|of| of.faults.push(rogue(Conduct::Floods)));
}

#[test]
fn poisoners_are_banned_and_only_they() {
    let mut scenario = small();
    scenario.faults.push(Fault::Rogue { percent: 10, conduct: Conduct::Poisons });
    let report = run(&scenario);
    assert!(report.bans > 0 && report.wrong_bans == 0);
    // Each victim believes each poisoner at most as often as requests to it are under way.
    let most = 2 * 24 * scenario.agent.per_peer as u64 * (256 << 10);
    assert!(report.bad_bytes <= most as f64, "{}", report.bad_bytes);
}

#[test]
fn who_stands_still_does_not_hold_up_others() {
    let calm = run(&small());
    let mut scenario = small();
    scenario.faults.push(Fault::Stop { percent: 8, at_ms: 100, for_ms: 60_000 });
    let report = run(&scenario);
    let others = report.times_s[report.times_s.len() - 3];
    assert!(others < calm.last_s() + 2.0, "{others} instead of {}", calm.last_s());
}

#[test]
fn limits_are_kept() {
    let mut scenario = small();
    scenario.agent.upload_rate = Some(2_000_000);
    let slow = run(&scenario);
    all_done(&slow);
    let least = scenario.size as f64 * 24.0 / (2e6 * 24.0 + 125e6);
    assert!(slow.last_s() > least * 0.8, "{} of {least}", slow.last_s());
}

#[test]
fn the_upstream_budget_is_kept() {
    let mut scenario = small();
    scenario.faults.push(Fault::CacheLost { sent_percent: 30 });
    let report = run(&scenario);
    assert_eq!(report.done, report.nodes);
    // One of the 24 may, and nobody fetched what was still there.
    assert!((1..=70).contains(&report.upstream_blocks), "{}", report.upstream_blocks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn all_get_it_while_a_copy_exists(
        seed in any::<u64>(),
        nodes in 1_usize..24,
        regions in 1_usize..3,
        zones in 1_usize..4,
        layers in 1_u32..4,
        mib in 1_u64..12,
        slow_percent in 0_u8..50,
        delay in 0_u64..300,
        fault in 0_usize..7,
        at_ms in 0_u64..400,
    ) {
        let mut scenario = Scenario {
            nodes, regions, zones, layers, slow_percent, seed,
            size: mib << 20,
            have_delay_ms: delay,
            end_ms: 400_000,
            ..Scenario::flash_crowd(1)
        };
        scenario.faults.extend(match fault {
            0 => Some(Fault::Kill { percent: 30, at_ms, back_ms: 0 }),
            1 => Some(Fault::TrackerRestart { at_ms }),
            2 => Some(Fault::Stop { percent: 20, at_ms, for_ms: 3_000 }),
            3 => Some(Fault::Partition { at_ms, for_ms: 10_000 }),
            4 => Some(Fault::CacheLost { sent_percent: at_ms / 4 }),
            5 => Some(Fault::Rogue { percent: 20, conduct: Conduct::Poisons }),
            _ => None,
        });
        let report = run(&scenario);
        prop_assert_eq!(report.done, report.nodes, "{:?}", report);
        prop_assert_eq!(report.wrong_bans, 0);
        prop_assert!(report.most_uploads <= scenario.agent.upload_slots);
        prop_assert_eq!(report.ended_short, 0);
    }

    #[test]
    fn without_any_copy_nobody_says_complete(seed in any::<u64>(), nodes in 1_usize..12) {
        let mut scenario = Scenario { nodes, seed, size: 2 << 20, end_ms: 20_000, ..small() };
        // The only copy is behind a cut that does not heal in time, and so is the tracker.
        scenario.zones = 2;
        scenario.faults.push(Fault::Partition { at_ms: 0, for_ms: 600_000 });
        scenario.agent.source_after_ms = 600_000;
        let report = run(&scenario);
        prop_assert_eq!(report.done, nodes.div_ceil(2), "{:?}", report);
    }
}
