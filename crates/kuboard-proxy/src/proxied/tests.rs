//! The proxied half before a scripted upstream: what crosses the upstream how often, and what
//! clients see of its faults.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode, header};
use kuboard_api::{Config as Settings, Rules};
use kuboard_catalog::Catalog;
use kuboard_registry::server::{Access, AccessConfig, Anonymous, NoKeys};
use kuboard_rt::{
    SystemClock, Tasks,
    http::{Handler, Request, Response},
};
use kuboard_store::{Cache, CacheConfig, DiskStore, Spool};
use kuboard_testkit::{FakeUpstream, Fault, Image, On, image::Blob};

use crate::{Config, Deps, Room, observer::Observers};

/// A registry in a temporary folder before an upstream of its own.
struct Stage {
    upstream: FakeUpstream,
    room: Room,
    handler: Arc<dyn Handler>,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn build(cache_bytes: u64, more: &str) -> Self {
        let upstream = FakeUpstream::start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[[upstream]]\nname = \"up.test\"\nendpoints = [\"{}\"]\n{more}",
            upstream.url()
        );
        let settings = Settings::parse(&text).unwrap();
        let tasks = Tasks::default();
        let clock = Arc::new(SystemClock);
        let store = Arc::new(DiskStore::open(dir.path().join("cache")).unwrap());
        let config = CacheConfig::new(cache_bytes, tasks.clone());
        let access = AccessConfig {
            anonymous: Anonymous::Push,
            htpasswd: None,
            token_key: dir.path().join("token-key.pem"),
            service: "test".to_owned(),
            external_url: None,
        };
        let room = Config {
            rules: Arc::new(Rules::new(&settings).unwrap()),
            lease: Duration::from_secs(900),
            gc_interval: Duration::ZERO,
            untagged: Duration::ZERO,
            exclusive: true,
        };
        let deps = Deps {
            cache: Arc::new(Cache::open(store, config, clock.clone()).await.unwrap()),
            cache_spool: Spool::open(dir.path().join("downloads")).unwrap(),
            hosted: Arc::new(DiskStore::open(dir.path().join("hosted")).unwrap()),
            upload_spool: Spool::open(dir.path().join("uploads")).unwrap(),
            catalog: Catalog::open_file(&dir.path().join("catalog.db")).await.unwrap(),
            access: Arc::new(Access::new(access, Arc::new(NoKeys)).unwrap()),
            credentials: None,
            clock,
            tasks,
            registry: prometheus::Registry::new(),
            observers: Observers::default(),
        };
        let room = room.build(deps).await.unwrap();
        let handler = room.handler();
        Self { upstream, room, handler, _dir: dir }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request: Request = request.body(bytes::Bytes::new().into()).unwrap();
        self.handler.handle(request).await
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[]).await
    }

    /// The blob as one client sees it: whole, or how it failed.
    async fn blob(&self, blob: &Blob) -> String {
        let path = format!("/v2/up.test/app/blobs/{}", blob.digest);
        let response = self.get(&path).await;
        if response.status() != StatusCode::OK {
            return response.status().as_u16().to_string();
        }
        match response.into_body().collect().await {
            Ok(bytes) if bytes == *blob.bytes => "right".to_owned(),
            Ok(_) => "wrong".to_owned(),
            Err(_) => "broken".to_owned(),
        }
    }

    /// Waits until no download is under way.
    async fn settle(&self) {
        while self.room.admin().stats().fills_running > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn cached(&self) -> usize {
        self.room.admin().blobs().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_are_one_download() {
    let stage = Stage::build(1 << 30, "").await;
    let image = Image::oci(1, &[3 << 20]).unwrap();
    stage.upstream.put("app", "v1", &image);
    let layer = &image.layers()[0];
    let seen = futures_util::future::join_all((0..50).map(|_| stage.blob(layer))).await;
    assert!(seen.iter().all(|seen| seen == "right"), "{seen:?}");
    assert_eq!(stage.upstream.count(&On::blobs().method("GET")), 1);
    assert_eq!(stage.upstream.bytes(&On::blobs()), layer.bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_the_blob_cached() {
    let stage = Stage::build(1 << 30, "").await;
    let blob = Blob::random(7, 4 << 20);
    stage.upstream.put_blob(&blob);
    drop(stage.get(&format!("/v2/up.test/app/blobs/{}", blob.digest)).await);
    stage.settle().await;
    assert_eq!(stage.cached(), 1);
    stage.upstream.forget();
    assert_eq!(stage.blob(&blob).await, "right");
    assert_eq!(stage.upstream.count(&On::blobs().method("GET")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_ranges_on_a_miss_and_on_a_hit() {
    let stage = Stage::build(1 << 30, "").await;
    let blob = Blob::random(8, 1 << 20);
    stage.upstream.put_blob(&blob);
    let path = format!("/v2/up.test/app/blobs/{}", blob.digest);
    for round in ["miss", "hit"] {
        for (range, status, expected) in [
            ("bytes=10-19", 206, 10..20),
            ("bytes=-5", 206, (1 << 20) - 5..1 << 20),
            ("bytes=1048570-2000000", 206, 1_048_570..1 << 20),
            ("bytes=1048576-", 416, 0..0),
            ("lines=1-2", 200, 0..1 << 20),
        ] {
            let response = stage.ask(Method::GET, &path, &[("range", range)]).await;
            assert_eq!(response.status().as_u16(), status, "{round} {range}");
            if status != 416 {
                let bytes = response.into_body().collect().await.unwrap();
                assert_eq!(bytes, blob.bytes[expected], "{round} {range}");
            }
        }
    }
    assert_eq!(stage.upstream.count(&On::blobs().method("GET")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_cut_short_and_never_kept() {
    for (name, fault, times, expected) in [
        ("cut once", Fault::Cut { after: 100_000 }, Some(1), "right"),
        ("cut again and again", Fault::Cut { after: 100 }, None, "broken"),
        ("no ranges", Fault::NoRange, None, "right"),
        ("wrong bytes", Fault::WrongBytes, None, "broken"),
        ("404", Fault::status(404), None, "404"),
        ("403", Fault::status(403), None, "403"),
        ("429", Fault::throttled(1), None, "429"),
        ("500", Fault::status(500), None, "502"),
    ] {
        let stage = Stage::build(1 << 30, "").await;
        let blob = Blob::random(9, 1 << 20);
        stage.upstream.put_blob(&blob);
        stage.upstream.fault(On::blobs(), fault, times);
        assert_eq!(stage.blob(&blob).await, expected, "{name}");
        stage.settle().await;
        let kept = if expected == "right" { 1 } else { 0 };
        assert_eq!(stage.cached(), kept, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_without_room_passes_through() {
    let stage = Stage::build(1000, "").await;
    let blob = Blob::random(10, 100_000);
    stage.upstream.put_blob(&blob);
    for _ in 0..2 {
        assert_eq!(stage.blob(&blob).await, "right");
    }
    let path = format!("/v2/up.test/app/blobs/{}", blob.digest);
    let response = stage.ask(Method::GET, &path, &[("range", "bytes=5-9")]).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.into_body().collect().await.unwrap(), blob.bytes[5..10]);
    assert_eq!(stage.cached(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repositorys_blob_needs_the_upstreams_word() {
    let stage = Stage::build(1 << 30, "").await;
    let image = Image::oci(3, &[10_000]).unwrap();
    stage.upstream.put("app", "v1", &image);
    let layer = &image.layers()[0];
    assert_eq!(stage.blob(layer).await, "right");
    stage.settle().await;
    stage.upstream.forget();
    stage.upstream.fault(On::path("/v2/other/"), Fault::status(404), None);
    let other = format!("/v2/up.test/other/blobs/{}", layer.digest);
    assert_eq!(stage.get(&other).await.status(), StatusCode::NOT_FOUND);
    let asked = stage.upstream.requests();
    assert!(asked.iter().any(|asked| asked.method == "HEAD"), "the upstream was asked: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_costs_the_upstream_nothing() {
    let stage = Stage::build(1 << 30, "tagTtlSeconds = 3600\n").await;
    let image = Image::multi_platform(4, &[1000]).unwrap();
    stage.upstream.put("app", "v1", &image);
    let path = "/v2/up.test/app/manifests/v1";
    for (outcome, requests) in [("miss", 1), ("hit", 1), ("hit", 1)] {
        let response = stage.get(path).await;
        assert_eq!(response.headers()["x-kuboard-cache"], outcome);
        assert_eq!(response.into_body().collect().await.unwrap(), image.manifest.to_vec());
        assert_eq!(stage.upstream.requests().len(), requests);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_seen_and_a_dead_upstream_is_bridged() {
    let mut stage = Stage::build(1 << 30, "tagTtlSeconds = 0\nmaxStaleSeconds = 0\n").await;
    let (old, new) = (Image::oci(5, &[10]).unwrap(), Image::oci(6, &[10]).unwrap());
    let path = "/v2/up.test/app/manifests/v1";
    for image in [&old, &new] {
        stage.upstream.put("app", "v1", image);
        let bytes = stage.get(path).await.into_body().collect().await.unwrap();
        assert_eq!(bytes, image.manifest.to_vec());
    }
    stage.upstream.kill();
    let response = stage.get(path).await;
    assert!(response.headers().contains_key(header::WARNING));
    assert_eq!(response.into_body().collect().await.unwrap(), new.manifest.to_vec());
    assert_eq!(stage.get("/v2/up.test/app/manifests/v2").await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_without_a_rule_are_never_dialled() {
    let stage = Stage::build(1 << 30, "allow = [\"team/**\"]\ndeny = [\"team/secret\"]\n").await;
    for (path, expected) in [
        ("/v2/unknown.test/app/manifests/v1", 404),
        ("/v2/app/manifests/v1?ns=unknown.test", 404),
        ("/v2/app/manifests/v1?ns=up.test", 403),
        ("/v2/team/secret/manifests/v1?ns=up.test", 403),
        ("/v2/team/app/manifests/v1?ns=up.test", 404),
    ] {
        assert_eq!(stage.get(path).await.status().as_u16(), expected, "{path}");
    }
    assert_eq!(stage.upstream.requests().len(), 1, "only the last was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_takes_no_writes() {
    let stage = Stage::build(1 << 30, "").await;
    for (method, path) in [
        (Method::POST, "/v2/up.test/app/blobs/uploads/"),
        (Method::PUT, "/v2/up.test/app/manifests/v1"),
        (Method::DELETE, "/v2/up.test/app/manifests/v1"),
    ] {
        let response = stage.ask(method, path, &[]).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}
