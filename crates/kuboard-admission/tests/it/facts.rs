//! The index gives back what was put in, forgets what was taken out, and shares what is the same.

use kuboard_admission::FactsIndex;
use kuboard_oci::{Algorithm, Digest};
use kuboard_vuln::{Fact, ImageFacts, Known, Severity};
use proptest::prelude::*;

use crate::ground::{NOW, fact, facts};

fn sorted(mut facts: ImageFacts) -> ImageFacts {
    facts.findings.sort_by_key(|it| format!("{it:?}"));
    facts
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let severity = prop_oneof![
        Just(Severity::Unknown),
        Just(Severity::Negligible),
        Just(Severity::Low),
        Just(Severity::High),
        Just(Severity::Critical),
    ];
    let texts = ("[a-d]{0,2}", prop::collection::vec("[a-c]{1}", 0..3), "[a-d]{0,2}", "[0-2]{1}");
    let seen = prop_oneof![Just(NOW), any::<i64>(), NOW - 1000..NOW + 1000];
    let fixed = prop::option::of("[0-3]{1}");
    let epss = prop::option::of(0..100_000_u32);
    (texts, severity, fixed, any::<bool>(), epss, seen).prop_map(
        |((id, aliases, package, version), severity, fixed, exploited, epss, first_seen_ms)| Fact {
            id: id.into(),
            aliases: aliases.into_iter().map(Into::into).collect(),
            package: package.into(),
            version: version.into(),
            fixed_in: fixed.map(Into::into),
            severity,
            exploited,
            epss,
            first_seen_ms,
        },
    )
}

fn any_facts() -> impl Strategy<Value = ImageFacts> {
    let known = prop_oneof![
        Just(Known::All),
        "[ab]{1}".prop_map(|why| Known::Part(why.into())),
        "[ab]{1}".prop_map(|why| Known::Nothing(why.into())),
    ];
    let times = (prop_oneof![Just(NOW), any::<i64>()], any::<i64>());
    (known, prop::collection::vec(any_fact(), 0..20), times).prop_map(
        |(known, findings, (first_scanned_ms, scanned_ms))| ImageFacts {
            known,
            findings,
            first_scanned_ms,
            scanned_ms,
        },
    )
}

fn digest(number: u8) -> Digest {
    // Digests of both lengths, of which the index keeps one sort apart.
    let algorithm = if number.is_multiple_of(2) { Algorithm::Sha256 } else { Algorithm::Sha512 };
    Digest::of(algorithm, &[number])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_put_in_is_there_until_it_is_taken_out(
        steps in prop::collection::vec((0..6_u8, prop::option::of(any_facts())), 1..30)
    ) {
        let (index, mut model) = (FactsIndex::new(100), std::collections::HashMap::new());
        for (number, facts) in steps {
            match facts {
                Some(facts) => {
                    prop_assert!(index.put(&digest(number), &facts));
                    model.insert(number, facts);
                }
                None => prop_assert_eq!(
                    index.remove(&digest(number)),
                    model.remove(&number).is_some()
                ),
            }
            prop_assert_eq!(index.len(), model.len());
            for number in 0..6 {
                let (got, want) = (index.get(&digest(number)), model.get(&number).cloned());
                prop_assert_eq!(got.map(sorted), want.map(sorted));
            }
        }
        for number in 0..6 {
            index.remove(&digest(number));
        }
        prop_assert!(index.is_empty());
        prop_assert_eq!(index.definitions(), 0, "nothing is left behind");
    }
}

#[test]
fn findings_are_shared_and_the_number_of_images_is_bounded() {
    let index = FactsIndex::new(3);
    let same = facts(vec![fact("CVE-1", Severity::High), fact("CVE-2", Severity::Low)]);
    for number in 0..3 {
        assert!(index.put(&digest(number), &same));
    }
    assert_eq!((index.len(), index.definitions()), (3, 2));
    assert!(!index.put(&digest(3), &same), "there is no room for one more");
    assert!(index.put(&digest(2), &facts(vec![fact("CVE-3", Severity::High)])), "but for news");
    assert_eq!((index.len(), index.definitions()), (3, 3));
    assert!(index.contains(&digest(2)) && !index.contains(&digest(3)));
}
