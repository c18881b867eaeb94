//! `kuboard scan` and `kuboard sbom` as a user runs them: every form in which an image can be given
//! tells the same, real images tell what their makers put in, and the exit code is never better
//! than what was read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::command::{Desk, Found, findings, found};
use e2e::packed::{self, FOUND, Row, advisories, application};
use e2e::programs::Programs;
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::image::Blob;
use kuboard_testkit::{Image, RegistryClient, rootfs};
use serde_json::{Value, json};

/// The application's image, packed in every form that is not a folder.
fn layout(desk: &Desk, name: &str, image: &Image) -> Result<String> {
    image.write_layout(&desk.at(name), "v1")?;
    Ok(desk.path(name))
}

/// Whatever holds the image, the findings are those of the table.
#[test]
fn every_source_tells_the_same() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let programs = Programs::new()?;
    let layers = application()?;
    let image = packed::image(1, &layers)?;
    let oci = layout(&desk, "layout", &image)?;
    let tagged = format!("oci:{oci}:v1");
    for (transport, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let to = format!("{transport}:{}:team/app:v1", desk.path(file));
        programs.skopeo(&["copy", "--quiet", &tagged, &to])?;
    }
    packed::unpack(&layers, &desk.at("root"))?;
    let compressed = format!("oci:{}:v1", desk.path("zstd"));
    let zstd = ["--dest-compress-format=zstd"];
    programs.skopeo(&[&["copy", "--quiet"][..], &zstd, &[&tagged, &compressed]].concat())?;
    let store = desk.at("containerd/io.containerd.content.v1.content/blobs");
    fs::create_dir_all(store.parent().context("no parent")?)?;
    fs::rename(copied(&desk, &image)?, &store)?;
    let registry = DistributionRegistry::start()?;
    RegistryClient::new(registry.address()).push("team/app", "v1", &image)?;
    let pushed = format!("{}/team/app", registry.address());
    let at = |prefix: &str, name: &str| format!("{prefix}{}", desk.path(name));
    for target in [
        oci.clone(),
        tagged,
        at("", "docker.tar"),
        at("docker-archive:", "docker.tar"),
        at("docker-archive:", "docker.tar") + ":team/app:v1",
        at("", "oci.tar"),
        at("oci-archive:", "oci.tar"),
        compressed,
        at("", "root"),
        at("dir:", "root"),
        format!("{pushed}:v1"),
        format!("{pushed}@{}", image.digest),
        format!(
            "containerd:{}@{}",
            desk.path("containerd/io.containerd.content.v1.content"),
            image.digest
        ),
    ] {
        // Once with an empty cache and once with what the first scan kept.
        for arguments in [&[target.as_str(), "--no-cache"][..], &[&target], &[&target]] {
            let report = desk.check(arguments, FOUND).with_context(|| target.clone())?;
            ensure!(report["outcome"] == "complete", "{target}: {}", report["outcome"]);
            let os = &report["distribution"];
            ensure!(os["id"] == "debian" && os["version_id"] == "12", "{target}: {os}");
        }
    }
    Ok(())
}

/// A copy of the image's blobs by digest.
fn copied(desk: &Desk, image: &Image) -> Result<std::path::PathBuf> {
    image.write_layout(&desk.at("blobs"), "v1")?;
    Ok(desk.at("blobs/blobs"))
}

/// What was written as a bill of materials is scanned with the same result as the image itself.
#[test]
fn a_bill_of_materials_tells_the_same() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let oci = layout(&desk, "layout", &packed::image(1, &application()?)?)?;
    for (format, mark) in [("cyclonedx", "CycloneDX"), ("spdx", "SPDX-2.3")] {
        let file = desk.path(format);
        let done = desk.run(&["sbom", &oci, "--format", format, "--quiet", "-o", &file])?;
        ensure!(done.code == Some(0) && done.stdout.is_empty(), "{format}: {done:?}");
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(mark), "{format}: {text}");
        for target in [file.clone(), format!("sbom:{file}")] {
            desk.check(&[&target], FOUND).with_context(|| format!("{format} {target}"))?;
        }
        // And the same document from the standard output.
        let done = desk.run(&["sbom", &oci, "--format", format, "--quiet"])?;
        ensure!(done.code == Some(0), "{done:?}");
        serde_json::from_str::<Value>(&done.stdout)?;
    }
    // A report is a bill of materials as well.
    for format in ["cyclonedx", "spdx"] {
        let file = desk.path("report");
        let done = desk.scan(&[&oci, "--format", format, "-o", &file])?;
        ensure!(done.code == Some(0), "{done:?}");
        desk.check(&[&format!("sbom:{file}")], FOUND).with_context(|| format.to_owned())?;
    }
    Ok(())
}

/// An index as BuildKit pushes it: the platform that was asked for, never the attestation.
#[test]
fn an_index_is_its_platform_and_no_attestation() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let registry = DistributionRegistry::start()?;
    let vulnerable = packed::image(1, &application()?)?;
    let sound = packed::image(2, &[packed::debian(&[("bash", "5.2.15-2", "bash")])])?;
    let index = packed::attested_index(&[("linux/amd64", &vulnerable), ("linux/s390x", &sound)])?;
    RegistryClient::new(registry.address()).push("team/app", "v1", &index)?;
    let name = format!("{}/team/app:v1", registry.address());
    let report = desk.check(&[&name, "--platform", "linux/amd64"], FOUND)?;
    ensure!(report["image"]["digest"] == vulnerable.digest.to_string(), "{}", report["image"]);
    let report = desk.check(&[&name, "--platform", "linux/s390x"], &[])?;
    ensure!(report["outcome"] == "complete", "{}", report["outcome"]);
    ensure!(report["image"]["digest"] == sound.digest.to_string(), "{}", report["image"]);
    let absent = desk.scan(&[&name, "--platform", "linux/arm64"])?;
    ensure!(absent.code == Some(1) && absent.stdout.is_empty(), "{absent:?}");
    // The attestation itself is no image: no report on it is a clean one.
    let attestation = &index.children[1].digest;
    let done = desk.scan(&[&format!("{}/team/app@{attestation}", registry.address())])?;
    ensure!(done.code == Some(1), "{done:?}");
    let layout = layout(&desk, "layout", &index)?;
    desk.check(&[&layout, "--platform", "linux/amd64"], FOUND)?;
    Ok(())
}

/// Images that real tools made, each with what must be found in it. The advisories name nothing
/// else that they hold.
const REAL: &[(&str, &[Row])] = &[
    (
        "alpine",
        &[
            ("CVE-2090-5001", "busybox", "1.35.0-r18", "UNKNOWN"),
            ("CVE-2090-5001", "ssl_client", "1.35.0-r18", "UNKNOWN"),
        ],
    ),
    (
        "alpine-usr",
        &[
            ("CVE-2090-5001", "busybox", "1.35.0-r18", "UNKNOWN"),
            ("CVE-2090-5001", "ssl_client", "1.35.0-r18", "UNKNOWN"),
        ],
    ),
    ("distroless", &[("CVE-2090-1002", "zlib1g", "", "LOW"), TZDATA]),
    ("almalinux-sqlite", &[APR]),
    ("almalinux-bdb", &[APR]),
    (
        "go-app",
        &[
            ("CVE-2090-1002", "zlib1g", "", "LOW"),
            TZDATA,
            ("CVE-2090-3001", "golang.org/x/net", "0.7.0", "UNKNOWN"),
        ],
    ),
    (
        "rust-app",
        &[
            ("CVE-2090-1002", "zlib1g", "", "LOW"),
            TZDATA,
            ("CVE-2090-3002", "regex", "1.5.5", "HIGH"),
        ],
    ),
    (
        "node-app",
        &[
            ("CVE-2090-2002", "lodash", "4.17.21", "HIGH"),
            ("CVE-2090-2032", "minimist", "1.2.6", "CRITICAL"),
            ("CVE-2090-5001", "busybox", "1.35.0-r18", "UNKNOWN"),
            ("CVE-2090-5001", "ssl_client", "1.35.0-r18", "UNKNOWN"),
        ],
    ),
    (
        "java-app",
        &[("CVE-2090-2003", "org.apache.logging.log4j:log4j-core", "2.15.0", "CRITICAL"), APR],
    ),
];

const TZDATA: Row = ("CVE-2090-1005", "tzdata", "2099a-0", "MEDIUM");
const APR: Row = ("CVE-2090-4001", "apr-util-openssl", "0:1.6.1-99.el9", "HIGH");

/// The same findings may stand in several files of an image (a program and its stripped twin).
fn distinct(report: &Value) -> Result<Found> {
    let mut report = report.clone();
    let list = report["findings"].as_array_mut().context("no findings")?;
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|one| seen.insert(format!("{} {}", one["id"], one["package"]["name"])));
    findings(&report)
}

#[test]
fn real_images_tell_what_is_in_them() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let mut wrong = Vec::new();
    for (name, table) in REAL {
        let image = rootfs::image(name)?;
        for target in [image.layout(), image.docker_archive()?] {
            let target = target.display().to_string();
            let report = desk.report(&[&target])?;
            let (seen, wanted) = (distinct(&report)?, found(table));
            if seen != wanted || report["outcome"] != "complete" {
                wrong.push(format!("{name}: {}: {seen:#?} not {wanted:#?}", report["outcome"]));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// 0: all is well, or nothing was asked. 3: the threshold is reached. 1: it could not be told.
#[test]
fn exit_codes_are_never_better_than_what_was_read() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let app = layout(&desk, "app", &packed::image(1, &application()?)?)?;
    let bash = packed::debian(&[("bash", "5.2.15-2", "bash")]);
    let clean = layout(&desk, "clean", &packed::image(2, std::slice::from_ref(&bash))?)?;
    let none = layout(&desk, "none", &packed::image(3, &[vec![packed::file("x", "y")]])?)?;
    let exotic = packed::file("etc/os-release", "ID=exotic\nVERSION_ID=1\n");
    let exotic = vec![exotic, bash[1].clone()];
    let exotic = layout(&desk, "exotic", &packed::image(4, &[exotic])?)?;
    // A package database that can't be read, and beside it a package that can.
    let mut broken = packed::node_module("lodash", "4.17.15");
    broken.push(packed::file("etc/os-release", "ID=almalinux\nVERSION_ID=9.4\n"));
    broken.push(packed::file("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\0 and no more"));
    let partial = layout(&desk, "partial", &packed::image(5, &[broken])?)?;
    let whole = packed::layer(&application()?[0])?;
    let half = Blob::new(whole[..whole.len() / 2].to_vec());
    let cut = layout(&desk, "cut", &packed::of_blobs(6, vec![half])?)?;
    let image = packed::image(1, &application()?)?;
    image.write_docker_archive(&desk.at("whole.tar"), "team/app:v1")?;
    let bytes = fs::read(desk.at("whole.tar"))?;
    fs::write(desk.at("half.tar"), &bytes[..bytes.len() / 2])?;
    fs::write(desk.at("noise.tar"), &Blob::random(1, 100_000).bytes)?;
    fs::write(desk.at("sbom.json"), r#"{"bomFormat": "CycloneDX", "specVer"#)?;
    let (half, noise) = (desk.path("half.tar"), desk.path("noise.tar"));
    let (sbom, absent) = (desk.path("sbom.json"), desk.path("absent.tar"));
    let cases: &[(&str, &[&str], i32)] = &[
        ("findings without a threshold", &[&app], 0),
        ("a threshold that is reached", &[&app, "--severity-threshold", "CRITICAL"], 3),
        ("the same in small letters", &[&app, "--severity-threshold", "high"], 3),
        ("a clean image", &[&clean], 0),
        ("a clean image with a threshold", &[&clean, "--severity-threshold", "LOW"], 0),
        ("no package at all", &[&none], 1),
        ("no package at all with a threshold", &[&none, "--severity-threshold", "LOW"], 1),
        ("an unknown distribution", &[&exotic, "--severity-threshold", "LOW"], 1),
        ("partly read, reached", &[&partial, "--severity-threshold", "HIGH"], 3),
        ("partly read, not reached", &[&partial, "--severity-threshold", "CRITICAL"], 1),
        ("a layer cut off", &[&cut, "--severity-threshold", "CRITICAL"], 1),
        ("an archive cut off", &[&half], 1),
        ("an archive cut off with a threshold", &[&half, "--severity-threshold", "LOW"], 1),
        ("noise", &[&noise], 1),
        ("a broken bill of materials", &[&sbom], 1),
        ("a file that is not there", &[&absent], 1),
        ("a tag that is not there", &[&format!("oci:{app}:v2")], 1),
        ("a registry that is not there", &["127.0.0.1:1/team/app:v1"], 1),
        ("no such format", &[&app, "--format", "nonsense"], 1),
        ("no such severity", &[&app, "--severity-threshold", "nonsense"], 1),
        ("no such switch", &[&app, "--nonsense"], 2),
    ];
    let mut wrong = Vec::new();
    for (what, arguments, code) in cases {
        for cache in [&[][..], &["--no-cache"]] {
            let done = desk.scan(&[arguments, cache].concat())?;
            if done.code != Some(*code) {
                wrong.push(format!("{what}: {:?} not {code}: {done:?}", done.code));
            }
            if *code == 1 && done.stderr.is_empty() {
                wrong.push(format!("{what}: fails without a reason"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let report = desk.report(&[&partial])?;
    ensure!(report["outcome"] == "partial", "{}", report["outcome"]);
    let without = Desk::empty()?;
    let done = without.scan(&[&clean])?;
    ensure!(done.code == Some(1) && done.stdout.is_empty(), "no database: {done:?}");
    ensure!(done.stderr.contains("hint: `kuboard db update`"), "no database: {done:?}");
    Ok(())
}

/// Every form says the finding, is what it claims to be, and can be written to a file.
#[test]
fn every_format_is_well_formed() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let app = layout(&desk, "app", &packed::image(1, &application()?)?)?;
    let written = |format: &str| -> Result<String> {
        let done = desk.scan(&[&app, "--format", format])?;
        ensure!(done.code == Some(0) && !done.stdout.is_empty(), "{format}: {done:?}");
        let file = desk.path("written");
        let to_file = desk.scan(&[&app, "--format", format, "-o", &file])?;
        ensure!(to_file.code == Some(0) && to_file.stdout.is_empty(), "{format}: {to_file:?}");
        ensure!(!fs::read(&file)?.is_empty(), "{format}: an empty file");
        for (id, package, ..) in FOUND {
            let said = [*id, *package].iter().all(|word| done.stdout.contains(word));
            // Maven's names are two words in most forms.
            let artifact = package.rsplit(':').next().unwrap_or_default();
            ensure!(
                said || (done.stdout.contains(id) && done.stdout.contains(artifact))
                    || done.stdout.to_lowercase().contains(&package.to_lowercase()),
                "{format} does not say {id} of {package}: {}",
                done.stdout
            );
        }
        Ok(done.stdout)
    };
    let json = |format: &str| -> Result<Value> {
        serde_json::from_str(&written(format)?).with_context(|| format.to_owned())
    };
    let count = FOUND.len();
    let table = written("table")?;
    ensure!(!table.contains('\u{1b}'), "colours without a terminal: {table}");
    ensure!(json("json")?["findings"].as_array().map(Vec::len) == Some(count));
    let sarif = json("sarif")?;
    ensure!(sarif["version"] == "2.1.0", "{sarif}");
    ensure!(sarif["runs"][0]["results"].as_array().map(Vec::len) == Some(count), "{sarif:#}");
    let cyclonedx = json("cyclonedx")?;
    ensure!(cyclonedx["specVersion"] == "1.6", "{cyclonedx}");
    let vulnerabilities = cyclonedx["vulnerabilities"].as_array().context("none")?;
    let ids: std::collections::BTreeSet<_> =
        vulnerabilities.iter().filter_map(|one| one["id"].as_str()).collect();
    ensure!(ids == FOUND.iter().map(|(id, ..)| *id).collect(), "{ids:?}");
    ensure!(json("spdx")?["spdxVersion"] == "SPDX-2.3");
    let clair = json("clair")?;
    for part in ["packages", "distributions", "environments", "vulnerabilities"] {
        ensure!(clair[part].as_object().is_some_and(|it| !it.is_empty()), "{part}: {clair:#}");
    }
    let pairs: usize = clair["package_vulnerabilities"]
        .as_object()
        .context("no package_vulnerabilities")?
        .values()
        .map(|ids| ids.as_array().map_or(0, Vec::len))
        .sum();
    ensure!(pairs == count, "{pairs} pairs: {clair:#}");
    let harbor = json("harbor")?;
    ensure!(harbor["vulnerabilities"].as_array().map(Vec::len) == Some(count), "{harbor:#}");
    ensure!(harbor["severity"] == "Critical", "{harbor:#}");
    well_formed_xml(&desk, &written("junit")?, count)?;
    for language in ["en", "zh"] {
        let done = desk.scan(&[&app, "--format", "html", "--lang", language])?;
        ensure!(done.code == Some(0), "{done:?}");
        self_contained(&done.stdout)?;
    }
    written("html").map(drop)
}

/// Another program reads it, and finds a failure for each finding.
fn well_formed_xml(desk: &Desk, text: &str, count: usize) -> Result<()> {
    const READ: &str = "import sys, xml.etree.ElementTree as tree\n\
        root = tree.parse(sys.argv[1]).getroot()\n\
        print(root.tag, len(list(root.iter('failure'))))";
    fs::write(desk.at("junit.xml"), text)?;
    let mut read = kuboard_testkit::tool::command("python3")?;
    let said = kuboard_testkit::tool::output(read.args(["-c", READ]).arg(desk.at("junit.xml")))?;
    ensure!(said.trim() == format!("testsuites {count}"), "{said}: {text}");
    Ok(())
}

/// A page that loads nothing: links may lead away, but nothing is fetched to show it.
fn self_contained(page: &str) -> Result<()> {
    ensure!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<!doctype html>"), "{page}");
    let lower = page.to_lowercase();
    for load in ["src=\"http", "src='http", "src=http", "src=\"//", "url(http", "@import", "<link"]
    {
        ensure!(!lower.contains(load), "the page loads something: {load}");
    }
    ensure!(lower.contains("<svg"), "no chart");
    Ok(())
}

/// What users know better is taken out, with the reason beside it, and only as long as it holds.
#[test]
fn rules_and_statements_take_findings_away() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let image = packed::image(1, &application()?)?;
    let app = layout(&desk, "app", &image)?;
    let without = |ids: &[&str]| -> Vec<Row> {
        FOUND.iter().filter(|(id, ..)| !ids.contains(id)).copied().collect()
    };
    let write = |name: &str, text: &str| -> Result<String> {
        fs::write(desk.at(name), text)?;
        Ok(desk.path(name))
    };
    let toml = write(
        "ignore.toml",
        "[[ignore]]\nid = \"cve-2090-2002\"\nreason = \"not reached\"\n\
         [[ignore]]\npackage = \"openssl\"\nreason = \"by another\"\nexpires = \"2100-01-01\"\n\
         [[ignore]]\nid = \"CVE-2090-2003\"\nreason = \"it was so\"\nexpires = \"2020-12-31\"\n",
    )?;
    let yaml = write(
        "ignore.yaml",
        "ignore:\n- id: GHSA-made-java-*\n  reason: by its alias\n- namespaces: [pypi]\n  \
         reason: a whole language\n",
    )?;
    let vex = json!({
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.com/vex",
        "author": "the makers",
        "timestamp": "2026-01-01T00:00:00Z",
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": "CVE-2090-2002"},
                "products": [{"@id": "pkg:npm/lodash@4.17.15"}],
                "status": "not_affected",
                "justification": "vulnerable_code_not_in_execute_path",
            },
            {
                "vulnerability": {"name": "CVE-2090-2003"},
                "products": [{"@id": "pkg:npm/other@1.0.0"}],
                "status": "not_affected",
                "justification": "component_not_present",
            },
        ],
    });
    let vex = write("vex.json", &vex.to_string())?;
    let threshold = ["--severity-threshold", "CRITICAL"];
    let report =
        desk.check(&[&app, "--ignore-file", &toml], &without(&["CVE-2090-2002", "CVE-2090-1001"]))?;
    let suppressed = report["suppressed"].as_array().context("nothing suppressed")?;
    let told = |reason: &str| suppressed.iter().any(|one| one.to_string().contains(reason));
    ensure!(told("not reached") && told("by another") && !told("it was so"), "{suppressed:#?}");
    let rest = without(&["CVE-2090-2003", "CVE-2090-2001"]);
    desk.check(&[&app, "--ignore-file", &yaml], &rest)?;
    let report = desk.check(&[&app, "--vex", &vex], &without(&["CVE-2090-2002"]))?;
    ensure!(report["suppressed"].to_string().contains("the makers"), "{}", report["suppressed"]);
    desk.check(&[&app, "--ignore-unfixed"], &without(&["CVE-2090-1002"]))?;
    let both = [&app, "--vex", &vex, "--ignore-file", &yaml, "--ignore-unfixed"];
    desk.check(&both, &found_only(&["CVE-2090-1001"]))?;
    let done = desk.scan(&[&both[..], &threshold].concat())?;
    ensure!(done.code == Some(0), "{done:?}");
    let done = desk.scan(&[&[app.as_str(), "--ignore-file", &toml][..], &threshold].concat())?;
    ensure!(done.code == Some(3), "a rule that is over still holds: {done:?}");
    for (name, text) in [
        ("no reason", "[[ignore]]\nid = \"CVE-1\"\n"),
        ("no condition", "[[ignore]]\nreason = \"all\"\n"),
        ("unknown key", "[[ignore]]\nid = \"CVE-1\"\nreason = \"x\"\nuntil = \"2026\"\n"),
        ("no time", "[[ignore]]\nid = \"CVE-1\"\nreason = \"x\"\nexpires = \"soon\"\n"),
    ] {
        let file = write("bad.toml", text)?;
        let done = desk.scan(&[&app, "--ignore-file", &file])?;
        ensure!(done.code == Some(1) && done.stdout.is_empty(), "{name}: {done:?}");
    }
    let file = write("bad.json", "{}")?;
    let done = desk.scan(&[&app, "--vex", &file])?;
    ensure!(done.code == Some(1) && done.stdout.is_empty(), "{done:?}");
    Ok(())
}

fn found_only(ids: &[&str]) -> Vec<Row> {
    FOUND.iter().filter(|(id, ..)| ids.contains(id)).copied().collect()
}

/// Layers that were read once are not asked for again, neither by the same image nor by another
/// that shares them.
#[test]
fn layers_are_read_once() -> Result<()> {
    let desk = Desk::with(&advisories())?;
    let registry = DistributionRegistry::start()?;
    let client = RegistryClient::new(registry.address());
    let mut layers = application()?;
    client.push("team/app", "v1", &packed::image(1, &layers)?)?;
    layers.push(packed::node_module("lodash", "4.17.15"));
    let second = packed::image(2, &layers)?;
    client.push("team/app", "v2", &second)?;
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.address());
    desk.check(&[&name("v1")], FOUND)?;
    let before = registry.bytes("/blobs/");
    desk.check(&[&name("v1")], FOUND)?;
    let config = |image: &Image| image.blobs[0].bytes.len() as u64;
    let again = registry.bytes("/blobs/") - before;
    ensure!(again <= config(&second) + 100, "{again} bytes were read again");
    let before = registry.bytes("/blobs/");
    desk.check(&[&name("v2")], FOUND)?;
    let new = second.layers()[3].bytes.len() as u64 + config(&second);
    ensure!(registry.bytes("/blobs/") - before == new, "shared layers were read again");
    let kept = |folder: &Path| fs::read_dir(folder).map(Iterator::count).unwrap_or(0);
    ensure!(kept(&desk.at("cache/kuboard")) > 0, "nothing is kept where it should be");
    Ok(())
}
