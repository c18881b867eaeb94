//! `kuboard db` as a user runs it: made of a mirror, looked into, moved to machines without a
//! network, and never replaced by something worse, whatever the mirror does.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::command::{Desk, finish};
use e2e::packed::{self, FOUND, Row, advisories, application};
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::feeds::{Feeds, Mirror, Osv, Score, Trouble};
use kuboard_testkit::tool;
use serde_json::Value;

fn generation(desk: &Desk) -> Result<u64> {
    let status = desk.db_json(&["status"])?;
    status["database"]["generation"].as_u64().with_context(|| format!("no generation: {status:#}"))
}

#[test]
fn it_is_made_and_looked_into() -> Result<()> {
    let desk = Desk::empty()?;
    let status = desk.db_json(&["status"])?;
    ensure!(status["database"].is_null(), "{status:#}");
    let done = desk.db(&["lookup", "CVE-2090-1001"])?;
    ensure!(done.code == Some(1) && done.stderr.contains("hint:"), "{done:?}");
    desk.update(&advisories())?;
    let status = desk.db_json(&["status"])?;
    let database = &status["database"];
    ensure!(database["advisories"].as_u64() >= Some(15), "{status:#}");
    let spaces = database["namespaces"].to_string();
    for space in ["debian:12", "alpine:3.16", "alma:9", "npm", "pypi", "go", "cargo", "maven"] {
        ensure!(spaces.contains(&format!("\"{space}\"")), "{space} is not in {spaces}");
    }
    for (id, says) in [
        ("CVE-2090-1001", &["openssl", "3.0.10-1", "debian:12"][..]),
        ("CVE-2090-2002", &["lodash", "GHSA-made-node-0001", "4.17.21"]),
        ("GHSA-made-node-0001", &["lodash"]),
        ("RUSTSEC-2090-0001", &["regex", "1.5.5"]),
        ("CVE-2090-5001", &["busybox", "1.35.0-r18"]),
    ] {
        for json in [&[][..], &["-o", "json"]] {
            let done = desk.db(&[&["lookup", id], json].concat())?;
            ensure!(done.code == Some(0), "{id}: {done:?}");
            for word in says {
                ensure!(done.stdout.contains(word), "{id} does not say {word}: {done:?}");
            }
        }
    }
    let done = desk.db(&["lookup", "CVE-2090-9999"])?;
    ensure!(done.code == Some(1), "{done:?}");
    // The same again changes nothing.
    let before = generation(&desk)?;
    desk.update(&advisories())?;
    ensure!(generation(&desk)? == before, "the same feeds made another generation");
    let done = desk.db(&["status"])?;
    ensure!(done.code == Some(0) && done.stdout.contains("osv:npm"), "{done:?}");
    Ok(())
}

/// What the advisories of [`late`] add to the findings.
const LATE: Row = ("GHSA-made-late-0001", "lodash", "9.0.0", "UNKNOWN");

fn late() -> Feeds {
    let mut feeds = advisories();
    feeds.osv(Osv::new("npm", LATE.0, LATE.1).fixed(LATE.2).modified(60));
    feeds
}

#[test]
fn it_moves_as_a_file() -> Result<()> {
    let (desk, other) = (Desk::with(&advisories())?, Desk::empty()?);
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    let app = desk.path("app");
    let (old, file) = (desk.path("old.bundle"), desk.path("new.bundle"));
    ensure!(desk.db(&["export", &old])?.code == Some(0));
    desk.update(&late())?;
    ensure!(desk.db(&["export", &file])?.code == Some(0));
    let done = other.db(&["import", &file])?;
    ensure!(done.code == Some(0), "{done:?}");
    let checksum = |desk: &Desk| -> Result<Value> {
        Ok(desk.db_json(&["status"])?["database"]["checksum"].clone())
    };
    ensure!(checksum(&other)? == checksum(&desk)?, "another database came out");
    other.check(&[&app], &[FOUND, &[LATE]].concat())?;
    // An older one does not replace it unawares.
    let done = other.db(&["import", &old])?;
    ensure!(done.code == Some(1) && done.stderr.contains("hint:"), "older: {done:?}");
    other.check(&[&app], &[FOUND, &[LATE]].concat())?;
    // Nor does something broken, even by force.
    let bytes = fs::read(&file)?;
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let broken: [(&str, &[u8]); 4] =
        [("empty", &[]), ("cut off", &bytes[..middle]), ("flipped", &flipped), ("noise", b"noise")];
    for (what, bytes) in broken {
        let bad = other.path("bad.bundle");
        fs::write(&bad, bytes)?;
        for force in [&[][..], &["--force"]] {
            let done = other.db(&[&["import", &bad], force].concat())?;
            ensure!(done.code == Some(1) && !done.stderr.is_empty(), "{what}: {done:?}");
        }
        other.check(&[&app], &[FOUND, &[LATE]].concat()).context(what)?;
    }
    let done = other.db(&["import", &old, "--force"])?;
    ensure!(done.code == Some(0), "{done:?}");
    other.check(&[&app], FOUND)?;
    Ok(())
}

#[test]
fn it_moves_through_a_registry_signed() -> Result<()> {
    let (desk, other) = (Desk::with(&advisories())?, Desk::empty()?);
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    let registry = DistributionRegistry::start()?;
    let keys = |name: &str| -> Result<(String, String)> {
        let (secret, public) =
            (desk.path(&format!("{name}.pem")), desk.path(&format!("{name}.pub")));
        let mut make = tool::command("openssl")?;
        tool::output(make.args(["genpkey", "-algorithm", "ed25519", "-out", &secret]))?;
        let mut show = tool::command("openssl")?;
        tool::output(show.args(["pkey", "-in", &secret, "-pubout", "-out", &public]))?;
        Ok((secret, public))
    };
    let ((secret, public), (_, stranger)) = (keys("one")?, keys("two")?);
    let name = |tag: &str| format!("{}/kuboard/advisories:{tag}", registry.address());
    let done = desk.db(&["push", &name("signed"), "--key", &secret])?;
    ensure!(done.code == Some(0) && done.stdout.starts_with("sha256:"), "{done:?}");
    // Another one, since a signature is of the content and not of the tag.
    let unsigned = Desk::with(&late())?;
    let done = unsigned.db(&["push", &name("plain")])?;
    ensure!(done.code == Some(0), "{done:?}");
    for (tag, key) in [("signed", &stranger), ("plain", &public), ("absent", &public)] {
        let done = other.db(&["pull", &name(tag), "--key", key])?;
        ensure!(done.code == Some(1) && !done.stderr.is_empty(), "{tag}: {done:?}");
        ensure!(other.db_json(&["status"])?["database"].is_null(), "{tag} was taken");
    }
    let done = other.db(&["pull", &name("signed"), "--key", &public])?;
    ensure!(done.code == Some(0), "{done:?}");
    other.check(&[&desk.path("app")], FOUND)?;
    let third = Desk::empty()?;
    ensure!(third.db(&["pull", &name("plain")])?.code == Some(0));
    third.check(&[&desk.path("app")], &[FOUND, &[LATE]].concat())?;
    Ok(())
}

/// Anybody can hold the orders against the native tools.
#[test]
fn versions_are_compared_line_by_line() -> Result<()> {
    let desk = Desk::empty()?;
    type Lines = &'static [(&'static str, &'static str, &'static str)];
    let lines: &[(&str, Lines)] = &[
        ("dpkg", &[("1.0~rc1", "1.0", "-1"), ("1:0", "2", "1"), ("1.0-1", "1.0-1", "0")]),
        ("rpm", &[("1.0~rc1", "1.0", "-1"), ("1:1-1", "2-1", "1"), ("1.0^a", "1.0", "1")]),
        ("apk", &[("1.0_rc1", "1.0", "-1"), ("1.0-r1", "1.0-r0", "1")]),
        ("pep440", &[("1.0rc1", "1.0", "-1"), ("1!0", "2", "1"), ("1.0", "1.0.0", "0")]),
        ("npm", &[("1.0.0-rc.1", "1.0.0", "-1"), ("1.0.0+a", "1.0.0+b", "0")]),
        ("semver", &[("1.0.0-alpha", "1.0.0-alpha.1", "-1"), ("no", "1.0.0", "error")]),
        ("go", &[("v1.2.3", "v1.2.10", "-1"), ("v2.0.0+incompatible", "v1.9.0", "1")]),
        ("maven", &[("1.0-SNAPSHOT", "1.0", "-1"), ("1.0.0", "1", "0")]),
        ("gem", &[("1.0.a", "1.0", "-1"), ("1.10", "1.9", "1")]),
        ("nuget", &[("1.0.0-beta", "1.0.0", "-1"), ("1.0", "1.0.0.0", "0")]),
        ("composer", &[("1.0-beta1", "1.0", "-1"), ("1.0.0", "v1.0.0", "0")]),
    ];
    for (scheme, pairs) in lines {
        let mut command = desk.command(&["db", "compare", scheme])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asked: String = pairs.iter().map(|(a, b, _)| format!("{a}\t{b}\n")).collect();
        child.stdin.take().context("no input")?.write_all(asked.as_bytes())?;
        let done = child.wait_with_output()?;
        let answers = String::from_utf8(done.stdout)?;
        let wanted: Vec<&str> = pairs.iter().map(|(.., answer)| *answer).collect();
        ensure!(done.status.success(), "{scheme}: {}", done.status);
        ensure!(answers.lines().collect::<Vec<_>>() == wanted, "{scheme}: {answers}");
    }
    let done = desk.run(&["db", "compare", "nonsense"])?;
    ensure!(done.code == Some(1) && done.stderr.contains("dpkg"), "{done:?}");
    Ok(())
}

/// What a feed did, how the update ends, and whether the late advisory is known afterwards.
struct Case {
    what: &'static str,
    end: &'static str,
    trouble: Trouble,
    times: Option<u32>,
    code: i32,
    known: bool,
}

/// One update with a mirror in trouble: at worst the last good advisories stay.
#[test]
fn a_mirror_in_trouble_leaves_the_last_good_one() -> Result<()> {
    let page = b"<html><body>We will be back soon</body></html>".to_vec();
    let case =
        |what, end, trouble, times, code, known| Case { what, end, trouble, times, code, known };
    let cases = [
        case("healthy", "nothing", Trouble::Cut, None, 0, true),
        case("throttled for a moment", ".csv", Trouble::Throttle(1), Some(1), 0, true),
        case("throttled for long", ".csv", Trouble::Throttle(3600), None, 1, false),
        case("refused", ".csv", Trouble::Status(403), None, 1, false),
        case("a list cut off once", ".csv", Trouble::Cut, Some(1), 0, true),
        case("a document cut off always", "late-0001.json", Trouble::Cut, None, 1, false),
        case("a page instead of the list", ".csv", Trouble::Instead(page.clone()), None, 1, false),
        case(
            "a page instead of a document",
            "late-0001.json",
            Trouble::Instead(page),
            None,
            1,
            false,
        ),
        case("an empty list", ".csv", Trouble::Instead(Vec::new()), None, 1, false),
    ];
    let mut more = advisories();
    let late = Osv::new("npm", "GHSA-made-late-0001", "lodash").alias("CVE-2090-2099");
    more.osv(late.fixed("9.0.0").score(Score::Low).modified(60));
    let found = ("CVE-2090-2099", "lodash", "9.0.0", "LOW");
    let mut wrong = Vec::new();
    for Case { what, end, trouble, times, code, known } in cases {
        let (desk, mirror) = begun()?;
        mirror.put(&more)?;
        mirror.trouble(end, trouble, times);
        let done = update(&desk, &mirror, &[])?;
        if done.0 != Some(code) {
            wrong.push(format!("{what}: ends with {:?}, not {code}: {}", done.0, done.1));
        }
        let table = if known { [FOUND, &[found]].concat() } else { FOUND.to_vec() };
        if let Err(error) = desk.check(&[&desk.path("app")], &table) {
            wrong.push(format!("{what}: {error:#}"));
        }
        // And once the trouble is over, nothing of it is left.
        mirror.heal();
        let done = update(&desk, &mirror, &[])?;
        if done.0 != Some(0) {
            wrong.push(format!("{what}, then healthy: {}", done.1));
        }
        if let Err(error) = desk.check(&[&desk.path("app")], &[FOUND, &[found]].concat()) {
            wrong.push(format!("{what}, then healthy: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A desk whose database was made of a mirror, and an image to scan.
fn begun() -> Result<(Desk, Mirror)> {
    let (desk, mirror) = (Desk::empty()?, Mirror::start(&advisories())?);
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    let done = update(&desk, &mirror, &[])?;
    ensure!(done.0 == Some(0), "{}", done.1);
    Ok((desk, mirror))
}

fn update(desk: &Desk, mirror: &Mirror, more: &[&str]) -> Result<(Option<i32>, String)> {
    let url = mirror.url();
    let names = advisories().names();
    let feeds: Vec<&str> = names.iter().flat_map(|name| ["--feed", name]).collect();
    let done = desk.db(&[&["update", "--mirror", &url][..], &feeds, more].concat())?;
    Ok((done.code, format!("{}{}", done.stdout, done.stderr)))
}

/// After the first time only what changed is fetched.
#[test]
fn updates_fetch_what_changed() -> Result<()> {
    let (desk, mirror) = begun()?;
    mirror.requests();
    let before = generation(&desk)?;
    ensure!(update(&desk, &mirror, &[])?.0 == Some(0));
    let fetched: Vec<String> = mirror
        .requests()
        .into_iter()
        .filter(|(path, status)| *status == 200 && !path.ends_with("modified_id.csv"))
        .map(|(path, _)| path)
        .collect();
    ensure!(fetched.is_empty(), "nothing changed, and it fetched {fetched:?}");
    ensure!(generation(&desk)? == before, "nothing changed, and there is a new generation");
    let mut more = advisories();
    more.osv(Osv::new("npm", "GHSA-made-late-0001", "lodash").modified(60));
    mirror.put(&more)?;
    ensure!(update(&desk, &mirror, &[])?.0 == Some(0));
    let fetched: Vec<String> = mirror.requests().into_iter().map(|(path, _)| path).collect();
    ensure!(fetched.iter().any(|path| path == "osv/npm/GHSA-made-late-0001.json"), "{fetched:?}");
    ensure!(!fetched.iter().any(|path| path.ends_with("all.zip")), "{fetched:?}");
    ensure!(generation(&desk)? == before + 1, "no new generation");
    ensure!(desk.db(&["lookup", "GHSA-made-late-0001"])?.code == Some(0));
    // Taken back by its author: the finding goes.
    more.osv(Osv::new("npm", "GHSA-made-late-0001", "lodash").withdrawn().modified(120));
    mirror.put(&more)?;
    ensure!(update(&desk, &mirror, &[])?.0 == Some(0));
    desk.check(&[&desk.path("app")], FOUND)?;
    Ok(())
}

/// A mirror that went back in time, or lost most of its content, is not believed unless told so.
#[test]
fn a_mirror_that_lost_its_memory_is_not_believed() -> Result<()> {
    let many = |count: u32, from: u32| {
        let mut feeds = advisories();
        for number in 0..count {
            let id = format!("GHSA-many-{number:04}");
            feeds.osv(Osv::new("npm", &id, "other").modified(from + number));
        }
        feeds.osv(Osv::new("npm", "GHSA-made-last-0001", "lodash").modified(from + count));
        feeds
    };
    let last = ("GHSA-made-last-0001", "lodash", "", "UNKNOWN");
    let desk = Desk::empty()?;
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    let mirror = Mirror::start(&many(200, 5 * 86_400))?;
    ensure!(update(&desk, &mirror, &[])?.0 == Some(0));
    let whole = [FOUND, &[last]].concat();
    desk.check(&[&desk.path("app")], &whole)?;
    // As it was at the beginning of time.
    mirror.put(&advisories())?;
    let done = update(&desk, &mirror, &[])?;
    ensure!(done.0 == Some(1), "rolled back: {}", done.1);
    desk.check(&[&desk.path("app")], &whole).context("rolled back")?;
    let done = update(&desk, &mirror, &["--full"])?;
    ensure!(done.0 == Some(0), "by order: {}", done.1);
    desk.check(&[&desk.path("app")], FOUND).context("by order")?;
    Ok(())
}

/// A feed that fails does not hold up the others.
#[test]
fn feeds_stand_alone() -> Result<()> {
    let (desk, mirror) = begun()?;
    let mut more: Feeds = advisories();
    more.osv(Osv::new("npm", "GHSA-made-late-0001", "lodash").fixed("9.0.0").modified(60));
    more.osv(Osv::new("PyPI", "GHSA-made-late-0002", "django").fixed("9.0.0").modified(60));
    mirror.put(&more)?;
    mirror.trouble("osv/PyPI/modified_id.csv", Trouble::Status(403), None);
    let done = update(&desk, &mirror, &["-o", "json"])?;
    ensure!(done.0 == Some(1), "{}", done.1);
    let late = ("GHSA-made-late-0001", "lodash", "9.0.0", "UNKNOWN");
    desk.check(&[&desk.path("app")], &[FOUND, &[late]].concat())?;
    let status = desk.db_json(&["status"])?;
    let error = |feed: &str| status["feeds"][feed]["error"].as_str().unwrap_or("?").to_owned();
    ensure!(!error("osv:pypi").is_empty() && error("osv:npm").is_empty(), "{status:#}");
    Ok(())
}

/// Scans and updates at one time: every scan sees a whole database, every update comes through.
#[test]
fn scans_and_updates_do_not_disturb_each_other() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    let app = desk.path("app");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let scans = scope.spawn(|| -> Result<u32> {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) || count == 0 {
                let report = desk.report(&[&app])?;
                let seen = report["findings"].as_array().map_or(0, Vec::len);
                ensure!(seen >= FOUND.len(), "a scan saw {seen} findings");
                count += 1;
            }
            Ok(count)
        });
        let updated = (1..=20).try_for_each(|number| {
            let mut more = advisories();
            more.osv(Osv::new("npm", "GHSA-made-late-0001", "lodash").modified(number * 60));
            desk.update(&more)
        });
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let scanned = scans.join().ok().context("a scan panicked")?;
        updated.and(scanned.map(drop))
    })?;
    let late = ("GHSA-made-late-0001", "lodash", "", "UNKNOWN");
    desk.check(&[&app], &[FOUND, &[late]].concat())?;
    Ok(())
}

/// The database's own failures are said with what to do.
#[test]
fn a_damaged_database_is_said_and_replaced() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    packed::image(1, &application()?)?.write_layout(&desk.at("app"), "v1")?;
    for entry in fs::read_dir(desk.database())? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "kbdb") {
            let mut bytes = fs::read(&path)?;
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0xff);
            fs::remove_file(&path)?;
            fs::write(&path, bytes)?;
        }
    }
    let done = desk.scan(&[&desk.path("app")])?;
    ensure!(done.code == Some(1) && done.stdout.is_empty(), "{done:?}");
    let mut update = desk.command(&["db", "update"])?;
    update.args(["--db-dir", &desk.path("advisories")]);
    update.arg("--mirror").arg(format!("file://{}", desk.path("mirror")));
    update.args(advisories().names().iter().flat_map(|name| ["--feed", name]));
    let done = finish(&mut update)?;
    ensure!(done.code == Some(0), "{done:?}");
    desk.check(&[&desk.path("app")], FOUND)?;
    Ok(())
}
