//! Tables and properties of the eviction policy.

use proptest::prelude::*;

use super::*;

fn policy(max: u64) -> Policy<u32> {
    Policy::new(max)
}

/// Reserves and admits as a cache does; who had to leave.
fn put(policy: &mut Policy<u32>, key: u32, size: u64) -> Vec<u32> {
    let victims = policy.reserve(size).expect("can be made room for");
    policy.release(size);
    policy.admit(key, size, 0);
    victims.into_iter().map(|(key, _)| key).collect()
}

fn touch(policy: &mut Policy<u32>, key: u32) {
    let ticket = policy.lease(&key, 1).expect("is there");
    policy.unlease(&key, ticket);
}

fn keys(policy: &Policy<u32>) -> Vec<u32> {
    let mut keys: Vec<_> = policy.records().map(|record| *record.key).collect();
    keys.sort_unstable();
    keys
}

/// The books agree with what they are sums of.
fn check(policy: &Policy<u32>) {
    let sum = |of: &dyn Fn(&Slot) -> bool| -> u64 {
        policy.entries.values().filter(|slot| of(slot)).map(|slot| slot.size).sum()
    };
    assert_eq!(policy.used, sum(&|_| true));
    assert_eq!(policy.held, sum(&Slot::is_held));
    for (queue, place) in [(&policy.small, Place::Small), (&policy.main, Place::Main)] {
        assert_eq!(queue.bytes, sum(&|slot| slot.place == place), "{place:?}");
        let live = policy.entries.values().filter(|slot| slot.place == place).count();
        assert_eq!(queue.live, live, "{place:?}");
        let standing = |(key, stamp): &&(u32, u64)| {
            policy.entries.get(key).is_some_and(|slot| slot.stamp == *stamp)
        };
        assert_eq!(queue.items.iter().filter(standing).count(), live, "{place:?}");
        assert!(queue.items.len() <= 2 * live + 65, "stale items are bounded");
    }
    let aside = |slot: &Slot| slot.place == Place::Aside && !slot.is_held();
    assert!(!policy.entries.values().any(aside), "who is set aside is held");
    let ghosts: u64 = policy.ghosts.known.values().map(|(_, size)| size).sum();
    assert_eq!(policy.ghosts.bytes, ghosts);
    assert!(ghosts <= policy.max && policy.ghosts.line.len() <= MAX_GHOSTS);
}

#[test]
fn refuses_what_cannot_fit_and_then_nobody_leaves() {
    let mut policy = policy(100);
    put(&mut policy, 1, 40);
    put(&mut policy, 2, 40);
    policy.pin(1);
    let cases = [(101, None), (u64::MAX, None), (61, None), (60, Some(vec![(2, 40)]))];
    for (bytes, wanted) in cases {
        let before = keys(&policy);
        let got = policy.reserve(bytes);
        assert_eq!(got, wanted, "{bytes}");
        if got.is_none() {
            assert_eq!(keys(&policy), before, "{bytes}");
        }
        check(&policy);
    }
    assert_eq!(policy.reserve(1), None, "40 are pinned and 60 reserved");
    policy.release(60);
    assert_eq!(policy.reserve(60), Some(vec![]));
}

#[test]
fn one_hit_wonders_go_first() {
    let mut policy = policy(1_000);
    for key in 0..9 {
        put(&mut policy, key, 100);
        touch(&mut policy, key);
        touch(&mut policy, key);
    }
    // A scan of ten times the cache, each used once.
    for key in 100..200 {
        let victims = put(&mut policy, key, 100);
        assert!(victims.iter().all(|victim| *victim >= 100), "{victims:?} left for {key}");
        touch(&mut policy, key);
        check(&policy);
    }
    assert!((0..9).all(|key| policy.size(&key).is_some()));
}

#[test]
fn a_ghost_that_comes_back_stays() {
    let mut policy = policy(1_000);
    for key in 0..11 {
        put(&mut policy, key, 100);
    }
    assert_eq!(policy.size(&0), None, "the first one left");
    put(&mut policy, 0, 100);
    for key in 20..40 {
        put(&mut policy, key, 100);
        check(&policy);
    }
    assert_eq!(policy.size(&0), Some(100), "it went to the main queue");
}

#[test]
fn held_keys_stay_and_come_back_in_line() {
    let mut policy = policy(300);
    put(&mut policy, 1, 100);
    put(&mut policy, 2, 100);
    put(&mut policy, 3, 100);
    let ticket = policy.lease(&1, 5).expect("is there");
    policy.pin(2);
    policy.pin(9);
    assert_eq!(put(&mut policy, 4, 100), [3]);
    assert_eq!(policy.reserve(101), None);
    check(&policy);
    policy.unlease(&1, ticket);
    assert!(policy.unpin(&2) && !policy.unpin(&2));
    check(&policy);
    // The one leased has been used and gets its second chance.
    assert_eq!(policy.reserve(100), Some(vec![(4, 100)]));
    assert_eq!(policy.reserve(200).map(|victims| victims.len()), Some(2));
    policy.release(300);
    put(&mut policy, 9, 100);
    assert!(policy.records().all(|record| record.pinned), "pinned before it came");
    check(&policy);
}

#[test]
fn a_lease_on_an_earlier_life_does_nothing() {
    let mut policy = policy(100);
    put(&mut policy, 1, 10);
    let old = policy.lease(&1, 0).expect("is there");
    assert!(policy.is_same(&1, old));
    assert_eq!(policy.remove(&1), Some(10));
    put(&mut policy, 1, 20);
    let new = policy.lease(&1, 0).expect("is there");
    assert!(!policy.is_same(&1, old));
    policy.unlease(&1, old);
    assert_eq!(policy.totals().held, 20);
    policy.unlease(&1, new);
    assert_eq!(policy.totals().held, 0);
    check(&policy);
}

#[test]
fn what_was_restored_beyond_the_bound_leaves_oldest_first() {
    let mut policy = policy(250);
    for key in 0..5 {
        policy.restore(key, 100, i64::from(key));
    }
    policy.pin(0);
    let victims = policy.reserve(0).expect("can be trimmed");
    assert_eq!(victims, [(1, 100), (2, 100), (3, 100)]);
    assert_eq!(keys(&policy), [0, 4]);
    check(&policy);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u32, u64),
    Promise(u64),
    TakeBack,
    Lease(u32),
    Unlease,
    Touch(u32),
    Pin(u32),
    Unpin(u32),
    Remove(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..40_u32;
    prop_oneof![
        6 => (key.clone(), 0..400_u64).prop_map(|(key, size)| Step::Put(key, size)),
        1 => (0..500_u64).prop_map(Step::Promise),
        1 => Just(Step::TakeBack),
        3 => key.clone().prop_map(Step::Lease),
        3 => Just(Step::Unlease),
        3 => key.clone().prop_map(Step::Touch),
        1 => key.clone().prop_map(Step::Pin),
        1 => key.clone().prop_map(Step::Unpin),
        1 => key.prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_exceeds_the_bound_and_never_evicts_what_is_held(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        const MAX: u64 = 1_000;
        let mut policy = policy(MAX);
        let mut tickets: Vec<(u32, Ticket)> = Vec::new();
        let mut promised = Vec::new();
        for step in steps {
            let held: HashSet<u32> = policy
                .records()
                .filter(|record| record.pinned || record.leases > 0)
                .map(|record| *record.key)
                .collect();
            let mut victims = None;
            match step {
                Step::Put(key, size) => {
                    victims = policy.reserve(size);
                    if victims.is_some() {
                        policy.release(size);
                        policy.admit(key, size, 0);
                    }
                }
                Step::Promise(size) => {
                    victims = policy.reserve(size);
                    if victims.is_some() {
                        promised.push(size);
                    }
                }
                Step::TakeBack => policy.release(promised.pop().unwrap_or(0)),
                Step::Lease(key) => {
                    tickets.extend(policy.lease(&key, 0).map(|ticket| (key, ticket)));
                }
                Step::Unlease => {
                    if let Some((key, ticket)) = tickets.pop() {
                        policy.unlease(&key, ticket);
                    }
                }
                Step::Touch(key) => {
                    if let Some(ticket) = policy.lease(&key, 0) {
                        policy.unlease(&key, ticket);
                    }
                }
                Step::Pin(key) => policy.pin(key),
                Step::Unpin(key) => {
                    policy.unpin(&key);
                }
                Step::Remove(key) => {
                    policy.remove(&key);
                    tickets.retain(|(leased, _)| *leased != key);
                }
            }
            for (victim, _) in victims.into_iter().flatten() {
                prop_assert!(!held.contains(&victim), "{victim} was held");
            }
            let totals = policy.totals();
            prop_assert_eq!(totals.reserved, promised.iter().sum::<u64>());
            prop_assert!(totals.used + totals.reserved <= MAX, "{:?}", totals);
            check(&policy);
        }
    }

    /// A reservation is refused only if what is held and reserved leaves no room for it.
    #[test]
    fn refuses_only_what_nobody_could_make_room_for(
        sizes in prop::collection::vec(1..300_u64, 1..30),
        pins in prop::collection::hash_set(0..30_u32, 0..10),
        asked in 0..1_200_u64,
    ) {
        let mut policy = policy(1_000);
        for (key, size) in sizes.iter().enumerate() {
            let key = key as u32;
            if pins.contains(&key) {
                policy.pin(key);
            }
            if policy.reserve(*size).is_some() {
                policy.release(*size);
                policy.admit(key, *size, 0);
            }
        }
        let possible = policy.totals().held + asked <= 1_000;
        prop_assert_eq!(policy.reserve(asked).is_some(), possible);
        check(&policy);
    }

    /// Whatever the sizes, a working set that is used again outlives any scan.
    #[test]
    fn a_scan_evicts_nothing_that_is_used(
        hot in prop::collection::vec(1..60_u64, 1..10),
        scan in prop::collection::vec(1..100_u64, 1..200),
    ) {
        let mut policy = policy(1_000);
        for (key, size) in hot.iter().enumerate() {
            put(&mut policy, key as u32, *size);
            touch(&mut policy, key as u32);
            touch(&mut policy, key as u32);
        }
        for (number, size) in scan.iter().enumerate() {
            put(&mut policy, 1_000 + number as u32, *size);
            for key in 0..hot.len() as u32 {
                prop_assert!(policy.size(&key).is_some(), "{key} left");
                touch(&mut policy, key);
            }
        }
    }
}
