//! What happens to the folder that is kept up to date: full, killed in the middle, damaged, deleted,
//! shared, brought from elsewhere.

use std::{fs, process::Command, sync::Arc};

use kuboard_feeds::{database, fetch::Updater};
use kuboard_vuln::Advisories as _;

use crate::feeds::{Bench, FEEDS, Fault, World, told};

const GOOD: &str = "alpine 16, debian 66, osv:go 60, redhat 5";
const FULL: [&str; 5] =
    ["alpine: all 16", "debian: all 66", "kev: all 3", "osv:go: all 60", "redhat: all 5"];

#[test]
fn full_takes_what_else_is_not_believed() {
    let bench = Bench::new();
    assert_eq!(told(&bench.update()), FULL);
    {
        let mut world = bench.world.lock();
        world.debian(0);
        world.go.retain(|_, (at, _)| at.as_str() < "2024-05-10");
        world.publish_go();
    }
    assert_eq!(told(&bench.update()).len(), 2);
    assert_eq!(bench.held(), GOOD);
    let report = bench.try_update(true).unwrap();
    let taken =
        ["alpine: all 16", "debian: all 6", "kev: all 3", "osv:go: all 27", "redhat: all 5"];
    assert_eq!(told(&report), taken);
    assert_eq!(bench.held(), "alpine 16, debian 6, osv:go 27, redhat 5");
    // What a feed that fails last said stays, also then.
    bench.world.lock().fault("debian", Fault::Status(404, None), usize::MAX);
    bench.world.lock().fault("kev", Fault::Status(304, None), usize::MAX);
    let report = told(&bench.try_update(true).unwrap());
    assert!(report[1].starts_with("debian: FAILED") && report[2].starts_with("kev: FAILED"));
    assert_eq!(bench.held(), "alpine 16, debian 6, osv:go 27, redhat 5");
    assert!(bench.database().known_exploited("CVE-2025-0108").is_some());
}

#[test]
fn nothing_good_is_no_database() {
    let bench = Bench::new();
    bench.world.lock().fault("", Fault::Status(500, None), usize::MAX);
    let report = bench.update();
    assert_eq!((report.generation, told(&report).len()), (None, FEEDS.len()));
    assert!(bench.generations().current().unwrap().is_none());
    // Figures without advisories would call every image clean.
    *bench.world.lock() = World::good();
    for feed in ["osv", "debian", "alpine", "redhat"] {
        bench.world.lock().fault(feed, Fault::Page, usize::MAX);
    }
    let report = bench.update();
    assert_eq!((report.generation, told(&report).len()), (None, FEEDS.len()));
    assert!(bench.generations().current().unwrap().is_none());
    *bench.world.lock() = World::good();
    assert_eq!(told(&bench.update()), FULL);
    assert_eq!(bench.held(), GOOD);
}

#[test]
fn one_update_at_a_time() {
    let bench = Bench::new();
    bench.update();
    let lock = fs::File::options().write(true).open(bench.folder.join("update.lock")).unwrap();
    lock.try_lock().unwrap();
    let error = bench.try_update(false).unwrap_err().to_string();
    assert!(error.contains("another update of") && error.contains("hint: wait"), "{error}");
    drop(lock);
    assert!(told(&bench.update()).is_empty());
}

#[test]
fn a_killed_update_leaves_nothing() {
    let bench = Bench::new();
    bench.update();
    for left in ["feed-abc", "next.kbdb", ".building-x.kbdb"] {
        fs::write(bench.folder.join("incoming").join(left), b"half").unwrap();
    }
    // Killed after the new file was put in place, before it was said to be in use.
    fs::write(bench.folder.join("gen-000002.kbdb"), b"half").unwrap();
    assert_eq!(bench.held(), GOOD);
    bench.world.lock().debian(61);
    assert_eq!(told(&bench.update()), ["debian: all 67"]);
    assert_eq!(bench.incoming(), Vec::<String>::new());
    assert_eq!(bench.database().generation(), 3);
}

#[test]
fn damaged_states_cost_nothing() {
    let bench = Bench::new();
    bench.update();
    for text in ["", "{", "[1]", "{\"debian\": 5}"] {
        fs::write(bench.folder.join("feeds.json"), text).unwrap();
        assert_eq!(told(&bench.update()), Vec::<String>::new(), "{text}");
        let states = Updater::states(&bench.folder);
        assert!(states["debian"].good_ms > 0 && states["debian"].error.is_empty());
    }
    fs::remove_file(bench.folder.join("feeds.json")).unwrap();
    assert_eq!(told(&bench.update()), Vec::<String>::new());
}

#[test]
fn a_deleted_database_is_fetched_anew() {
    let bench = Bench::new();
    bench.update();
    for number in bench.generations().numbers().unwrap() {
        fs::remove_file(bench.generations().path(number)).unwrap();
    }
    assert!(bench.folder.join("feeds.json").exists());
    assert_eq!(told(&bench.update()), FULL);
    assert_eq!(bench.held(), GOOD);
}

/// Flips a bit in the middle of a file.
fn damage(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_database_is_not_built_on() {
    let bench = Bench::new();
    bench.update();
    bench.world.lock().debian(61);
    bench.update();
    damage(&bench.generations().path(2));
    // Nothing can be taken over from the second; the first knows no 67th, and is caught up.
    bench.world.lock().go(101, "2024-06-01T00:00:00Z", "1.0.0");
    assert_eq!(told(&bench.update()), ["debian: all 67", "osv:go: changes 1"]);
    assert_eq!(bench.held(), "alpine 16, debian 67, osv:go 61, redhat 5");
    let numbers = bench.generations().numbers().unwrap();
    assert!(!numbers.contains(&2), "{numbers:?}");
    // All of them damaged: everything is fetched anew.
    for number in numbers {
        damage(&bench.generations().path(number));
    }
    bench.world.lock().go(102, "2024-06-02T00:00:00Z", "1.0.0");
    let all = ["alpine: all 16", "debian: all 67", "kev: all 3", "osv:go: all 62", "redhat: all 5"];
    assert_eq!(told(&bench.update()), all);
    assert_eq!(bench.held(), "alpine 16, debian 67, osv:go 62, redhat 5");
}

#[test]
fn a_bundle_from_elsewhere_goes_on_by_changes() {
    let bench = Bench::new();
    bench.update();
    let mut bundle = Vec::new();
    database::export(&bench.database(), &mut bundle).unwrap();
    let other = Bench::new();
    other.generations().import(&*bundle, 1 << 30, false).unwrap();
    other.world.lock().go(101, "2024-06-01T00:00:00Z", "1.0.0");
    assert_eq!(told(&other.update()), ["osv:go: changes 1"]);
    assert_eq!(other.held(), "alpine 16, debian 66, osv:go 61, redhat 5");
}

#[test]
fn a_folder_is_a_mirror_too() {
    let bench = Bench::new();
    let mirror = tempfile::tempdir().unwrap();
    let publish = |world: &World| {
        for (path, content) in &world.documents {
            let path = mirror.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    };
    publish(&bench.world.lock());
    for (form, outcomes) in [
        (format!("file://{}", mirror.path().display()), &FULL[..]),
        (mirror.path().display().to_string(), &[]),
    ] {
        assert_eq!(told(&bench.update_from(&FEEDS, &form, false).unwrap()), outcomes, "{form}");
    }
    bench.world.lock().go(101, "2024-06-01T00:00:00Z", "1.0.0");
    publish(&bench.world.lock());
    let path = mirror.path().display().to_string();
    let report = bench.update_from(&FEEDS, &path, false).unwrap();
    assert_eq!(told(&report), ["osv:go: changes 1"]);
    fs::remove_dir_all(mirror.path().join("debian")).unwrap();
    let report = told(&bench.update_from(&FEEDS, &path, false).unwrap());
    assert!(report.len() == 1 && report[0].starts_with("debian: FAILED"), "{report:?}");
    assert!(bench.world.lock().asked.is_empty(), "nobody is asked over the network");
}

#[test]
fn documents_of_a_year_stand_for_themselves() {
    let bench = Bench::new();
    let year = crate::feeds::data("nvd.json.gz");
    for name in ["nvdcve-2.0-2016.json.gz", "nvdcve-2.0-2024.json.gz"] {
        bench.world.lock().put(&format!("nvd/{name}"), year.clone());
    }
    let feeds = ["nvd", "debian"];
    let report = bench.update_from(&feeds, &bench.mirror, false).unwrap();
    assert_eq!(told(&report), ["debian: all 66", "nvd: all 4"]);
    let again = [year, crate::feeds::data("nvd.json.gz")].concat();
    bench.world.lock().put("nvd/nvdcve-2.0-2024.json.gz", again);
    let report = told(&bench.update_from(&feeds, &bench.mirror, false).unwrap());
    assert_eq!(report.len(), 1, "{report:?}");
    assert!(report[0].starts_with("nvd: "), "{report:?}");
    // Feeds that are not asked for stay as they are.
    bench.world.lock().debian(61);
    let report = bench.update_from(&["debian"], &bench.mirror, false).unwrap();
    assert_eq!(told(&report), ["debian: all 67"]);
    assert_eq!(bench.database().scores("CVE-2016-2781").len(), 3);
}

const INNER: &str = "KUBOARD_TEST_FULL_DISK";

/// The disk is full in a process of its own, which may not write longer files.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test runs itself once more, by this variable")]
fn a_full_disk_is_an_error() {
    if let Ok(inner) = std::env::var(INNER) {
        return full_disk(&inner);
    }
    let bench = Bench::new();
    bench.update();
    for (case, blocks) in [("fetch", 2000), ("compile", 32)] {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new("sh");
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited]).arg(own);
        command.args(["--exact", "update_folder::a_full_disk_is_an_error", "--nocapture"]);
        command.env(INNER, format!("{case}={}", bench.folder.display()));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{case}: {said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert_eq!(bench.incoming(), Vec::<String>::new(), "{case}");
    }
    assert_eq!((bench.held().as_str(), bench.database().generation()), (GOOD, 1));
    bench.world.lock().go(101, "2024-06-01T00:00:00Z", "1.0.0");
    assert_eq!(told(&bench.update()), ["osv:go: changes 1"]);
}

fn full_disk(inner: &str) {
    let (case, folder) = inner.split_once('=').unwrap();
    let bench = Bench::in_folder(folder.into());
    match case {
        "fetch" => {
            bench.world.lock().put("debian/data.json", vec![b' '; 4 << 20]);
            let report = told(&bench.update());
            assert!(report.len() == 1 && report[0].contains("it can't be kept"), "{report:?}");
        }
        _ => {
            bench.world.lock().go(101, "2024-06-01T00:00:00Z", "1.0.0");
            let error = format!("{:#}", bench.try_update(false).unwrap_err());
            assert!(error.contains("the new advisories can't be compiled"), "{error}");
        }
    }
    let _shared: Arc<_> = bench.database();
}
