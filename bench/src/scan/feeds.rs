//! The advisories for everybody, as osv.dev publishes them, `ECOSYSTEM/all.zip`: recorded feeds
//! (`KUBOARD_FEEDS`), or without them the few in `bench/feeds`. Made once and kept with the other
//! fixtures.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::{rootfs, tool};
use serde_json::{Value, json};

use crate::machine;

/// Change it when the conversion changes.
const RECIPE: &str = "osv-feeds-1";
/// The same of the few advisories in `bench/feeds`.
const FEW: &str = "osv-few-1";
/// Ecosystems that scanners want a file for, and of which there is nothing in `bench/feeds`.
const LACKING: &[(&str, &str)] = &[("AlmaLinux", "AlmaLinux:8"), ("Debian", "Debian:12")];

/// Archive of records, and the ecosystem's name.
const ARCHIVES: &[(&str, &str)] = &[
    ("go-osv.tar.zst", "Go"),
    ("rust-osv.tar.zst", "crates.io"),
    ("alma-osv.tar.zst", "AlmaLinux"),
    ("pypi-osv.tar.zst", "PyPI"),
];

const DEBIAN: &str = "debian-tracker-derived-2023-04.json.zst";

/// Releases that the tracker names and OSV numbers.
const RELEASES: &[(&str, &str)] =
    &[("wheezy", "7"), ("jessie", "8"), ("stretch", "9"), ("buster", "10"), ("bullseye", "11")];

/// When the recorded tracker was.
const TRACKER_TIME: &str = "2023-04-02T00:00:00Z";

/// A folder of `ECOSYSTEM/all.zip`.
pub(crate) struct Feeds {
    folder: PathBuf,
    counts: BTreeMap<String, u64>,
}

impl Feeds {
    pub(crate) fn get() -> Result<Feeds> {
        let folder = match std::env::var_os("KUBOARD_FEEDS") {
            Some(_) => rootfs::kept(RECIPE, make)?,
            None => rootfs::kept(FEW, make_few)?,
        };
        let counts = serde_json::from_slice(&fs::read(folder.join("counts.json"))?)?;
        Ok(Feeds { folder, counts })
    }

    /// Holds `ECOSYSTEM/all.zip`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn json(&self) -> Value {
        json!(self.counts)
    }

    pub(crate) fn text(&self) -> String {
        let parts: Vec<String> =
            self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        parts.join(", ")
    }
}

type Records = BTreeMap<String, Value>;

fn make(folder: &Path) -> Result<()> {
    let named = std::env::var_os("KUBOARD_FEEDS")
        .context("no advisories; hint: set KUBOARD_FEEDS to the folder of recorded feeds")?;
    let feeds = PathBuf::from(named);
    let mut counts = BTreeMap::new();
    for (archive, ecosystem) in ARCHIVES {
        let work = tool::folder("feed")?;
        unpack(&feeds.join(archive), work.path())?;
        let mut records = Records::new();
        read(work.path(), &mut records).with_context(|| format!("read {archive}"))?;
        counts.insert((*ecosystem).to_owned(), records.len());
        write(&records, &folder.join(ecosystem))?;
    }
    let tracker = zstd::decode_all(fs::File::open(feeds.join(DEBIAN))?)?;
    let records = debian(&serde_json::from_slice(&tracker)?)?;
    counts.insert("Debian".to_owned(), records.len());
    write(&records, &folder.join("Debian"))?;
    Ok(fs::write(folder.join("counts.json"), json!(counts).to_string())?)
}

fn make_few(folder: &Path) -> Result<()> {
    let mut counts = BTreeMap::new();
    for (_, ecosystem) in ARCHIVES {
        let file = machine::root().join("bench/feeds").join(format!("{ecosystem}.json"));
        let mut records = Records::new();
        if file.is_file() {
            let all: Value = serde_json::from_slice(&fs::read(&file)?)?;
            for record in all.as_array().into_iter().flatten() {
                let id = record["id"].as_str().context("a record without an id")?;
                records.insert(id.to_owned(), record.clone());
            }
        }
        if !records.is_empty() {
            counts.insert((*ecosystem).to_owned(), records.len());
            write(&records, &folder.join(ecosystem))?;
        }
    }
    for (ecosystem, release) in LACKING {
        let id = format!("MADE-{ecosystem}");
        let record = json!({
            "id": id, "schema_version": "1.7.0", "modified": TRACKER_TIME,
            "affected": [{
                "package": {"ecosystem": release, "name": "a-package-that-nobody-has"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
            }],
        });
        write(&Records::from([(id, record)]), &folder.join(ecosystem))?;
    }
    Ok(fs::write(folder.join("counts.json"), json!(counts).to_string())?)
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let bytes = zstd::decode_all(
        fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?,
    )?;
    let mut tar = tool::command("tar")?;
    let mut child = tar.arg("-x").arg("-C").arg(to).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("tar has no input")?.write_all(&bytes)?;
    ensure!(child.wait()?.success(), "tar failed on {}", archive.display());
    Ok(())
}

/// All records below a folder, JSON or YAML. AlmaLinux gives one id to the advisories of several
/// releases: such records are one, with the packages of all.
fn read(folder: &Path, records: &mut Records) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, records)?;
            continue;
        }
        let record: Value = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => serde_json::from_slice(&fs::read(&path)?)?,
            Some("yaml") => serde_yaml_ng::from_slice(&fs::read(&path)?)?,
            _ => continue,
        };
        let Some(id) = record["id"].as_str().map(str::to_owned) else { continue };
        match records.get_mut(&id).and_then(|known| known["affected"].as_array_mut()) {
            Some(known) => {
                known.extend(record["affected"].as_array().into_iter().flatten().cloned());
            }
            None => drop(records.insert(id, record)),
        }
    }
    Ok(())
}

/// The tracker's rows, each CVE as one record, as osv.dev has them.
fn debian(tracker: &Value) -> Result<Records> {
    let mut records = Records::new();
    for (package, vulnerabilities) in tracker.as_object().context("no packages")? {
        for (cve, row) in vulnerabilities.as_object().context("no vulnerabilities")? {
            for (release, number) in RELEASES {
                let Some(fixed) = row["releases"][release]["fixed_version"].as_str() else {
                    continue;
                };
                let id = format!("DEBIAN-{cve}");
                let record = records.entry(id.clone()).or_insert_with(|| {
                    json!({
                        "id": id, "upstream": [cve], "affected": [], "schema_version": "1.7.0",
                        "modified": TRACKER_TIME, "published": TRACKER_TIME,
                    })
                });
                if let Some(affected) = record["affected"].as_array_mut() {
                    affected.push(json!({
                        "package": {"ecosystem": format!("Debian:{number}"), "name": package},
                        "ranges": [{
                            "type": "ECOSYSTEM",
                            "events": [{"introduced": "0"}, {"fixed": fixed}],
                        }],
                    }));
                }
            }
        }
    }
    Ok(records)
}

fn write(records: &Records, folder: &Path) -> Result<()> {
    ensure!(!records.is_empty(), "no records for {}", folder.display());
    let work = tool::folder("zip")?;
    for (id, record) in records {
        // AlmaLinux's ids hold a colon, which a name in an archive may; a slash none does.
        ensure!(!id.contains('/'), "{id} is no file name");
        fs::write(work.path().join(format!("{id}.json")), record.to_string())?;
    }
    fs::create_dir_all(folder)?;
    let mut zip = tool::command("jar")?;
    zip.args(["--create", "--no-manifest", "--file"]).arg(folder.join("all.zip"));
    tool::output(zip.arg("-C").arg(work.path()).arg(".")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::debian;
    use serde_json::json;

    #[test]
    fn the_trackers_rows_become_one_record_for_each_cve() {
        let tracker = json!({
            "a": {"CVE-1": {"releases": {
                "bullseye": {"fixed_version": "1-1"}, "sid": {"fixed_version": "2"},
            }}},
            "b": {"CVE-1": {"releases": {"buster": {"fixed_version": "3"}}}},
        });
        let records = debian(&tracker).unwrap();
        assert_eq!(records.len(), 1);
        let packages: Vec<String> = records["DEBIAN-CVE-1"]["affected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| format!("{} {}", it["package"]["ecosystem"], it["package"]["name"]))
            .collect();
        assert_eq!(packages, ["\"Debian:11\" \"a\"", "\"Debian:10\" \"b\""]);
    }
}
