//! Feeds of advisories written by hand, in the layout that mirrors have: as a folder for an air
//! gap, or served on loopback by a mirror that misbehaves on command.
//!
//! ```text
//! debian/data.json              the tracker's export
//! alpine/v3.16/main.json        a secdb file a release
//! osv/ECOSYSTEM/all.zip         everything of an ecosystem
//! osv/ECOSYSTEM/modified_id.csv TIME,ID a line, newest first
//! osv/ECOSYSTEM/ID.json         one advisory
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use kuboard_oci::Digest;
use serde_json::{Value, json};

use crate::http::Headers;
use crate::server::{Received, Reply, Server, lock};

/// How severe an advisory says that it is, by a CVSS 3.1 vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// 9.8
    Critical,
    /// 7.5
    High,
    /// 5.3
    Medium,
    /// 2.5
    Low,
}

impl Score {
    /// The vector.
    pub fn vector(self) -> &'static str {
        match self {
            Score::Critical => "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
            Score::High => "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N",
            Score::Medium => "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N",
            Score::Low => "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N",
        }
    }
}

/// An advisory of OSV on one package.
#[derive(Clone, Debug)]
pub struct Osv {
    ecosystem: String,
    id: String,
    package: String,
    aliases: Vec<String>,
    fixed: Option<String>,
    score: Option<Score>,
    withdrawn: bool,
    /// Seconds since the moment at which all of these advisories were written.
    modified: u32,
}

impl Osv {
    /// All versions of a package of this OSV ecosystem (`npm`, `crates.io`, `AlmaLinux:9`).
    pub fn new(ecosystem: &str, id: &str, package: &str) -> Osv {
        Osv {
            ecosystem: ecosystem.to_owned(),
            id: id.to_owned(),
            package: package.to_owned(),
            aliases: Vec::new(),
            fixed: None,
            score: None,
            withdrawn: false,
            modified: 0,
        }
    }

    /// One more id of the same vulnerability.
    pub fn alias(mut self, id: &str) -> Osv {
        self.aliases.push(id.to_owned());
        self
    }

    /// Versions from this one on are well.
    pub fn fixed(mut self, version: &str) -> Osv {
        self.fixed = Some(version.to_owned());
        self
    }

    /// How severe it is.
    pub fn score(mut self, score: Score) -> Osv {
        self.score = Some(score);
        self
    }

    /// Its author took it back.
    pub fn withdrawn(mut self) -> Osv {
        self.withdrawn = true;
        self
    }

    /// It changed so many seconds after the others were written, a month at most.
    pub fn modified(mut self, seconds: u32) -> Osv {
        self.modified = seconds;
        self
    }

    /// Within the first month.
    fn time(&self) -> String {
        let day = 1 + self.modified / 86_400 % 31;
        let (hours, minutes) = (self.modified / 3600 % 24, self.modified / 60 % 60);
        format!("2026-01-{day:02}T{hours:02}:{minutes:02}:{:02}Z", self.modified % 60)
    }

    fn document(&self) -> Value {
        let kind = match self.ecosystem.as_str() {
            "Go" | "npm" | "crates.io" => "SEMVER",
            _ => "ECOSYSTEM",
        };
        let mut events = vec![json!({"introduced": "0"})];
        events.extend(self.fixed.as_ref().map(|fixed| json!({"fixed": fixed})));
        let mut document = json!({
            "schema_version": "1.6.0",
            "id": self.id,
            "modified": self.time(),
            "published": "2026-01-01T00:00:00Z",
            "aliases": self.aliases,
            "summary": format!("{} made for a test", self.id),
            "details": "Nothing of this is true.",
            "references": [{"type": "ADVISORY", "url": format!("https://example.com/{}", self.id)}],
            "affected": [{
                "package": {"ecosystem": self.ecosystem, "name": self.package},
                "ranges": [{"type": kind, "events": events}],
            }],
        });
        if let Some(score) = self.score {
            document["severity"] = json!([{"type": "CVSS_V3", "score": score.vector()}]);
        }
        if self.withdrawn {
            document["withdrawn"] = json!(self.time());
        }
        document
    }
}

/// What Debian's tracker says of a vulnerability in a source package of bookworm.
#[derive(Clone, Debug)]
pub enum Debian {
    /// Fixed in this version; `0`: never affected.
    Fixed(String),
    /// Not fixed yet.
    Open,
}

/// The advisories of a mirror.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    /// By ecosystem without its release, then by id.
    osv: BTreeMap<String, BTreeMap<String, Osv>>,
    debian: serde_json::Map<String, Value>,
    /// By release (`v3.16`), then package, then fixed version.
    alpine: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<String>>>>,
}

impl Feeds {
    /// Adds an advisory of OSV, in place of one with the same id.
    pub fn osv(&mut self, advisory: Osv) {
        let family = advisory.ecosystem.split(':').next().unwrap_or_default().to_owned();
        self.osv.entry(family).or_default().insert(advisory.id.clone(), advisory);
    }

    /// Adds what Debian's tracker says; `urgency` is its word (`high`, `low`, `unimportant`).
    pub fn debian(&mut self, source: &str, id: &str, state: &Debian, urgency: &str) {
        let release = match state {
            Debian::Fixed(version) => {
                json!({"status": "resolved", "fixed_version": version, "urgency": urgency})
            }
            Debian::Open => json!({"status": "open", "urgency": urgency}),
        };
        let issues = self.debian.entry(source).or_insert_with(|| json!({}));
        issues[id] = json!({
            "description": "Nothing of this is true.",
            "releases": {"bookworm": release},
        });
    }

    /// Adds what Alpine's release (`v3.16`) fixed in this version.
    pub fn alpine(&mut self, release: &str, package: &str, version: &str, id: &str) {
        let packages = self.alpine.entry(release.to_owned()).or_default();
        let versions = packages.entry(package.to_owned()).or_default();
        versions.entry(version.to_owned()).or_default().push(id.to_owned());
    }

    /// The names of the feeds that there are, as `advisories.feeds` takes them.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.osv.keys().map(|family| format!("osv:{}", family.to_lowercase())).collect();
        names.extend((!self.debian.is_empty()).then(|| "debian".to_owned()));
        names.extend((!self.alpine.is_empty()).then(|| "alpine".to_owned()));
        names
    }

    /// Every file of the mirror by its path.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        if !self.debian.is_empty() {
            files.insert("debian/data.json".to_owned(), serde_json::to_vec(&self.debian)?);
        }
        for (release, packages) in &self.alpine {
            let packages: Vec<Value> = packages
                .iter()
                .map(|(name, fixes)| json!({"pkg": {"name": name, "secfixes": fixes}}))
                .collect();
            let document =
                json!({"distroversion": release, "reponame": "main", "packages": packages});
            files.insert(format!("alpine/{release}/main.json"), serde_json::to_vec(&document)?);
        }
        for (ecosystem, advisories) in &self.osv {
            let at = |name: &str| format!("osv/{ecosystem}/{name}");
            let mut documents = Vec::new();
            for advisory in advisories.values() {
                let name = format!("{}.json", advisory.id);
                let bytes = serde_json::to_vec(&advisory.document())?;
                files.insert(at(&name), bytes.clone());
                documents.push((name, bytes));
            }
            let mut lines: Vec<String> =
                advisories.values().map(|one| format!("{},{}\n", one.time(), one.id)).collect();
            lines.sort_unstable_by(|a, b| b.cmp(a));
            files.insert(at("modified_id.csv"), lines.concat().into_bytes());
            files.insert(at("all.zip"), zip(&documents)?);
        }
        Ok(files)
    }

    /// Writes the mirror into a folder. What is read meanwhile is the old file or the new one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (path, bytes) in self.files()? {
            let file = folder.join(path);
            let parent = file.parent().context("a file without a folder")?;
            fs::create_dir_all(parent)?;
            let mut new = tempfile::NamedTempFile::new_in(parent)?;
            std::io::Write::write_all(&mut new, &bytes)?;
            new.persist(&file)?;
        }
        Ok(())
    }
}

/// A zip archive of these files, not compressed.
pub fn zip(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in files {
        let offset = u32::try_from(archive.len())?;
        let size = u32::try_from(content.len())?;
        // Version, flags, method, time and day; then checksum and both sizes, then lengths.
        let mut common = Vec::new();
        for field in [20_u16, 0, 0, 0, 0x21] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        for field in [crc32(content), size, size] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        common.extend_from_slice(&u16::try_from(name.len())?.to_le_bytes());
        common.extend_from_slice(&0_u16.to_le_bytes());
        archive.extend_from_slice(b"PK\x03\x04");
        archive.extend_from_slice(&common);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(content);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&common);
        // Comment, disk, internal and external attributes.
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let offset = u32::try_from(archive.len())?;
    let (count, size) = (u16::try_from(files.len())?, u32::try_from(directory.len())?);
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
    archive.extend_from_slice(&[size.to_le_bytes(), offset.to_le_bytes()].concat());
    archive.extend_from_slice(&[0, 0]);
    Ok(archive)
}

/// The checksum of zip, a bit at a time: these files are small.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// What a mirror does instead of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Answers with this status.
    Status(u16),
    /// Asks to wait so many seconds (429).
    Throttle(u32),
    /// Promises all and closes after half.
    Cut,
    /// Sends these bytes, as a well-formed answer.
    Instead(Vec<u8>),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// The end of a path, what is done there, and how often (`None`: for good).
    troubles: Vec<(String, Trouble, Option<u32>)>,
    seen: Vec<(String, u16)>,
}

/// A mirror on loopback. Dropping it closes its port.
pub struct Mirror {
    state: Arc<Mutex<State>>,
    server: Server,
}

impl Mirror {
    /// Serves these feeds.
    pub fn start(feeds: &Feeds) -> Result<Mirror> {
        let state = Arc::new(Mutex::new(State { files: feeds.files()?, ..State::default() }));
        let answering = Arc::clone(&state);
        let server =
            Server::start("127.0.0.1:0", move |request, reply| answer(&answering, request, reply))?;
        Ok(Mirror { state, server })
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Serves these feeds from now on.
    pub fn put(&self, feeds: &Feeds) -> Result<()> {
        lock(&self.state).files = feeds.files()?;
        Ok(())
    }

    /// From now on (`times` None: for good) does this for paths with this end.
    pub fn trouble(&self, end: &str, trouble: Trouble, times: Option<u32>) {
        lock(&self.state).troubles.push((end.to_owned(), trouble, times));
    }

    /// Behaves again.
    pub fn heal(&self) {
        lock(&self.state).troubles.clear();
    }

    /// Path and status of every answer since the last time that this was asked.
    pub fn requests(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut lock(&self.state).seen)
    }
}

fn answer(state: &Mutex<State>, request: &Received, reply: &mut Reply) -> Result<()> {
    let path = request.path.trim_start_matches('/').replace("%20", " ");
    let (trouble, file) = {
        let mut state = lock(state);
        let trouble = state
            .troubles
            .iter_mut()
            .find(|(end, _, times)| *times != Some(0) && path.ends_with(end.as_str()))
            .map(|(_, trouble, times)| {
                *times = times.map(|left| left - 1);
                trouble.clone()
            });
        (trouble, state.files.get(&path).cloned())
    };
    let mut told = |status: u16, headers: &Headers, body: &[u8]| -> Result<()> {
        lock(state).seen.push((path.clone(), status));
        reply.send(status, headers, body).map(drop)
    };
    match (trouble, file) {
        (Some(Trouble::Status(status)), _) => told(status, &Headers::default(), b""),
        (Some(Trouble::Throttle(seconds)), _) => {
            told(429, &[("Retry-After", seconds.to_string().as_str())].into(), b"")
        }
        (Some(Trouble::Instead(bytes)), _) => told(200, &Headers::default(), &bytes),
        (_, None) => told(404, &Headers::default(), b"no such file"),
        (Some(Trouble::Cut), Some(bytes)) => {
            lock(state).seen.push((path, 200));
            reply.close();
            reply.head(200, &Headers::default(), Some(bytes.len() as u64))?;
            reply.body(&bytes[..bytes.len() / 2]).map(drop)
        }
        (None, Some(bytes)) => {
            let etag = format!("\"{}\"", Digest::sha256(&bytes).hex());
            let headers = [("ETag", etag.as_str())].into();
            match request.headers.get("if-none-match") {
                Some(known) if known == etag => told(304, &headers, b""),
                _ => told(200, &headers, &bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Debian, Feeds, Mirror, Osv, Trouble, zip};
    use crate::http::Request;
    use crate::tool;

    fn feeds() -> Feeds {
        let mut feeds = Feeds::default();
        feeds.osv(Osv::new("npm", "MADE-1", "one").fixed("2.0.0").modified(61));
        feeds.osv(Osv::new("npm", "MADE-2", "two").modified(3600));
        feeds.osv(Osv::new("AlmaLinux:9", "MADE-3", "three"));
        feeds.debian("bash", "CVE-2090-1", &Debian::Open, "low");
        feeds.alpine("v3.16", "busybox", "1-r1", "CVE-2090-2");
        feeds
    }

    #[test]
    fn a_mirror_has_the_layout_of_the_feeds() {
        let files = feeds().files().unwrap();
        let paths: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "alpine/v3.16/main.json",
                "debian/data.json",
                "osv/AlmaLinux/MADE-3.json",
                "osv/AlmaLinux/all.zip",
                "osv/AlmaLinux/modified_id.csv",
                "osv/npm/MADE-1.json",
                "osv/npm/MADE-2.json",
                "osv/npm/all.zip",
                "osv/npm/modified_id.csv",
            ]
        );
        let list = "2026-01-01T01:00:00Z,MADE-2\n2026-01-01T00:01:01Z,MADE-1\n";
        assert_eq!(files["osv/npm/modified_id.csv"], list.as_bytes());
        assert_eq!(feeds().names(), ["osv:almalinux", "osv:npm", "debian", "alpine"]);
    }

    #[test]
    fn other_programs_read_the_archive() {
        let folder = tool::folder("zip").unwrap();
        let file = folder.path().join("x.zip");
        let files = [("a/b.json".to_owned(), b"{}".to_vec()), ("c".to_owned(), vec![7; 5000])];
        std::fs::write(&file, zip(&files).unwrap()).unwrap();
        let mut list = Command::new(tool::find("jar").unwrap());
        let listed = tool::output(list.arg("tf").arg(&file)).unwrap();
        assert_eq!(listed, "a/b.json\nc\n");
        let mut extract = Command::new(tool::find("jar").unwrap());
        tool::output(extract.arg("xf").arg(&file).current_dir(folder.path())).unwrap();
        assert_eq!(std::fs::read(folder.path().join("c")).unwrap(), vec![7; 5000]);
    }

    #[test]
    fn the_mirror_answers_conditions_and_makes_trouble() {
        let mirror = Mirror::start(&feeds()).unwrap();
        let address = mirror.url().trim_start_matches("http://").to_owned();
        let get = || Request::get("/osv/npm/all.zip");
        let whole = get().send(&address).unwrap();
        assert_eq!(whole.status, 200);
        let etag = whole.headers.get("etag").unwrap().to_owned();
        assert_eq!(get().header("If-None-Match", etag).send(&address).unwrap().status, 304);
        mirror.trouble("all.zip", Trouble::Throttle(3), Some(1));
        let throttled = get().send(&address).unwrap();
        assert_eq!((throttled.status, throttled.headers.get("retry-after")), (429, Some("3")));
        mirror.trouble("all.zip", Trouble::Cut, None);
        assert!(get().send(&address).is_err());
        mirror.heal();
        assert_eq!(get().send(&address).unwrap().body, whole.body);
        assert_eq!(Request::get("/osv/npm/x").send(&address).unwrap().status, 404);
        let seen: Vec<u16> = mirror.requests().into_iter().map(|(_, status)| status).collect();
        assert_eq!(seen, [200, 304, 429, 200, 200, 404]);
    }
}
