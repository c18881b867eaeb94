//! What must hold of verdicts whatever the world: no order matters, both ways to keep facts are
//! the same, and nothing that makes a world worse or stricter makes its outcome milder.

use proptest::prelude::*;

use crate::random::{Case, Noise, worsen};

fn case(seed: u64) -> (Case, Noise) {
    let mut noise = Noise(seed);
    (Case::random(&mut noise), noise)
}

fn shuffle<T>(all: &mut [T], noise: &mut Noise) {
    for end in (1..all.len()).rev() {
        all.swap(end, noise.below(end + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn nothing_that_is_worse_is_judged_milder(seed: u64) {
        let (mut case, mut noise) = case(seed);
        let before = case.verdict(false).outcome;
        if worsen(&mut case, &mut noise) {
            let after = case.verdict(false).outcome;
            prop_assert!(after >= before, "{before:?} became {after:?}: {case:?}");
        }
    }

    #[test]
    fn no_order_matters(seed: u64) {
        let (case, mut noise) = case(seed);
        let mut other = case.clone();
        shuffle(&mut other.images, &mut noise);
        shuffle(&mut other.policies, &mut noise);
        shuffle(&mut other.exemptions, &mut noise);
        shuffle(&mut other.running, &mut noise);
        for image in &mut other.images {
            shuffle(&mut image.manifests, &mut noise);
            for facts in image.manifests.iter_mut().flatten() {
                shuffle(&mut facts.findings, &mut noise);
            }
        }
        prop_assert_eq!(case.verdict(false), other.verdict(false));
    }

    #[test]
    fn facts_in_the_index_are_facts(seed: u64) {
        let (case, _) = case(seed);
        prop_assert_eq!(case.verdict(false), case.verdict(true));
    }

    #[test]
    fn an_exemption_whose_time_is_over_is_none(seed: u64) {
        let (case, _) = case(seed);
        let mut without = case.clone();
        without.exemptions.retain(|it| it.expires_ms > case.now_ms);
        prop_assert_eq!(case.verdict(false), without.verdict(false));
    }

    #[test]
    fn what_runs_is_never_refused_where_it_may_run(seed: u64) {
        let (mut case, _) = case(seed);
        for policy in &mut case.policies {
            policy.allow_running = true;
        }
        let namespace = case.namespace.clone();
        for image in &mut case.images {
            image.state = "resolved".to_owned();
            case.running.push((namespace.clone(), image.digest));
        }
        prop_assert!(case.verdict(false).outcome <= kuboard_admission::Outcome::Warn);
    }
}
