//! What the tests of the scan engine as a service share: its two forms, a receiver of its events
//! that can be away, and processes of single roles.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::feeds::Feeds;
use kuboard_testkit::http::{Answer, Headers, Request};
use kuboard_testkit::postgres::Postgres;
use kuboard_testkit::process::Process;
use kuboard_testkit::server::{Received, Server};
use kuboard_testkit::{Kuboard, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::command;

/// Bound on what the service does by itself.
pub const BOUND: Duration = Duration::from_secs(120);

/// Where metadata is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the data folder.
    Sqlite,
    /// In a server.
    Postgres,
}

/// Both forms: a suite passes in each.
pub const FORMS: [Form; 2] = [Form::Sqlite, Form::Postgres];

/// The ground on which the service stands, over restarts: data, advisories, database.
pub struct Ground {
    folder: TempDir,
    /// The database's URL; none for SQLite.
    database: Option<String>,
}

impl Ground {
    /// With advisories compiled of these feeds.
    pub fn new(form: Form, feeds: &Feeds) -> Result<Ground> {
        let database = match form {
            Form::Sqlite => None,
            Form::Postgres => Some(Postgres::shared()?.database()?),
        };
        let ground = Ground { folder: tool::folder("service")?, database };
        ground.advise(feeds)?;
        Ok(ground)
    }

    /// A path in its folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.at("data")
    }

    /// Compiles these feeds into the folder that the service looks into, as another process does.
    pub fn advise(&self, feeds: &Feeds) -> Result<()> {
        let mirror = self.at("mirror");
        feeds.write(&mirror)?;
        command::update(&self.at("advisories"), &mirror, feeds)
    }

    /// Settings: the catalogue, and advisories that others keep up to date.
    pub fn settings(&self) -> String {
        let dir = self.at("advisories");
        let mut settings = format!("[advisories]\nupdate = false\ndir = {dir:?}\n");
        if let Some(url) = &self.database {
            settings.push_str(&format!("[catalog]\nurl = {url:?}\n"));
        }
        settings
    }

    /// What a statement gives in its PostgreSQL.
    pub fn psql(&self, statement: &str) -> Result<String> {
        let url = self.database.as_deref().context("not in PostgreSQL")?;
        let name = url.trim_start_matches("postgres:///").split('?').next().unwrap_or_default();
        Ok(Postgres::shared()?.psql(name, statement)?.trim().to_owned())
    }

    /// `kuboard up`, not started yet.
    pub fn builder(&self) -> kuboard_testkit::kuboard::Builder {
        Kuboard::builder().config(&self.settings()).data_dir(&self.data())
    }

    /// `kuboard serve` with these roles and further settings.
    pub fn serve(&self, name: &str, roles: &str, settings: &str) -> Result<Part> {
        let text = format!("{}{settings}", self.settings());
        Part::start(roles, &self.at(name), &text)
    }
}

/// A process of some roles.
pub struct Part {
    address: String,
    /// Its process.
    pub process: Process,
}

impl Part {
    fn start(roles: &str, folder: &Path, settings: &str) -> Result<Part> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("kuboard.toml"), settings)?;
        let data = folder.join("data");
        let file = data.join("address");
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let mut command = Kuboard::command()?;
        command.args(["serve", "--role", roles, "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(&data).current_dir(folder);
        let mut process = Process::start(roles, &mut command, &folder.join("log"))?;
        let mut address = String::new();
        process.wait_ready(Duration::from_secs(30), || {
            address = fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
            Ok(!address.is_empty()
                && Request::get("/healthz").send(&address).is_ok_and(|it| it.status == 200))
        })?;
        Ok(Part { address, process })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// GET this path.
    pub fn get(&self, path: &str) -> Result<Answer> {
        Request::get(path).send(&self.address)
    }
}

/// Waits until the numbers of `scan_vulnerabilities_found` of a registry are these: critical,
/// high, medium, low.
pub fn wait_found(kuboard: &Kuboard, registry: &str, counts: [u32; 4]) -> Result<()> {
    let registry = format!("registry=\"{registry}\"");
    let mut seen = [0; 4];
    let waited = tool::wait_until("the findings in the metrics", BOUND, || {
        for (count, severity) in seen.iter_mut().zip(["CRITICAL", "HIGH", "MEDIUM", "LOW"]) {
            let severity = format!("severity=\"{severity}\"");
            let value = kuboard.metric("scan_vulnerabilities_found", &[&severity, &registry])?;
            *count = value as u32;
        }
        std::thread::sleep(Duration::from_millis(50));
        Ok(seen == counts)
    });
    waited.with_context(|| format!("{registry}: {seen:?}, not {counts:?}\n{}", end_of_log(kuboard)))
}

/// What the service said last, for the message of a failure.
pub fn end_of_log(kuboard: &Kuboard) -> String {
    let log = kuboard.process.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// An event as it came.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Header fields.
    pub headers: Headers,
    /// The body as it came.
    pub body: Vec<u8>,
    /// The same as JSON.
    pub event: Value,
}

impl Delivered {
    /// What it tells: image name, what became of it, vulnerability.
    pub fn told(&self) -> BTreeSet<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subject = text(&self.event["data"]["subject"]);
        let changes = self.event["data"]["changes"].as_array().cloned().unwrap_or_default();
        changes.iter().map(|it| (subject.clone(), text(&it["change"]), text(&it["id"]))).collect()
    }
}

/// How the receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes every event.
    Well,
    /// Takes it, and says that it did not.
    Failing,
}

/// A receiver of events on loopback, which can go away and come back at the same address.
pub struct Receiver {
    address: String,
    seen: Arc<Mutex<Vec<Delivered>>>,
    mood: Arc<Mutex<Mood>>,
    server: Option<Server>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Starts on a free port.
    pub fn start() -> Result<Receiver> {
        let mut receiver = Receiver {
            address: "127.0.0.1:0".to_owned(),
            seen: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Well)),
            server: None,
        };
        receiver.revive()?;
        Ok(receiver)
    }

    /// Listens again where it did before.
    pub fn revive(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let (seen, mood) = (Arc::clone(&self.seen), Arc::clone(&self.mood));
        let server = Server::start(&self.address, move |request: &Received, reply| {
            if *lock(&mood) == Mood::Failing {
                return reply.send(503, &Headers::default(), b"").map(drop);
            }
            let event = serde_json::from_slice(&request.body)?;
            lock(&seen).push(Delivered {
                headers: request.headers.clone(),
                body: request.body.clone(),
                event,
            });
            reply.send(204, &Headers::default(), b"").map(drop)
        })?;
        self.address = server.address().to_string();
        self.server = Some(server);
        Ok(())
    }

    /// Closes its port and every connection.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// From now on it answers so.
    pub fn be(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    /// Settings that name it, signed with the secret in this file.
    pub fn settings(&self, secret: &Path) -> String {
        format!(
            "[[webhook]]\nname = \"siem\"\nurl = \"http://{}/events\"\nsecretFile = {secret:?}\n",
            self.address
        )
    }

    /// Every event that it took.
    pub fn delivered(&self) -> Vec<Delivered> {
        lock(&self.seen).clone()
    }

    /// Everything that it was told.
    pub fn told(&self) -> BTreeSet<(String, String, String)> {
        lock(&self.seen).iter().flat_map(Delivered::told).collect()
    }

    /// Waits until it was told all of this.
    pub fn wait_told(
        &self,
        wanted: &BTreeSet<(String, String, String)>,
        bound: Duration,
    ) -> Result<()> {
        let waited = tool::wait_until("the events", bound, || {
            std::thread::sleep(Duration::from_millis(50));
            Ok(wanted.is_subset(&self.told()))
        });
        waited.with_context(|| {
            let told = self.told();
            let missing: Vec<_> = wanted.difference(&told).collect();
            format!("{} of {} are missing: {missing:#?}", missing.len(), wanted.len())
        })
    }

    /// Every delivery is signed with this secret, and one id is one content.
    pub fn check_signatures(&self, secret: &str) -> Result<()> {
        let mut known = std::collections::BTreeMap::new();
        for delivered in self.delivered() {
            let header = |name: &str| {
                delivered.headers.get(name).map(str::to_owned).with_context(|| format!("no {name}"))
            };
            let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
            let signed = [format!("{id}.{time}.").as_bytes(), &delivered.body].concat();
            let signature = format!("v1,{}", hmac(secret, &signed)?);
            ensure!(header("webhook-signature")? == signature, "{}", delivered.event);
            ensure!(delivered.event["id"] == id.as_str(), "{}", delivered.event);
            ensure!(delivered.event["specversion"] == "1.0", "{}", delivered.event);
            let data = delivered.event["data"].to_string();
            let first = known.entry(id.clone()).or_insert_with(|| data.clone());
            ensure!(*first == data, "{id} came with another content");
        }
        Ok(())
    }
}

/// HMAC-SHA256 in Base64, as another program makes it.
fn hmac(secret: &str, bytes: &[u8]) -> Result<String> {
    let folder = tool::folder("hmac")?;
    let file = folder.path().join("signed");
    fs::write(&file, bytes)?;
    let mut openssl = tool::command("openssl")?;
    openssl.args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("key:{secret}")]);
    openssl.args(["-binary", "-out"]).arg(folder.path().join("mac")).arg(&file);
    tool::output(&mut openssl)?;
    let mut base64 = tool::command("openssl")?;
    base64.args(["base64", "-A", "-in"]).arg(folder.path().join("mac"));
    Ok(tool::output(&mut base64)?.trim().to_owned())
}
