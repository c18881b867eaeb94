//! Feeds on loopback: small ones, from recorded samples, on a server that misbehaves as told.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{StatusCode, header};
use kuboard_feeds::{
    database::{Database, Generations},
    fetch::{Downloader, FeedOutcome, UpdateReport, Updater, UpdaterConfig},
};
use kuboard_oci::Digest;
use kuboard_rt::{
    ManualClock, Tasks,
    http::{Body, Limits, Request, Response, bind, handler_fn},
    retry::Backoff,
};
use parking_lot::Mutex;

/// 2026-01-01.
pub(crate) const NOW_MS: i64 = 1_767_225_600_000;
pub(crate) const FEEDS: [&str; 5] = ["osv:go", "debian", "alpine", "redhat", "kev"];
pub(crate) const GO: &str = "osv/Go/";

pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parse").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a server does instead of answering well.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, with this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// The connection breaks after half of the body.
    Cut,
    /// Half of the body, as if it were all.
    Half,
    /// A page of somebody else.
    Page,
    /// Redirected there.
    Redirect(String),
    /// It promises so many bytes.
    Promise(u64),
    /// Another part than the one asked for.
    WrongPart,
    /// No tags, no conditions, no parts.
    Plain,
    /// Other tags than before on the same bytes.
    Retagged,
}

/// What is served.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) documents: BTreeMap<String, Bytes>,
    /// A part of the path, what happens there, and how often still.
    faults: Vec<(String, Fault, usize)>,
    /// Documents that are replaced once they were asked for.
    next: BTreeMap<String, Bytes>,
    /// Go's advisories: by number, when modified and in which version fixed.
    pub(crate) go: BTreeMap<u32, (String, String)>,
    pub(crate) asked: Vec<Asked>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) status: u16,
}

impl World {
    /// All feeds in good order.
    pub(crate) fn good() -> Self {
        let mut world = Self::default();
        for number in 1..=60 {
            let at = format!("2024-05-{:02}T00:00:00Z", number % 20 + 1);
            world.go.insert(number, (at, "1.33.0".to_owned()));
        }
        world.publish_go();
        world.debian(60);
        world.put("alpine/v3.15/main.json", data("secdb-alpine-3.15-main.json"));
        world.put("alpine/v3.15/community.json", data("secdb-alpine-3.15-community.json"));
        world.put("redhat/archive_latest.txt", "csaf_vex_2023-10-31.tar.zst\n");
        let archive = data("redhat/csaf_vex_2023-10-31.tar.zst");
        world.put("redhat/csaf_vex_2023-10-31.tar.zst", archive);
        world.put("redhat/2024/cve-2024-24786.json", data("redhat/cve-2024-24786-simple.json"));
        world.red_hat_changes(&[("2024/cve-2024-24786.json", "2024-03-05T12:00:00+00:00")]);
        world.put(
            "redhat/deletions.csv",
            "\"2020/cve-2020-1.json\",\"2021-01-01T00:00:00+00:00\"\n",
        );
        world.put("kev/known_exploited_vulnerabilities.json", data("kev.json"));
        world
    }

    pub(crate) fn put(&mut self, path: &str, content: impl Into<Bytes>) {
        self.documents.insert(path.to_owned(), content.into());
    }

    /// The recorded tracker, and so many more.
    pub(crate) fn debian(&mut self, more: u32) {
        let recorded = data("debian.json");
        let mut tracker: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&recorded).unwrap();
        let issues: BTreeMap<String, serde_json::Value> = (0..more)
            .map(|number| {
                let release = serde_json::json!({"bookworm": {"status": "resolved",
                    "repositories": {}, "fixed_version": "1.0", "urgency": "low"}});
                (format!("CVE-2022-{}", 10_000 + number), serde_json::json!({"releases": release}))
            })
            .collect();
        tracker.insert("made".to_owned(), serde_json::json!(issues));
        self.put("debian/data.json", serde_json::to_vec(&tracker).unwrap());
    }

    pub(crate) fn red_hat_changes(&mut self, newer: &[(&str, &str)]) {
        let old = ("2023/cve-2023-0045.json", "2023-10-01T00:00:00+00:00");
        let lines = newer.iter().chain([&old]);
        let list: String = lines.map(|(path, at)| format!("\"{path}\",\"{at}\"\n")).collect();
        self.put("redhat/changes.csv", list);
    }

    /// Adds or changes one of Go's advisories.
    pub(crate) fn go(&mut self, number: u32, at: &str, fixed: &str) {
        self.go.insert(number, (at.to_owned(), fixed.to_owned()));
        self.publish_go();
    }

    pub(crate) fn publish_go(&mut self) {
        let sample = String::from_utf8(data("osv/GO-2024-2611.json")).unwrap();
        let mut files = Vec::new();
        let mut list = Vec::new();
        self.documents.retain(|path, _| !path.starts_with(GO));
        for (number, (at, fixed)) in &self.go {
            let id = format!("GO-2024-{number:04}");
            let document = sample
                .replace("2024-05-20T16:03:47Z", at)
                .replace("1.33.0", fixed)
                .replace("GO-2024-2611", &id);
            files.push((format!("{id}.json"), document.clone().into_bytes()));
            list.push((at.clone(), id.clone()));
            self.documents.insert(format!("{GO}{id}.json"), document.into());
        }
        list.sort();
        let list: String = list.iter().rev().map(|(at, id)| format!("{at},{id}\n")).collect();
        self.put(&format!("{GO}modified_id.csv"), list);
        self.put(&format!("{GO}all.zip"), zip(&files));
    }

    pub(crate) fn fault(&mut self, path: &str, fault: Fault, times: usize) {
        self.faults.push((path.to_owned(), fault, times));
    }

    /// The document becomes another one once it was asked for.
    pub(crate) fn replace_later(&mut self, path: &str, content: impl Into<Bytes>) {
        self.next.insert(path.to_owned(), content.into());
    }

    fn take_fault(&mut self, path: &str) -> Option<Fault> {
        let (_, fault, times) = self
            .faults
            .iter_mut()
            .find(|(part, _, times)| path.contains(part.as_str()) && *times > 0)?;
        *times -= 1;
        Some(fault.clone())
    }

    fn answer(&mut self, request: &Request) -> Response {
        let path = request.uri().path().trim_start_matches('/').replace("%20", " ");
        let head =
            |name: header::HeaderName| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
        let fault = self.take_fault(&path);
        let content = self.documents.get(&path).cloned();
        let response = match content {
            Some(content) => serve(&content, fault, request),
            None => match fault {
                Some(Fault::Status(..) | Fault::Redirect(_)) => {
                    serve(&Bytes::new(), fault, request)
                }
                _ => plain(StatusCode::NOT_FOUND, Body::empty()),
            },
        };
        let status = response.status().as_u16();
        let (range, if_range) = (head(header::RANGE), head(header::IF_RANGE));
        self.asked.push(Asked { path: path.clone(), range, if_range, status });
        if let Some(next) = self.next.remove(&path) {
            self.documents.insert(path, next);
        }
        response
    }
}

fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn serve(content: &Bytes, fault: Option<Fault>, request: &Request) -> Response {
    let whole = |content: &Bytes| plain(StatusCode::OK, Body::full(content.clone()));
    let headers = request.headers();
    let mut etag = format!("\"{}\"", Digest::sha256(content).hex());
    let half = content.slice(..content.len() / 2);
    let mut offset = 0;
    match fault {
        None => {}
        Some(Fault::Retagged) => etag = etag.replacen('"', "\"again-", 1),
        Some(Fault::Plain) => return whole(content),
        Some(Fault::Half) => return whole(&half),
        Some(Fault::Page) => return whole(&Bytes::from_static(b"<html>Please log in</html>")),
        Some(Fault::WrongPart) => offset = 1,
        Some(Fault::Status(status, after)) => {
            let mut response = plain(StatusCode::from_u16(status).unwrap(), Body::empty());
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            return response;
        }
        Some(Fault::Redirect(to)) => {
            let mut response = plain(StatusCode::FOUND, Body::empty());
            response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
            return response;
        }
        Some(Fault::Promise(length)) => {
            let body = Body::sized_stream(length, stream::pending());
            return plain(StatusCode::OK, body);
        }
        Some(Fault::Cut) => {
            let error = std::io::Error::other("cut");
            let pieces = stream::iter([Ok(half)]).chain(stream::once(async move {
                // The half must be through before the break.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(error)
            }));
            let mut response =
                plain(StatusCode::OK, Body::sized_stream(content.len() as u64, pieces));
            response.headers_mut().insert(header::ETAG, etag.parse().unwrap());
            return response;
        }
    }
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
        return plain(StatusCode::NOT_MODIFIED, Body::empty());
    }
    let from = headers
        .get(header::RANGE)
        .filter(|_| headers.get(header::IF_RANGE).is_some_and(|known| known == etag.as_str()))
        .and_then(|range| {
            range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
    let mut response = match from {
        Some(from) => {
            let from = from - offset;
            let body = Body::full(content.slice(from..));
            let mut response = plain(StatusCode::PARTIAL_CONTENT, body);
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
            response
        }
        None => whole(content),
    };
    response.headers_mut().insert(header::ETAG, etag.parse().unwrap());
    response
}

/// A zip archive of files that are not packed.
fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(common);
        out.extend(name.as_bytes());
        out.extend(content);
    }
    let at = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// A server of feeds, and a folder that is kept up to date from it.
pub(crate) struct Bench {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) mirror: String,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: PathBuf,
    runtime: tokio::runtime::Runtime,
    tasks: Tasks,
    /// Removed with the bench, unless somebody else's folder is used.
    own: Option<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut bench = Self::in_folder(own.path().to_owned());
        bench.own = Some(own);
        bench
    }

    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = Arc::new(Mutex::new(World::good()));
        let tasks = Tasks::default();
        let handler = {
            let world = world.clone();
            handler_fn(move |request| {
                let response = world.lock().answer(&request);
                async move { response }
            })
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = runtime.block_on(bind(address, None, Limits::default())).unwrap();
        let mirror = format!("http://{}", bound.local_addr().unwrap());
        let stop = tasks.shutdown();
        let _guard = runtime.enter();
        tasks.spawn("feeds", async move {
            bound.serve(handler, stop, Duration::ZERO).await.unwrap();
        });
        drop(_guard);
        let clock = Arc::new(ManualClock::new(NOW_MS));
        Self { world, mirror, clock, folder, runtime, tasks, own: None }
    }

    pub(crate) fn generations(&self) -> Arc<Generations> {
        Arc::new(Generations::open(&self.folder).unwrap())
    }

    pub(crate) fn updater(&self, feeds: &[&str], mirror: &str) -> Updater {
        let config = UpdaterConfig {
            folder: self.folder.clone(),
            feeds: feeds.iter().map(|feed| (*feed).to_owned()).collect(),
            mirror: Some(mirror.to_owned()),
            authority: None,
        };
        let pause = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
        let downloader = Downloader::new(None, true).unwrap().with_pause(pause);
        let clock = self.clock.clone();
        Updater::new(config, self.generations(), clock, self.tasks.clone())
            .unwrap()
            .with_downloader(downloader)
    }

    pub(crate) fn try_update(&self, full: bool) -> anyhow::Result<UpdateReport> {
        self.update_from(&FEEDS, &self.mirror, full)
    }

    pub(crate) fn update_from(
        &self,
        feeds: &[&str],
        mirror: &str,
        full: bool,
    ) -> anyhow::Result<UpdateReport> {
        self.clock.advance(Duration::from_secs(60));
        self.world.lock().asked.clear();
        let updater = self.updater(feeds, mirror);
        self.runtime.block_on(updater.update(full))
    }

    #[track_caller]
    pub(crate) fn update(&self) -> UpdateReport {
        self.try_update(false).unwrap()
    }

    #[track_caller]
    pub(crate) fn database(&self) -> Arc<Database> {
        let database = self.generations().current().unwrap().unwrap();
        database.verify().unwrap();
        database
    }

    /// `alpine 4, debian 66`: advisories by source.
    #[track_caller]
    pub(crate) fn held(&self) -> String {
        let database = self.database();
        let mut held: Vec<String> = database
            .sources()
            .iter()
            .filter(|source| source.advisories > 0)
            .map(|source| format!("{} {}", source.name, source.advisories))
            .collect();
        held.sort();
        held.join(", ")
    }

    pub(crate) fn incoming(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("incoming")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runtime.block_on(self.tasks.drain(Duration::ZERO));
    }
}

/// `osv:go: changes 2`, only of feeds that did something.
pub(crate) fn told(report: &UpdateReport) -> Vec<String> {
    let lines = report.feeds.iter().filter_map(|(name, outcome)| match outcome {
        FeedOutcome::Unchanged => None,
        FeedOutcome::Updated { read, skipped, incremental } => {
            let how = if *incremental { "changes" } else { "all" };
            let skipped = if *skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
            Some(format!("{name}: {how} {read}{skipped}"))
        }
        FeedOutcome::Failed { why } => Some(format!("{name}: FAILED {why}")),
    });
    lines.collect()
}
