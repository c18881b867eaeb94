//! The outcome table of updates: what the servers do, what comes of each feed, whether there is a
//! new generation, what the database holds then, and that all is well again once they behave.

use crate::feeds::{Bench, FEEDS, Fault, GO, World, told};

const GOOD: &str = "alpine 16, debian 66, osv:go 60, redhat 5";
const DEBIAN: &str = "debian/data.json";
const ALWAYS: usize = usize::MAX;

type Change = fn(&mut World);

/// A row of the table.
struct Row {
    situation: &'static str,
    /// What really changed.
    content: Change,
    /// What goes wrong.
    fault: Change,
    /// `FEED: all N`, `FEED: changes N`, `FEED: FAILED part of the reason`; the others are
    /// unchanged.
    outcomes: &'static [&'static str],
    held: &'static str,
    /// The same once the fault is gone and one of Go's advisories is new.
    recovered: &'static [&'static str],
    held_then: &'static str,
}

const NEW_GO: &[&str] = &["osv:go: changes 1"];
const GOOD_AND_NEW: &str = "alpine 16, debian 66, osv:go 61, redhat 5";

fn no(_: &mut World) {}

fn new_go(world: &mut World) {
    world.go(9999, "2024-06-20T00:00:00Z", "2.0.0");
}

#[track_caller]
fn matches(situation: &str, told: &[String], expected: &[&str]) {
    let fits = told.len() == expected.len()
        && told.iter().zip(expected).all(|(told, expected)| match expected.split_once("FAILED ") {
            None => told == expected,
            Some((feed, part)) => told.starts_with(&format!("{feed}FAILED")) && told.contains(part),
        });
    assert!(fits, "{situation}: {told:#?}, not {expected:#?}");
}

#[track_caller]
fn check(row: &Row) {
    let Row { situation, .. } = row;
    let bench = Bench::new();
    let first = bench.update();
    assert_eq!(first.feeds.len(), FEEDS.len(), "{situation}");
    assert_eq!((bench.held().as_str(), bench.database().generation()), (GOOD, 1), "{situation}");

    {
        let mut world = bench.world.lock();
        (row.content)(&mut world);
        (row.fault)(&mut world);
    }
    let report = bench.update();
    matches(situation, &told(&report), row.outcomes);
    let is_new = row.outcomes.iter().any(|outcome| !outcome.contains("FAILED"));
    let generation = bench.database().generation();
    assert_eq!(
        (report.generation.is_some(), generation),
        (is_new, 1 + u64::from(is_new)),
        "{situation}"
    );
    assert_eq!(bench.held(), row.held, "{situation}");
    assert_eq!(bench.incoming(), Vec::<String>::new(), "{situation}");

    {
        let mut world = bench.world.lock();
        *world = World::good();
        (row.content)(&mut world);
        new_go(&mut world);
    }
    let report = bench.update();
    matches(&format!("{situation}, recovered"), &told(&report), row.recovered);
    assert_eq!(bench.held(), row.held_then, "{situation}, recovered");
    assert_eq!(told(&bench.update()), Vec::<String>::new(), "{situation}, at rest");
}

/// Rows in which a fault hits Debian's only document while it changes.
fn debian(situation: &'static str, fault: Change, why: Option<&'static str>) {
    let failed: &'static [&'static str] = match why {
        Some(why) => Box::leak(Box::new([why])),
        None => &["debian: all 67"],
    };
    let (held, recovered): (_, &[&str]) = match why {
        Some(_) => (GOOD, &["debian: all 67", "osv:go: changes 1"]),
        None => ("alpine 16, debian 67, osv:go 60, redhat 5", NEW_GO),
    };
    check(&Row {
        situation,
        content: |world| world.debian(61),
        fault,
        outcomes: failed,
        held,
        recovered,
        held_then: "alpine 16, debian 67, osv:go 61, redhat 5",
    });
}

#[test]
fn nothing_new() {
    let quiet: [(_, Change); 3] = [
        ("nothing changed", no),
        ("a server without tags", |world| world.fault("", Fault::Plain, ALWAYS)),
        ("other tags, the same bytes", |world| world.fault("", Fault::Retagged, ALWAYS)),
    ];
    for (situation, fault) in quiet {
        let row = Row {
            situation,
            content: no,
            fault,
            outcomes: &[],
            held: GOOD,
            recovered: NEW_GO,
            held_then: GOOD_AND_NEW,
        };
        check(&row);
    }
}

#[test]
fn throttled() {
    debian("throttled twice", |w| w.fault(DEBIAN, Fault::Status(429, Some("0")), 2), None);
    debian("busy twice", |w| w.fault(DEBIAN, Fault::Status(503, None), 2), None);
    debian(
        "throttled for an hour",
        |w| w.fault(DEBIAN, Fault::Status(429, Some("3600")), ALWAYS),
        Some("debian: FAILED throttling us (wait 3600 s)"),
    );
    debian(
        "throttled again and again",
        |w| w.fault(DEBIAN, Fault::Status(429, Some("0")), ALWAYS),
        Some("debian: FAILED throttling us"),
    );
}

#[test]
fn broken_off() {
    debian("cut once, resumed", |w| w.fault(DEBIAN, Fault::Cut, 1), None);
    debian(
        "cut once, then another document",
        |w| {
            let content = w.documents[DEBIAN].clone();
            w.debian(62);
            w.fault(DEBIAN, Fault::Cut, 1);
            w.replace_later(DEBIAN, content);
        },
        None,
    );
    debian(
        "cut once, then a server without parts",
        |w| {
            w.fault(DEBIAN, Fault::Cut, 1);
            w.fault(DEBIAN, Fault::Plain, ALWAYS);
        },
        None,
    );
    debian(
        "cut once, then the wrong part",
        |w| {
            w.fault(DEBIAN, Fault::Cut, 1);
            w.fault(DEBIAN, Fault::WrongPart, 1);
        },
        None,
    );
    debian(
        "cut once, then no such part",
        |w| {
            w.fault(DEBIAN, Fault::Cut, 1);
            w.fault(DEBIAN, Fault::Status(416, None), 1);
        },
        None,
    );
    debian(
        "cut again and again",
        |w| w.fault(DEBIAN, Fault::Cut, ALWAYS),
        Some("debian: FAILED it broke off 6 times"),
    );
    debian(
        "cut short, as if it were all",
        |w| w.fault(DEBIAN, Fault::Half, ALWAYS),
        Some("debian: FAILED data.json: "),
    );
}

#[test]
fn refused() {
    debian("an error once", |w| w.fault(DEBIAN, Fault::Status(500, None), 1), None);
    debian(
        "errors",
        |w| w.fault(DEBIAN, Fault::Status(500, None), ALWAYS),
        Some("debian: FAILED the server said 500"),
    );
    debian(
        "gone",
        |w| w.fault(DEBIAN, Fault::Status(404, None), ALWAYS),
        Some("debian: FAILED the server has none"),
    );
    debian(
        "forbidden",
        |w| w.fault(DEBIAN, Fault::Status(403, None), ALWAYS),
        Some("debian: FAILED refuses: 403"),
    );
    debian(
        "redirected once",
        |w| {
            let content = w.documents[DEBIAN].clone();
            w.put("moved.json", content);
            w.fault(DEBIAN, Fault::Redirect("/moved.json".to_owned()), ALWAYS);
        },
        None,
    );
    debian(
        "redirected in a loop",
        |w| {
            w.fault(DEBIAN, Fault::Redirect("/loop".to_owned()), ALWAYS);
            w.fault("loop", Fault::Redirect("/debian/data.json".to_owned()), ALWAYS);
        },
        Some("debian: FAILED a redirect loop"),
    );
    debian(
        "above all bounds",
        |w| w.fault(DEBIAN, Fault::Promise(5 << 30), ALWAYS),
        Some("debian: FAILED it has more than 4294967296 bytes"),
    );
}

#[test]
fn garbage() {
    debian(
        "a page of somebody else",
        |w| w.fault(DEBIAN, Fault::Page, ALWAYS),
        Some("debian: FAILED not a feed of the format"),
    );
    debian("empty", |w| w.put(DEBIAN, ""), Some("debian: FAILED data.json"));
    debian("an empty list", |w| w.put(DEBIAN, "{}"), Some("debian: FAILED the feed is empty"));
    debian(
        "suddenly small",
        |w| w.debian(0),
        Some("debian: FAILED it has 6 advisories where it had 66"),
    );
}

#[test]
fn several_feeds_at_once() {
    check(&Row {
        situation: "one bad among good ones",
        content: |world| {
            world.debian(61);
            world.go(1, "2024-06-01T00:00:00Z", "1.34.0");
        },
        fault: |world| world.put("alpine/v3.15/main.json", "<html>"),
        outcomes: &["alpine: FAILED v3.15/main.json", "debian: all 67", "osv:go: changes 1"],
        held: "alpine 16, debian 67, osv:go 60, redhat 5",
        recovered: NEW_GO,
        held_then: "alpine 16, debian 67, osv:go 61, redhat 5",
    });
    check(&Row {
        situation: "nobody answers well",
        content: no,
        fault: |world| world.fault("", Fault::Status(500, None), ALWAYS),
        outcomes: &[
            "alpine: FAILED 500",
            "debian: FAILED 500",
            "kev: FAILED 500",
            "osv:go: FAILED 500",
            "redhat: FAILED 500",
        ],
        held: GOOD,
        recovered: NEW_GO,
        held_then: GOOD_AND_NEW,
    });
    check(&Row {
        situation: "one of several documents is gone",
        content: |world| {
            let main = world.documents["alpine/v3.15/main.json"].clone();
            let main = String::from_utf8(main.to_vec()).unwrap().replace("CVE-2021", "CVE-2022");
            world.put("alpine/v3.15/main.json", main);
        },
        fault: |world| world.fault("community.json", Fault::Status(404, None), ALWAYS),
        outcomes: &["alpine: FAILED it was there and is gone"],
        held: GOOD,
        recovered: &["alpine: all 16", "osv:go: changes 1"],
        held_then: GOOD_AND_NEW,
    });
    check(&Row {
        situation: "figures rolled back",
        content: no,
        fault: |world| {
            let path = "kev/known_exploited_vulnerabilities.json";
            let text = String::from_utf8(world.documents[path].to_vec()).unwrap();
            world.put(path, text.replace("\"2025-", "\"2019-").replace("\"2024-", "\"2018-"));
        },
        outcomes: &["kev: FAILED it went back in time"],
        held: GOOD,
        recovered: NEW_GO,
        held_then: GOOD_AND_NEW,
    });
}

/// Go's feed is OSV's: a list of changes, documents, and the whole.
#[track_caller]
fn go(
    situation: &'static str,
    content: Change,
    fault: Change,
    [outcome, recovered]: [&'static [&'static str]; 2],
    [held, then]: [u32; 2],
) {
    let all = |go: u32| -> &'static str {
        Box::leak(format!("alpine 16, debian 66, osv:go {go}, redhat 5").into_boxed_str())
    };
    let (held, held_then) = (all(held), all(then));
    check(&Row { situation, content, fault, outcomes: outcome, held, recovered, held_then });
}

fn three_new(world: &mut World) {
    for number in 101..=103 {
        world.go(number, "2024-06-01T00:00:00Z", "1.0.0");
    }
}

#[test]
fn lists_of_changes() {
    let both: &[&str] = &["osv:go: changes 4"];
    go(
        "a change and one that is new",
        |world| {
            world.go(2, "2024-06-01T00:00:00Z", "1.34.0");
            world.go(101, "2024-06-01T00:00:00Z", "1.0.0");
        },
        no,
        [&["osv:go: changes 2"], NEW_GO],
        [61, 62],
    );
    go(
        "published late, with an early time",
        |world| world.go(101, "2024-05-19T12:00:00Z", "1.0.0"),
        no,
        [&["osv:go: changes 1"], NEW_GO],
        [61, 62],
    );
    go(
        "too much changed to fetch it one by one",
        |world| {
            for number in 1000..3100 {
                world.go.insert(number, ("2024-06-01T00:00:00Z".to_owned(), "1.0.0".to_owned()));
            }
            world.publish_go();
        },
        no,
        [&["osv:go: all 2160"], NEW_GO],
        [2160, 2161],
    );
    go(
        "the list is garbage",
        three_new,
        |world| world.put("osv/Go/modified_id.csv", "<html>"),
        [&["osv:go: FAILED modified_id.csv"], both],
        [60, 64],
    );
    go(
        "the list is empty",
        three_new,
        |world| world.put("osv/Go/modified_id.csv", ""),
        [&["osv:go: FAILED the list of changes is empty"], both],
        [60, 64],
    );
    go(
        "the list is cut off",
        three_new,
        |world| world.fault("modified_id.csv", Fault::Cut, ALWAYS),
        [&["osv:go: FAILED it broke off"], both],
        [60, 64],
    );
    go(
        "the list is gone",
        three_new,
        |world| world.fault("modified_id.csv", Fault::Status(404, None), ALWAYS),
        [&["osv:go: all 63"], NEW_GO],
        [63, 64],
    );
    go(
        "the list is rolled back",
        no,
        |world| {
            world.go.retain(|_, (at, _)| at.as_str() < "2024-05-10");
            world.publish_go();
        },
        [&["osv:go: FAILED older than what is compiled in"], NEW_GO],
        [60, 61],
    );
}

#[test]
fn changed_documents() {
    let both: &[&str] = &["osv:go: changes 4"];
    go(
        "one changed document is missing",
        three_new,
        |world| world.fault("GO-2024-0102", Fault::Status(404, None), ALWAYS),
        [&["osv:go: changes 2, 1 skipped"], &["osv:go: changes 2"]],
        [62, 64],
    );
    go(
        "all changed documents are missing",
        three_new,
        |world| world.fault("GO-2024-010", Fault::Status(404, None), ALWAYS),
        [&["osv:go: all 63"], NEW_GO],
        [63, 64],
    );
    go(
        "a changed document can't be had",
        three_new,
        |world| world.fault("GO-2024-0102", Fault::Status(500, None), ALWAYS),
        [&["osv:go: FAILED 500"], both],
        [60, 64],
    );
    go(
        "changed documents are garbage",
        three_new,
        |world| world.fault("GO-2024-010", Fault::Page, ALWAYS),
        [&["osv:go: FAILED 3 of 3 changed documents are bad"], both],
        [60, 64],
    );
    go(
        "a changed document is above all bounds",
        three_new,
        |world| world.fault("GO-2024-0102", Fault::Promise(100 << 20), ALWAYS),
        [&["osv:go: FAILED more than 67108864 bytes"], both],
        [60, 64],
    );
    go(
        "the whole is garbage when it is needed",
        three_new,
        |world| {
            world.fault("modified_id.csv", Fault::Status(404, None), ALWAYS);
            world.fault("all.zip", Fault::Half, ALWAYS);
        },
        [&["osv:go: FAILED all.zip"], both],
        [60, 64],
    );
    go(
        "the whole is rolled back when it is needed",
        no,
        |world| {
            world.fault("modified_id.csv", Fault::Status(404, None), ALWAYS);
            world.go.retain(|_, (at, _)| at.as_str() < "2024-05-15");
            world.publish_go();
        },
        [&["osv:go: FAILED it went back in time"], NEW_GO],
        [60, 61],
    );
}

#[track_caller]
fn red_hat(
    situation: &'static str,
    fault: Change,
    outcome: &'static str,
    recovered: &'static [&'static str],
    held: [&'static str; 2],
) {
    check(&Row {
        situation,
        content: |world| {
            let made =
                String::from_utf8(world.documents["redhat/2024/cve-2024-24786.json"].to_vec());
            let made = made.unwrap().replace("CVE-2024-24786", "CVE-2024-1");
            world.put("redhat/2024/cve-2024-1.json", made);
            world.red_hat_changes(&[
                ("2024/cve-2024-1.json", "2024-08-01T00:00:00+00:00"),
                ("2024/cve-2024-24786.json", "2024-03-05T12:00:00+00:00"),
            ]);
        },
        fault,
        outcomes: Box::leak(Box::new([outcome])),
        held: held[0],
        recovered,
        held_then: held[1],
    });
}

#[test]
fn red_hat_changes() {
    const MORE: &str = "alpine 16, debian 66, osv:go 61, redhat 6";
    let both: &[&str] = &["osv:go: changes 1", "redhat: changes 1"];
    red_hat(
        "one is new",
        no,
        "redhat: changes 1",
        NEW_GO,
        ["alpine 16, debian 66, osv:go 60, redhat 6", MORE],
    );
    red_hat(
        "one is new, one is deleted",
        |world| {
            let deleted = "\"2023/cve-2023-0045.json\",\"2024-08-02T00:00:00+00:00\"\n";
            world.put("redhat/deletions.csv", deleted);
        },
        "redhat: changes 1",
        NEW_GO,
        [GOOD, GOOD_AND_NEW],
    );
    red_hat(
        "the new one is not there",
        |world| world.fault("cve-2024-1.json", Fault::Status(404, None), ALWAYS),
        "redhat: FAILED 1 of 1 changed documents are not there",
        both,
        [GOOD, MORE],
    );
    red_hat(
        "the list is garbage",
        |world| world.put("redhat/changes.csv", "<html>"),
        "redhat: FAILED not a feed of the format changes.csv",
        both,
        [GOOD, MORE],
    );
    red_hat(
        "the list is rolled back",
        |world| world.red_hat_changes(&[]),
        "redhat: FAILED older than what is compiled in",
        both,
        [GOOD, MORE],
    );
    red_hat(
        "the new one is garbage",
        |world| world.fault("cve-2024-1.json", Fault::Page, ALWAYS),
        "redhat: FAILED 1 of 1 changed documents are bad",
        both,
        [GOOD, MORE],
    );
}

/// What goes over the wire.
#[test]
fn a_break_is_resumed_where_it_was() {
    let bench = Bench::new();
    bench.world.lock().fault(DEBIAN, Fault::Cut, 1);
    bench.update();
    let world = bench.world.lock();
    let asked: Vec<_> = world.asked.iter().filter(|asked| asked.path == DEBIAN).collect();
    let half = world.documents[DEBIAN].len() / 2;
    assert_eq!((asked[0].status, asked[1].status), (200, 206));
    assert_eq!(asked[1].range.as_deref(), Some(format!("bytes={half}-").as_str()));
    assert!(asked[1].if_range.is_some());
    drop(world);
    assert_eq!(bench.held(), GOOD);
}

#[test]
fn what_is_known_is_not_fetched_again() {
    let bench = Bench::new();
    bench.update();
    {
        let world = bench.world.lock();
        let paths = |part: &str| world.asked.iter().filter(|one| one.path.contains(part)).count();
        assert_eq!((paths("all.zip"), paths("modified_id.csv")), (1, 0), "the first update");
        assert_eq!((paths("archive_latest"), paths("changes.csv")), (1, 1), "the first update");
    }
    // The first look at the lists brings their tags, the second one only conditions.
    bench.update();
    bench.update();
    let world = bench.world.lock();
    let sent: Vec<_> =
        world.asked.iter().filter(|asked| asked.status == 200).map(|one| &one.path).collect();
    assert_eq!(sent, ["redhat/deletions.csv"], "{GO}");
}
