use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kuboard_vuln::{
    Advisories, Advisory, Affected, Bound, Ecosystem, Epss, MemoryAdvisories, Qualifiers, Range,
    Rating, Row, SeverityScore, Status,
};
use proptest::prelude::*;

use super::{Builder, Database, DatabaseError, EPSS, Generations, export};
use crate::Sink;

fn advisory(source: &str, id: &str, package: &str, fixed: &str) -> Advisory {
    let until = if fixed.is_empty() { Bound::None } else { Bound::Fixed(fixed.to_owned()) };
    Advisory {
        source: source.to_owned(),
        id: id.to_owned(),
        aliases: vec![format!("CVE-2024-{}", id.len())],
        summary: format!("what {id} is about"),
        affected: vec![Affected {
            namespace: "npm".to_owned(),
            ecosystem: Ecosystem::Npm,
            package: package.to_owned(),
            by_source: false,
            status: Status::Fixed,
            ranges: vec![Range { introduced: None, until }],
            versions: Vec::new(),
            qualifiers: Qualifiers::default(),
            severities: Vec::new(),
            symbols: Vec::new(),
        }],
        ..Advisory::default()
    }
}

fn score(source: &str, value: &str) -> SeverityScore {
    let (source, value) = (source.to_owned(), value.to_owned());
    SeverityScore { source, rating: Rating::Word, value }
}

fn build(
    folder: &Path,
    previous: Option<&Arc<Database>>,
    generation: u64,
    feed: impl FnOnce(&mut Builder),
) -> Arc<Database> {
    let mut builder = Builder::new(folder, previous.cloned()).unwrap();
    feed(&mut builder);
    let path = folder.join(format!("{generation}.kbdb"));
    let stamp = builder.finish(&path, generation, 1_000).unwrap();
    let database = Database::open(&path).unwrap();
    assert_eq!(database.stamp(), stamp);
    database.verify().unwrap();
    database
}

/// Rows as text, the advisory by its name.
fn rows(db: &dyn Advisories, namespace: &str, package: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut count = 0;
    db.rows(namespace, package, &mut |row| {
        let head = db.head(row.advisory).unwrap();
        all.insert(format!("{} {} {:?}", head.source, head.id, Row { advisory: 0, ..row }));
        count += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(all.len(), count);
    all
}

fn is_in_order(db: &dyn Advisories, namespace: &str, package: &str) -> bool {
    let mut last: Option<Vec<u8>> = None;
    let mut ordered = true;
    db.rows(namespace, package, &mut |row| {
        let bound = row.until.bound().map(<[u8]>::to_vec);
        ordered &= match (&last, &bound) {
            (Some(last), Some(bound)) => last >= bound,
            (Some(_), None) => false,
            (None, _) => true,
        };
        last = bound;
        ControlFlow::Continue(())
    });
    ordered
}

/// Everything that both are asked for must be the same.
fn check_equal(memory: &MemoryAdvisories, database: &Database, fed: &[Advisory]) {
    assert_eq!(memory.packages().count(), database.packages());
    for (namespace, package) in memory.packages() {
        assert_eq!(rows(memory, namespace, package), rows(database, namespace, package));
        assert!(is_in_order(memory, namespace, package));
        assert!(is_in_order(database, namespace, package));
        assert!(database.covers(namespace));
    }
    for one in fed {
        let found = database.find(&one.id.to_ascii_lowercase());
        assert!(found.iter().any(|other| other == one), "{}", one.id);
    }
    assert!(!database.is_damaged());
}

#[test]
fn what_is_fed_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let database = build(folder.path(), None, 1, |builder| {
        builder.source("osv:npm", 77, "etag");
        builder.advisory(advisory("osv:npm", "A", "a", "1.0.0"));
        builder.advisory(advisory("osv:npm", "A", "a", "2.0.0"));
        builder.advisory(advisory("osv:npm", "BB", "b", ""));
        builder.advisory(advisory("osv:npm", "GONE", "b", ""));
        builder.retract("osv:npm", "GONE");
        let withdrawn = Advisory { withdrawn_ms: Some(1), ..advisory("x", "W", "a", "") };
        builder.advisory(withdrawn);
        builder.score("CVE-2024-1", score("nvd", "HIGH"));
        builder.score("CVE-2024-1", score("nvd", "LOW"));
        builder.epss("CVE-2024-12345", Epss { probability: 5, percentile: 6 });
        builder.known_exploited("CVE-2024-1", "2024-02-03");
        builder.end_of_life("debian:12", "2028-06-30");
    });
    assert_eq!((database.len(), database.packages(), database.row_count()), (3, 2, 2));
    assert_eq!(rows(&*database, "npm", "a").len(), 1);
    assert!(rows(&*database, "npm", "a").first().unwrap().contains("2.0.0"));
    assert!(rows(&*database, "npm", "c").is_empty() && rows(&*database, "np", "ma").is_empty());
    let named = |id: &str| database.find(id).into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(named("cve-2024-1"), ["A", "W"]);
    assert_eq!(named("BB"), ["BB"]);
    assert_eq!(named("GONE"), [] as [&str; 0]);
    assert_eq!(database.scores("CVE-2024-1"), [score("nvd", "LOW")]);
    assert_eq!(database.scores("CVE-2024-2"), []);
    assert_eq!(database.epss("CVE-2024-1"), None);
    assert_eq!(database.epss("CVE-2024-12345").unwrap().percentile, 6);
    assert_eq!(database.known_exploited("CVE-2024-1").as_deref(), Some("2024-02-03"));
    assert_eq!(database.known_exploited("CVE-2024-12345"), None);
    assert_eq!(database.end_of_life("debian:12").as_deref(), Some("2028-06-30"));
    assert!(database.covers("npm") && !database.covers("go"));
    assert_eq!(database.stamp().sources, [("osv:npm".to_owned(), 77), ("x".to_owned(), 0)]);
    assert_eq!(database.sources()[0].fingerprint, "etag");
    assert_eq!(database.sources()[0].advisories, 2);
    assert_eq!(database.changed().unwrap().since, None);
    assert!(database.head(3).is_err());
}

#[test]
fn an_empty_database_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let database = build(folder.path(), None, 1, |_| {});
    assert!(database.is_empty() && database.find("x").is_empty());
    assert!(rows(&*database, "npm", "a").is_empty());
}

#[test]
fn what_is_not_fed_again_is_carried_over_and_changes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let first = build(folder.path(), None, 1, |builder| {
        builder.source("osv:npm", 5, "old");
        for (id, package, fixed) in [("A", "a", "1.0.0"), ("B", "b", "1.0.0"), ("C", "c", "1.0.0")]
        {
            builder.advisory(advisory("osv:npm", id, package, fixed));
        }
        builder.advisory(advisory("other", "O", "o", "1.0.0"));
        builder.epss("CVE-2024-1", Epss { probability: 1, percentile: 1 });
        builder.score("CVE-2024-1", score("nvd", "HIGH"));
    });
    let second = build(folder.path(), Some(&first), 2, |builder| {
        builder.retract("osv:npm", "C");
        builder.carry(&|source| source == "osv:npm" || source == "nvd").unwrap();
        builder.advisory(advisory("osv:npm", "B", "b", "1.1.0"));
        builder.advisory(advisory("osv:npm", "D", "d", "1.0.0"));
        builder.advisory(Advisory {
            details: "more".to_owned(),
            ..advisory("osv:npm", "A", "a", "1.0.0")
        });
    });
    let changes = second.changed().unwrap();
    let ids = |all: &[(String, String)]| -> Vec<String> {
        all.iter().map(|(source, id)| format!("{source}/{id}")).collect()
    };
    assert_eq!(changes.since, Some(1));
    assert_eq!(ids(&changes.packages), ["npm/b", "npm/c", "npm/d", "npm/o"]);
    assert_eq!(ids(&changes.added), ["osv:npm/D"]);
    assert_eq!(ids(&changes.changed), ["osv:npm/A", "osv:npm/B"]);
    assert_eq!(ids(&changes.removed), ["osv:npm/C", "other/O"]);
    assert_eq!(second.sources()[0].fingerprint, "old");
    assert_eq!(second.epss("CVE-2024-1"), None);
    assert_eq!(second.scores("CVE-2024-1"), [score("nvd", "HIGH")]);
    assert_eq!(second.find("A").len(), 1);
    let third = build(folder.path(), Some(&second), 3, |builder| builder.carry(&|_| true).unwrap());
    let nothing = third.changed().unwrap();
    assert_eq!(nothing.since, Some(2));
    assert!(nothing.packages.is_empty() && nothing.changed.is_empty() && nothing.added.is_empty());
    assert_eq!(third.len(), second.len());
    let fourth = build(folder.path(), Some(&third), 4, |builder| {
        builder.epss("CVE-2024-1", Epss { probability: 9, percentile: 9 });
        builder.carry(&|source| source != EPSS).unwrap();
    });
    assert_eq!(fourth.epss("CVE-2024-1").unwrap().probability, 9);
}

#[test]
fn refused_versions_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let database = build(folder.path(), None, 1, |builder| {
        let mut one = advisory("osv:npm", "A", "a", "not a version");
        one.affected[0].versions = vec!["x y".to_owned()];
        one.affected.push(Affected { package: String::new(), ..one.affected[0].clone() });
        builder.advisory(one);
        builder.advisory(Advisory { source: "osv:npm".to_owned(), ..Advisory::default() });
    });
    let source = &database.sources()[0];
    assert_eq!((source.refused_ranges, source.refused_versions), (1, 1));
    assert_eq!((source.refused_advisories, source.advisories), (2, 1));
    // A package none of whose ranges could be read has no rows, here as in memory.
    let mut memory = MemoryAdvisories::new();
    memory.add(advisory("osv:npm", "A", "a", "not a version"));
    assert_eq!(memory.packages().count(), 0);
}

#[test]
fn generations_are_swapped_and_survive_damage() {
    let folder = tempfile::tempdir().unwrap();
    let all = Generations::open(&folder.path().join("db")).unwrap();
    assert!(all.current().unwrap().is_none());
    for wanted in 1..=3 {
        let number = all.next().unwrap();
        assert_eq!(number, wanted);
        let previous = all.current().unwrap();
        let mut builder = Builder::new(all.folder(), previous).unwrap();
        builder.advisory(advisory("s", "A", "a", &format!("{number}.0.0")));
        builder.finish(&all.path(number), number, 0).unwrap();
        // Not in use before it is installed.
        let current = all.current().unwrap().map(|one| one.generation());
        assert_eq!(current, Some(wanted - 1).filter(|one| *one > 0).or(Some(wanted)));
        assert_eq!(all.install(number).unwrap().generation(), number);
    }
    assert_eq!(all.numbers().unwrap(), [3, 2]);
    let mut bytes = std::fs::read(all.path(3)).unwrap();
    bytes[30] ^= 1;
    std::fs::remove_file(all.path(3)).unwrap();
    std::fs::write(all.path(3), bytes).unwrap();
    let all = Generations::open(all.folder()).unwrap();
    assert_eq!(all.current().unwrap().unwrap().generation(), 2);
    std::fs::remove_file(all.path(2)).unwrap();
    std::fs::write(all.folder().join("gen-000002.kbdb"), b"junk").unwrap();
    assert!(matches!(all.current(), Err(DatabaseError::Damaged(_))));
}

#[test]
fn a_database_travels_as_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let there = Generations::open(&folder.path().join("there")).unwrap();
    let bundle = |generation| {
        let database = build(folder.path(), None, generation, |builder| {
            (0..100).for_each(|n| builder.advisory(advisory("s", &format!("A{n}"), "a", "1.0.0")));
        });
        let mut bytes = Vec::new();
        export(&database, &mut bytes).unwrap();
        bytes
    };
    let (one, two) = (bundle(1), bundle(2));
    let import = |bytes: &[u8], force| there.import(bytes, 1 << 20, force);
    assert_eq!(import(&two, false).unwrap().generation(), 2);
    assert_eq!(there.current().unwrap().unwrap().len(), 100);
    assert!(matches!(import(&one, false), Err(DatabaseError::Older { bundle: 1, current: 2 })));
    assert_eq!(import(&one, true).unwrap().generation(), 1);
    assert_eq!(there.current().unwrap().unwrap().generation(), 1);
    let two_is = import(&two, false).unwrap().stamp();
    let mut newer = two.clone();
    newer[8] = 99;
    assert!(matches!(import(&newer, true), Err(DatabaseError::Newer { found: 99 })));
    assert!(matches!(there.import(&two[..], 100, true), Err(DatabaseError::TooLarge(_))));
    assert!(matches!(import(b"hello", true), Err(DatabaseError::NotADatabase)));
    for at in (0..two.len()).step_by(7) {
        let mut bad = two.clone();
        bad[at] ^= 0x10;
        // A few bits mean nothing: what is taken in is what was sent, or nothing.
        let taken = import(&bad, true).map_or(two_is.clone(), |taken| taken.stamp());
        assert_eq!(taken, two_is, "byte {at}");
        assert!(import(&two[..at], true).is_err(), "cut at {at}");
    }
    assert_eq!(there.current().unwrap().unwrap().len(), 100);
}

#[test]
fn a_file_of_a_newer_format_says_so() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path(), None, 1, |_| {});
    let mut bytes = std::fs::read(folder.path().join("1.kbdb")).unwrap();
    bytes[8] = 2;
    std::fs::write(folder.path().join("newer"), bytes).unwrap();
    let err = Database::open(&folder.path().join("newer")).unwrap_err();
    assert!(err.to_string().contains("hint: update kuboard"), "{err}");
}

fn versions() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(one, two)| format!("{one}.{two}.0")),
        Just("junk".to_owned()),
    ]
}

prop_compose! {
    fn affecteds()(
        namespace in prop_oneof![Just("npm"), Just("debian:12"), Just("alma:9")],
        package in "[abc]",
        by_source in any::<bool>(),
        status in 0_usize..3,
        ranges in proptest::collection::vec(
            (proptest::option::of(versions()), 0_u8..3, versions()), 0..3,
        ),
        versions in proptest::collection::vec(versions(), 0..3),
        arch in proptest::option::of("[xy]"),
        word in proptest::option::of("low|high"),
    ) -> Affected {
        let ecosystem = match namespace {
            "npm" => Ecosystem::Npm,
            "alma:9" => Ecosystem::Rpm,
            _ => Ecosystem::Deb,
        };
        let range = |(introduced, kind, version): (Option<String>, u8, String)| Range {
            introduced,
            until: match kind {
                0 => Bound::None,
                1 => Bound::Fixed(version),
                _ => Bound::LastAffected(version),
            },
        };
        Affected {
            namespace: namespace.to_owned(),
            ecosystem,
            package,
            by_source,
            status: [Status::Fixed, Status::Affected, Status::NotAffected][status],
            ranges: ranges.into_iter().map(range).collect(),
            versions,
            qualifiers: Qualifiers { arches: arch.into_iter().collect(), ..Qualifiers::default() },
            severities: word.map(|word| score("debian", &word)).into_iter().collect(),
            symbols: Vec::new(),
        }
    }
}

fn fed() -> impl Strategy<Value = Vec<Advisory>> {
    let one = ("s[12]", "[A-F]", proptest::collection::vec(affecteds(), 0..4), any::<bool>());
    let advisory = one.prop_map(|(source, id, affected, withdrawn)| Advisory {
        source,
        id,
        affected,
        withdrawn_ms: withdrawn.then_some(1),
        ..Advisory::default()
    });
    proptest::collection::vec(advisory, 0..12)
}

/// The last of each (source, id).
fn last_of_each(fed: &[Advisory]) -> Vec<Advisory> {
    let is_last = |at: usize, one: &Advisory| {
        !fed[at + 1..].iter().any(|later| (&later.source, &later.id) == (&one.source, &one.id))
    };
    let all = fed.iter().enumerate();
    all.filter(|(at, one)| is_last(*at, one)).map(|(_, one)| one.clone()).collect()
}

/// Asks everything of a file that may be damaged; all that counts is that it comes back.
pub(super) fn ask_everything(path: &Path) {
    let Ok(database) = Database::open(path) else { return };
    let _ = (database.verify(), database.changed());
    for package in ["a", "b", "c"] {
        for namespace in ["npm", "debian:12", "alma:9"] {
            database.rows(namespace, package, &mut |row| {
                let _ = (database.head(row.advisory), row.conditions.map(|all| all.severities()));
                ControlFlow::Continue(())
            });
        }
    }
    for index in 0..database.len().min(100) as u32 {
        let _ = database.advisory(index);
    }
    let _ = (database.find("A"), database.scores("CVE-2024-1"), database.epss("CVE-2024-1"));
    let folder = path.parent().unwrap();
    let mut builder = Builder::new(folder, Some(database)).unwrap();
    if builder.carry(&|_| true).is_ok() {
        let _ = builder.finish(&folder.join("again.kbdb"), 2, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_file_answers_as_memory_does(fed in fed(), again in fed()) {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = MemoryAdvisories::new();
        fed.iter().for_each(|one| memory.add(one.clone()));
        let first = build(folder.path(), None, 1, |builder| {
            fed.iter().for_each(|one| builder.advisory(one.clone()));
        });
        check_equal(&memory, &first, &last_of_each(&fed));
        again.iter().for_each(|one| memory.add(one.clone()));
        let second = build(folder.path(), Some(&first), 2, |builder| {
            builder.carry(&|_| true).unwrap();
            again.iter().for_each(|one| builder.advisory(one.clone()));
        });
        let all: Vec<Advisory> = fed.iter().chain(&again).cloned().collect();
        check_equal(&memory, &second, &last_of_each(&all));
        let changes = second.changed().unwrap();
        let mut differing = BTreeSet::new();
        for namespace in ["npm", "debian:12", "alma:9"] {
            for package in ["a", "b", "c"] {
                if rows(&*first, namespace, package) != rows(&*second, namespace, package) {
                    differing.insert((namespace.to_owned(), package.to_owned()));
                }
            }
        }
        prop_assert_eq!(changes.packages.into_iter().collect::<BTreeSet<_>>(), differing);
    }

    #[test]
    fn damaged_files_are_survived(
        fed in fed(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        mend in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        build(folder.path(), None, 1, |builder| {
            fed.iter().for_each(|one| builder.advisory(one.clone()));
            builder.score("CVE-2024-1", score("nvd", "LOW"));
        });
        let mut bytes = std::fs::read(folder.path().join("1.kbdb")).unwrap();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if mend && bytes.len() >= 1024 {
            // As someone would who wants it to be opened.
            let end = 24 + 17 * 56;
            let sum = super::format::sha256(&bytes[..end]);
            bytes[end..end + 32].copy_from_slice(&sum);
        }
        let path = folder.path().join("bad.kbdb");
        std::fs::write(&path, bytes).unwrap();
        ask_everything(&path);
    }
}
