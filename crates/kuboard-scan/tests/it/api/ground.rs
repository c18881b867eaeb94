//! An engine with a catalogue, its APIs on a port, and a server with layers.

use std::{
    collections::HashMap,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kuboard_catalog::Catalog;
use kuboard_feeds::{
    Sink,
    database::{Builder, Database},
};
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{
    Clock, SystemClock, Tasks,
    http::{Body, Handler, Limits, Request, Response, bind, handler_fn},
};
use kuboard_scan::{
    api::Settings,
    engine::{Engine, EngineMetrics, EngineParts, Exclusions, Passing, Repositories},
    index::Indexers,
    inspect::Inspector,
    inventories::CatalogInventories,
    source::{Contents, SourceError},
};
use kuboard_testkit::archive::Tar;
use kuboard_vuln::{
    Advisory, Affected, Bound, Ecosystem, Qualifiers, Range, Rating, Reference, SeverityScore,
    Status,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) struct Ground {
    pub(crate) engine: Arc<Engine>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) tasks: Tasks,
}

struct NoRepositories;

impl Repositories for NoRepositories {
    fn contents(
        &self,
        _: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError> {
        Err(SourceError::invalid(format!("{repository} is not here")))
    }
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path()).await;
        Self { engine, folder, tasks: Tasks::default() }
    }

    /// Serves on a port of its own; the base address.
    pub(crate) async fn serve(&self, handler: Arc<dyn Handler>) -> String {
        let addr = serve(&self.tasks, handler).await;
        format!("http://{addr}")
    }

    /// A generation of advisories with openssl fixed in that version, and more as said.
    pub(crate) fn database(
        &self,
        previous: Option<&Arc<Database>>,
        generation: u64,
        advisories: &[Advisory],
    ) -> Arc<Database> {
        let mut builder = Builder::new(self.folder.path(), previous.cloned()).unwrap();
        for source in ["debian", "osv:npm", "nvd"] {
            builder.source(source, 1_700_000_000_000, "print");
        }
        for advisory in advisories {
            builder.advisory(advisory.clone());
        }
        let path = self.folder.path().join(format!("{generation}.kbdb"));
        builder.finish(&path, generation, 1_700_000_000_000).unwrap();
        Database::open(&path).unwrap()
    }
}

/// An engine as a process would have it over this folder.
pub(crate) async fn engine(folder: &Path) -> Arc<Engine> {
    let catalog = Catalog::open_file(&folder.join("catalog.db")).await.unwrap();
    let tasks = Tasks::default();
    let indexers = Indexers::all();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let inventories = CatalogInventories {
        catalog: catalog.clone(),
        indexer: indexers.version(),
        clock: clock.clone(),
    };
    let inspector = Inspector {
        indexers,
        settings: Arc::default(),
        inventories: Arc::new(inventories),
        tasks: tasks.clone(),
        parallel: 2,
    };
    let (passing, _) = Passing::new(inspector.clone(), tasks.clone());
    let parts = EngineParts {
        catalog,
        inspector,
        scanner: None,
        repositories: Arc::new(NoRepositories),
        exclusions: Exclusions::default(),
        receivers: Vec::new(),
        clock,
        tasks,
        metrics: EngineMetrics::new(&prometheus::Registry::new()).unwrap(),
    };
    Engine::new(parts, passing)
}

async fn serve(tasks: &Tasks, handler: Arc<dyn Handler>) -> SocketAddr {
    let bound = bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
    let addr = bound.local_addr().unwrap();
    let stop = tasks.shutdown();
    tasks.spawn("server", async move {
        bound.serve(handler, stop, Duration::from_secs(5)).await.unwrap();
    });
    addr
}

/// Settings for tests: everything is on the loopback network.
pub(crate) fn settings() -> Settings {
    Settings { open: true, allow_private_addresses: true, ..Settings::default() }
}

/// An advisory on one package.
pub(crate) fn advisory(source: &str, id: &str, package: &str, word: &str) -> Advisory {
    let is_debian = source == "debian";
    let fixed = if is_debian { "3.0.15-1~deb12u1" } else { "4.19.2" };
    Advisory {
        source: source.to_owned(),
        id: id.to_owned(),
        details: format!("what {id} is about"),
        published_ms: Some(1_600_000_000_000),
        references: vec![Reference {
            kind: String::new(),
            url: format!("https://example.com/{id}"),
        }],
        severities: vec![SeverityScore {
            source: source.to_owned(),
            rating: Rating::Word,
            value: word.to_owned(),
        }],
        affected: vec![Affected {
            namespace: if is_debian { "debian:12" } else { "npm" }.to_owned(),
            ecosystem: if is_debian { Ecosystem::Deb } else { Ecosystem::Npm },
            package: package.to_owned(),
            by_source: is_debian,
            status: Status::Fixed,
            ranges: vec![Range { introduced: None, until: Bound::Fixed(fixed.to_owned()) }],
            versions: Vec::new(),
            qualifiers: Qualifiers::default(),
            severities: Vec::new(),
            symbols: Vec::new(),
        }],
        ..Advisory::default()
    }
}

/// Debian 12 with openssl.
pub(crate) fn debian_layer() -> Vec<u8> {
    let release = "ID=debian\nVERSION_ID=\"12\"\nNAME=\"Debian GNU/Linux\"\n\
        VERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nPRETTY_NAME=\"Debian 12\"\n";
    let status = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\n\
        Source: openssl\nVersion: 3.0.11-1~deb12u2\nMaintainer: a\nDescription: b\n\n\
        Package: adduser\nStatus: install ok installed\nArchitecture: all\nVersion: 3.134\n\
        Maintainer: a\nDescription: b\n\n";
    layer(&[("etc/os-release", release), ("var/lib/dpkg/status", status)])
}

/// A program for Node with express.
pub(crate) fn node_layer() -> Vec<u8> {
    let package = r#"{"name": "express", "version": "4.17.1", "license": "MIT"}"#;
    layer(&[("app/node_modules/express/package.json", package)])
}

/// A tar archive with these files, compressed with gzip.
pub(crate) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    for (path, content) in files {
        tar.file(path, 0o644, content.as_bytes()).unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.finish().unwrap()).unwrap();
    gzip.finish().unwrap()
}

/// A server of blobs and manifests at `/v2/NAME/…`: with `Authorization: Bearer secret` only.
#[derive(Default)]
pub(crate) struct Layers {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    /// Requests so far.
    pub(crate) asked: AtomicUsize,
}

impl Layers {
    pub(crate) fn add(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.blobs.lock().insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub(crate) fn add_as(&self, name: &str, bytes: &[u8]) {
        self.blobs.lock().insert(name.to_owned(), bytes.to_vec());
    }

    pub(crate) fn handler(self: &Arc<Self>) -> Arc<dyn Handler> {
        let layers = self.clone();
        handler_fn(move |request: Request| {
            let answer = layers.answer(&request);
            async { answer }
        })
    }

    fn answer(&self, request: &Request) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let given = request.headers().get("authorization");
        let given = given.and_then(|value| value.to_str().ok());
        let mut response = Response::default();
        if let Some(target) = request.uri().query().and_then(|q| q.strip_prefix("to=")) {
            *response.status_mut() = http::StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert("location", format!("{target}/{name}").parse().unwrap());
        } else if request.uri().path().starts_with("/v2/")
            && given != Some("Bearer secret")
            && given != Some("Basic dTpw")
        {
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        } else if request.uri().path().starts_with("/open/") && given.is_some() {
            // Somebody's credentials went where they don't belong.
            *response.status_mut() = http::StatusCode::CONFLICT;
        } else if let Some(bytes) = self.blobs.lock().get(name) {
            *response.body_mut() = Body::full(bytes.clone());
        } else {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response
    }
}

/// A manifest for Clair.
pub(crate) fn manifest(base: &str, hash: &Digest, layers: &[Digest]) -> Value {
    let layer = |digest: &Digest| {
        json!({
            "hash": digest,
            "uri": format!("{base}/v2/a/blobs/{digest}"),
            "headers": {"Authorization": ["Bearer secret"], "Host": ["elsewhere"]},
        })
    };
    json!({"hash": hash, "layers": layers.iter().map(layer).collect::<Vec<_>>()})
}

/// What came back.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {:?}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

/// Asks `METHOD URL` with these headers and this body.
pub(crate) async fn ask(what: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Got {
    let (method, url) = what.split_once(' ').unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let response = request.send().await.unwrap();
    Got {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}
