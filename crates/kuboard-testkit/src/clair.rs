//! A real Clair 4 with a PostgreSQL of its own, whose advisories are files of OSV on loopback: its
//! updaters reach for nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::feeds::Feeds;
use crate::http::{Answer, Headers, Request};
use crate::postgres::Postgres;
use crate::process::Process;
use crate::server::{Server, lock};
use crate::tool;

/// Migrations of three schemas, and the first update.
const BOUND: Duration = Duration::from_secs(300);

/// What OSV serves: by ecosystem, the archive of all its advisories.
#[derive(Clone, Debug)]
enum Archive {
    Bytes(Arc<Vec<u8>>),
    File(PathBuf),
}

type Archives = BTreeMap<String, Archive>;

/// Clair, its database and its advisories. Dropping it ends all of them.
pub struct Clair {
    address: String,
    folder: TempDir,
    process: Process,
    archives: Arc<Mutex<Archives>>,
    /// The updates that it had when it was last started.
    known: Value,
    _advisories: Server,
    database: Postgres,
}

impl Clair {
    /// Starts one with the advisories of OSV among these, and waits until it has them.
    pub fn start(feeds: &Feeds) -> Result<Clair> {
        Clair::with(archives(feeds)?)
    }

    /// Starts one with a folder of `ECOSYSTEM/all.zip`, and waits until it has them.
    pub fn of_folder(folder: &Path) -> Result<Clair> {
        let mut archives = Archives::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = path.join("all.zip");
            if file.is_file() {
                archives.insert(name, Archive::File(file));
            }
        }
        Clair::with(archives)
    }

    fn with(archives: Archives) -> Result<Clair> {
        let folder = tool::folder("clair")?;
        let archives = Arc::new(Mutex::new(archives));
        let served = Arc::clone(&archives);
        let advisories = Server::start("127.0.0.1:0", move |request, reply| {
            let path = request.path.trim_start_matches('/').replace("%20", " ");
            let found = find(&lock(&served), &path)?;
            match found {
                Some(bytes) => reply.send(200, &Headers::default(), &bytes).map(drop),
                None => reply.send(404, &Headers::default(), b"").map(drop),
            }
        })?;
        let database = Postgres::start()?;
        let url = database.database()?;
        let address = format!("127.0.0.1:{}", tool::free_port()?);
        let osv = format!("http://{}/osv/", advisories.address());
        fs::write(folder.path().join("clair.json"), settings(&folder, &address, &url, &osv)?)?;
        let process = process(folder.path())?;
        let mut clair = Clair {
            address,
            folder,
            process,
            archives,
            known: Value::Null,
            _advisories: advisories,
            database,
        };
        clair.wait_ready()?;
        Ok(clair)
    }

    /// `host:port` of its API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Base address of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// GET this path.
    pub fn get(&self, path: &str) -> Result<Answer> {
        Request::get(path).send(&self.address)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its database's server.
    pub fn database(&self) -> &Postgres {
        &self.database
    }

    /// Ends it; what it knows stays in its database.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// Starts it again at the same address, with these advisories of OSV from now on; it takes them
    /// when it starts. Waits until it did.
    pub fn revive(&mut self, feeds: &Feeds) -> Result<()> {
        *lock(&self.archives) = archives(feeds)?;
        let before = std::mem::take(&mut self.known);
        self.process = process(self.folder.path())?;
        let address = self.address.clone();
        self.process.wait_ready(BOUND, || Ok(updates(&address).is_ok_and(|now| now != before)))?;
        self.known = self.updates()?;
        Ok(())
    }

    /// The last updates of its advisories, as it tells of them.
    pub fn updates(&self) -> Result<Value> {
        updates(&self.address)
    }

    /// Its log but for the requests that it answered.
    pub fn log(&self) -> String {
        let log = self.process.log();
        let lines = log.lines().filter(|line| !line.contains("handled HTTP request"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let count = lock(&self.archives).len();
        let address = self.address.clone();
        // Each ecosystem that it takes is one updater; some it leaves to others.
        let wanted = lock(&self.archives).keys().filter(|name| is_taken(name)).count();
        let is_ready = || {
            Ok(updates(&address).is_ok_and(|it| it.as_object().map_or(0, |it| it.len()) >= wanted))
        };
        let ready = self.process.wait_ready(BOUND, is_ready);
        ready.with_context(|| format!("{count} ecosystems"))?;
        self.known = self.updates()?;
        Ok(())
    }
}

/// Whether Clair takes an ecosystem's advisories from OSV.
pub fn is_taken(ecosystem: &str) -> bool {
    const LEFT: [&str; 12] = [
        "almalinux",
        "alpine",
        "chainguard",
        "debian",
        "linux",
        "opensuse",
        "red hat",
        "rocky linux",
        "suse",
        "ubuntu",
        "wolfi",
        "android",
    ];
    let name = ecosystem.to_lowercase();
    let name = name.split(':').next().unwrap_or_default();
    !LEFT.contains(&name)
}

fn updates(address: &str) -> Result<Value> {
    let path = "/matcher/api/v1/internal/update_operation?latest=true";
    let answer = Request::get(path).within(Duration::from_secs(5)).send(address)?;
    answer.json()
}

fn archives(feeds: &Feeds) -> Result<Archives> {
    let files = feeds.files()?;
    let all = files.into_iter().filter_map(|(path, bytes)| {
        let name = path.strip_prefix("osv/")?.strip_suffix("/all.zip")?.to_owned();
        Some((name, Archive::Bytes(Arc::new(bytes))))
    });
    Ok(all.collect())
}

fn find(archives: &Archives, path: &str) -> Result<Option<Vec<u8>>> {
    if path == "ecosystems.txt" {
        let names: Vec<String> = archives.keys().map(|name| format!("{name}\n")).collect();
        return Ok(Some(names.concat().into_bytes()));
    }
    let name = path.strip_prefix("osv/").and_then(|path| path.strip_suffix("/all.zip"));
    Ok(match name.and_then(|name| archives.get(name)) {
        Some(Archive::Bytes(bytes)) => Some(bytes.to_vec()),
        Some(Archive::File(file)) => Some(fs::read(file)?),
        None => None,
    })
}

/// Its configuration; JSON is YAML, too.
fn settings(folder: &TempDir, address: &str, database: &str, osv: &str) -> Result<String> {
    // `postgres:///NAME?host=FOLDER&user=USER`, as its driver spells it.
    let (name, query) = database
        .strip_prefix("postgres:///")
        .and_then(|rest| rest.split_once('?'))
        .context("an unknown form of URL")?;
    let connection = format!("dbname={name} {} sslmode=disable", query.replace('&', " "));
    // Tables that it would fetch.
    let empty = folder.path().join("empty.json");
    fs::write(&empty, r#"{"data":{}}"#)?;
    let introspection = format!("127.0.0.1:{}", tool::free_port()?);
    let settings = json!({
        "http_listen_addr": address,
        "introspection_addr": introspection,
        "log_level": "info",
        "indexer": {
            "connstring": connection, "migrations": true,
            "scanner": {
                "repo": {"rhel-repository-scanner": {"repo2cpe_mapping_file": empty}},
                "package": {"rhel_containerscanner": {"name2repos_mapping_file": empty}},
            },
        },
        "matcher": {
            "connstring": connection, "migrations": true, "indexer_addr": address,
            "period": "6h", "update_retention": 2, "disable_enrichment": true,
        },
        "notifier": {
            "connstring": connection, "migrations": true,
            "indexer_addr": address, "matcher_addr": address,
        },
        "updaters": {"sets": ["osv"], "config": {"osv": {"url": osv}}},
    });
    Ok(settings.to_string())
}

fn process(folder: &Path) -> Result<Process> {
    let mut command = tool::command("clair")?;
    command.args(["-mode", "combo", "-conf"]).arg(folder.join("clair.json")).current_dir(folder);
    command.env("HOME", folder).env("TMPDIR", folder);
    Process::start("clair", &mut command, &folder.join("log"))
}

#[cfg(test)]
mod tests {
    use super::Clair;
    use crate::feeds::{Feeds, Osv};

    #[test]
    fn it_takes_advisories_and_is_revived_with_others() {
        let mut feeds = Feeds::default();
        feeds.osv(Osv::new("PyPI", "MADE-1", "one").fixed("2.0.0"));
        let mut clair = Clair::start(&feeds).unwrap();
        let before = clair.updates().unwrap();
        assert!(before["osv/pypi"][0]["ref"].is_string(), "{before}");
        assert_eq!(clair.get("/indexer/api/v1/index_state").unwrap().status, 200);
        clair.kill().unwrap();
        assert!(clair.updates().is_err());
        feeds.osv(Osv::new("PyPI", "MADE-2", "two").fixed("2.0.0"));
        clair.revive(&feeds).unwrap();
        assert_ne!(clair.updates().unwrap(), before);
    }
}
