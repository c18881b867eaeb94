//! The hosted half, driven request by request over a real catalogue and a real spool.

mod blobs;
mod collection;
mod lists;
mod manifests;
mod script;
mod uploads;
mod wire;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use kuboard_catalog::Catalog;
use kuboard_oci::{Digest, RepositoryName, media_type};
use kuboard_registry::server::{ApiError, Query, route};
use kuboard_rt::{
    BoxFuture, ManualClock, Tasks,
    http::{Body, Request, Response},
};
use kuboard_store::{BlobStore, DiskStore, Spool};
use prometheus::{IntCounterVec, Opts, Registry};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Hosted, HostedMetrics, HostedParts, MountSource, Mountable};
use crate::manifest_cache::ManifestCache;

/// How long content that nothing refers to is kept, here.
const LEASE: Duration = Duration::from_secs(900);
const NOW: i64 = 1_700_000_000_000;

/// A registry of its own in a folder of its own.
struct Bench {
    hosted: Arc<Hosted>,
    clock: Arc<ManualClock>,
    store: Arc<dyn BlobStore>,
    catalog: Catalog,
    mounts: Mounts,
    folder: Arc<TempDir>,
}

/// What the caller of a test may pull, and what is cached for it.
#[derive(Default)]
struct Mounts {
    unreadable: Vec<&'static str>,
    cached: HashMap<(&'static str, Digest), Bytes>,
}

impl MountSource for Mounts {
    fn may_pull(&self, repository: &str) -> bool {
        !self.unreadable.contains(&repository)
    }

    fn cached<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Option<Mountable>> {
        let found =
            self.cached.iter().find(|((name, known), _)| *name == repository && known == digest);
        let found = found.map(|(_, bytes)| bytes.clone());
        Box::pin(async move {
            let bytes = found?;
            Some(Mountable { size: bytes.len() as u64, body: Body::full(bytes) })
        })
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of(answer: Result<Response, ApiError>) -> Self {
        let (parts, body) = answer.unwrap_or_else(ApiError::into_response).into_parts();
        let body = body.collect().await.unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// All values of a header, joined by commas; empty if there is none.
    fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join(",")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a refusal; empty for anything else.
    fn code(&self) -> String {
        let body = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Bench {
    async fn new() -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()), true).await
    }

    /// As a process that shares its catalogue with others.
    async fn sharing() -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()), false).await
    }

    async fn open(folder: Arc<TempDir>, exclusive: bool) -> Self {
        let store = Arc::new(DiskStore::open(folder.path().join("blobs")).unwrap());
        Self::over(store, folder, exclusive).await
    }

    async fn over(store: Arc<dyn BlobStore>, folder: Arc<TempDir>, exclusive: bool) -> Self {
        let catalog = Catalog::open_file(&folder.path().join("catalog.db")).await.unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let pulls =
            IntCounterVec::new(Opts::new("pulls", "Pulls."), &["registry", "kind", "result"]);
        let hosted = Hosted::new(HostedParts {
            store: store.clone(),
            spool: Spool::open(folder.path().join("uploads")).unwrap(),
            catalog: catalog.clone(),
            manifests: Arc::new(ManifestCache::new(16 << 20)),
            clock: clock.clone(),
            tasks: Tasks::default(),
            lease: LEASE,
            upload_ttl: Duration::from_secs(24 * 3600),
            exclusive,
            observers: crate::observer::Observers::default(),
            metrics: HostedMetrics::new(&Registry::new(), &pulls.unwrap()).unwrap(),
        });
        Self { hosted, clock, store, catalog, mounts: Mounts::default(), folder }
    }

    /// The same folder after a restart.
    async fn restart(self) -> Self {
        let Self { hosted, folder, catalog, .. } = self;
        let name = Arc::downgrade(&hosted);
        drop(hosted);
        assert!(name.upgrade().is_none(), "something still uses the registry");
        catalog.close().await;
        Self::open(folder, true).await
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Answer::of(self.answer(method, uri, headers, body).await).await
    }

    async fn answer(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let mut request: Request = http::Request::new(Bytes::copy_from_slice(body).into());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query())?;
        self.hosted.handle(&route(&path)?, &query, request, &self.mounts).await
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let uri = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.ask("POST", &uri, &[], bytes).await.status, 201);
        digest
    }

    async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Answer {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let kind = manifest["mediaType"].as_str().unwrap_or(media_type::OCI_MANIFEST).to_owned();
        let uri = format!("/v2/{repository}/manifests/{reference}");
        self.ask("PUT", &uri, &[("content-type", &kind)], &bytes).await
    }

    /// Pushes the blobs of an image, then its manifest; the manifest's digest.
    async fn push_image(&self, repository: &str, tag: &str, layers: &[&str]) -> Digest {
        for blob in layers.iter().chain([&"{}"]) {
            self.push_blob(repository, blob.as_bytes()).await;
        }
        let manifest = image(layers);
        let answer = self.push_manifest(repository, tag, &manifest).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        digest_of(&manifest)
    }

    /// The status of a HEAD.
    async fn head(&self, uri: &str) -> u16 {
        self.ask("HEAD", uri, &[], b"").await.status
    }

    /// Lets a lease run out, and collects.
    async fn collect_later(&self) -> super::gc::Collected {
        self.clock.advance(LEASE + Duration::from_secs(61));
        self.collect().await
    }

    async fn collect(&self) -> super::gc::Collected {
        use kuboard_rt::Clock;
        self.hosted.collect(self.clock.now_ms(), None).await.unwrap()
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn blob(kind: &str, bytes: &str) -> Value {
    json!({
        "mediaType": kind,
        "digest": Digest::sha256(bytes.as_bytes()),
        "size": bytes.len(),
    })
}

/// An image manifest whose configuration is `{}`.
fn image(layers: &[&str]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| blob(media_type::OCI_LAYER_GZIP, layer)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": blob(media_type::OCI_CONFIG, "{}"),
        "layers": layers,
    })
}

fn index(children: &[&Value]) -> Value {
    let children: Vec<Value> = children.iter().map(|child| descriptor(child)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": children,
    })
}

fn descriptor(manifest: &Value) -> Value {
    json!({
        "mediaType": manifest["mediaType"],
        "digest": digest_of(manifest),
        "size": serde_json::to_vec(manifest).unwrap().len(),
    })
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::sha256(&serde_json::to_vec(manifest).unwrap())
}
