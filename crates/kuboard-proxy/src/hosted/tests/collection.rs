//! The collector: what it takes, what it leaves, and that it never takes what a push relies on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::{future::join_all, stream::BoxStream};
use kuboard_oci::Digest;
use kuboard_rt::{BoxFuture, Clock};
use kuboard_store::{Blob, BlobStore, Found, MemoryStore, Result, Verified};
use serde_json::Value;

use super::{Bench, LEASE, digest_of, image, script::run};
use crate::hosted::Hosted;

#[tokio::test]
async fn leases_hold_what_nothing_refers_to() {
    let bench = Bench::new().await;
    let (held, loose) = (Digest::sha256(b"layer"), bench.push_blob("a", b"loose").await);
    let manifest = bench.push_image("a", "v", &["layer"]).await;
    let uri = |digest: &Digest| format!("/v2/a/blobs/{digest}");
    assert_eq!(bench.collect().await, super::super::gc::Collected::default());
    assert_eq!(bench.head(&uri(&loose)).await, 200);

    // Whoever is told that it is there may rely on it for most of a lease.
    bench.clock.advance(LEASE / 2);
    assert_eq!(bench.head(&uri(&loose)).await, 200);
    bench.clock.advance(LEASE * 2 / 3);
    bench.collect().await;
    assert_eq!(bench.head(&uri(&loose)).await, 200);

    let collected = bench.collect_later().await;
    assert_eq!((collected.removed, collected.bytes), (1, 5));
    assert_eq!(bench.head(&uri(&loose)).await, 404);
    assert_eq!(bench.store.stat(&loose).await.unwrap(), None);
    // What the manifest refers to stays, and so does the manifest.
    assert_eq!(bench.head(&uri(&held)).await, 200);
    assert_eq!(bench.ask("GET", "/v2/a/manifests/v", &[], b"").await.status, 200);

    bench.ask("DELETE", &format!("/v2/a/manifests/{manifest}"), &[], b"").await;
    bench.collect_later().await;
    for digest in [held, manifest, Digest::sha256(b"{}")] {
        assert_eq!(bench.store.stat(&digest).await.unwrap(), None);
    }
    run(&bench, "GET /v2/a/tags/list => 404 NAME_UNKNOWN").await;
}

#[tokio::test]
async fn bytes_stay_while_any_repository_has_them() {
    let bench = Bench::new().await;
    bench.push_image("a", "v", &["layer"]).await;
    let digest = bench.push_image("b", "v", &["layer"]).await;
    bench.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await;
    bench.ask("DELETE", &format!("/v2/a/blobs/{}", Digest::sha256(b"layer")), &[], b"").await;
    assert_eq!(bench.collect_later().await.removed, 0);
    readable(&bench, "b", &image(&["layer"])).await;
}

/// Not even by its digest as a blob can a manifest lose its bytes.
#[tokio::test]
async fn a_manifest_keeps_its_own_bytes() {
    let bench = Bench::new().await;
    let digest = bench.push_image("a", "v", &["layer"]).await;
    bench.ask("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"").await;
    bench.collect_later().await;
    bench.collect_later().await;
    readable(&bench, "a", &image(&["layer"])).await;
}

#[tokio::test]
async fn untagged_manifests_go_when_asked_for() {
    let bench = Bench::new().await;
    let old = bench.push_image("a", "v", &["old"]).await;
    assert_eq!(bench.head(&format!("/v2/a/manifests/{old}")).await, 200);
    bench.push_image("a", "v", &["new"]).await;
    bench.clock.advance(LEASE * 2);
    let now = bench.clock.now_ms();
    let collected = bench.hosted.collect(now, Some(now)).await.unwrap();
    assert_eq!(collected.untagged, 1);
    assert_eq!(bench.head(&format!("/v2/a/manifests/{old}")).await, 404);
    readable(&bench, "a", &image(&["new"])).await;
}

/// Whether an image is there with all it consists of.
async fn readable(bench: &Bench, repository: &str, manifest: &Value) {
    let uri = format!("/v2/{repository}/manifests/{}", digest_of(manifest));
    let got = bench.ask("GET", &uri, &[], b"").await;
    assert_eq!((got.status, got.json()), (200, manifest.clone()), "{repository}");
    let blobs = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
    for blob in blobs {
        let digest = blob["digest"].as_str().unwrap();
        let got = bench.ask("GET", &format!("/v2/{repository}/blobs/{digest}"), &[], b"").await;
        assert_eq!(got.status, 200, "{repository} {digest}");
        assert_eq!(Digest::sha256(&got.body).to_string(), digest);
    }
}

/// A store with a collection just before, or just after, each publication.
#[derive(Default)]
struct Interrupted {
    inner: MemoryStore,
    hosted: OnceLock<Weak<Hosted>>,
    before: bool,
}

impl Interrupted {
    async fn collect_if(&self, wanted: bool) {
        if let Some(hosted) = self.hosted.get().and_then(Weak::upgrade).filter(|_| wanted) {
            hosted.collect(hosted.clock.now_ms(), None).await.unwrap();
        }
    }
}

impl BlobStore for Interrupted {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        self.inner.stat(digest)
    }
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>> {
        self.inner.open(digest)
    }
    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.collect_if(self.before).await;
            self.inner.publish(verified).await?;
            self.collect_if(!self.before).await;
            Ok(())
        })
    }
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        self.inner.remove(digest)
    }
    fn walk(&self) -> BoxStream<'_, Result<Found>> {
        self.inner.walk()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Content that is due for collection is pushed again, and the collector comes in between.
#[tokio::test]
async fn what_is_pushed_anew_is_not_collected_as_old() {
    for before in [true, false] {
        let store = Arc::new(Interrupted { before, ..Interrupted::default() });
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let bench = Bench::over(store.clone(), folder, true).await;
        for _ in 0..2 {
            let digest = bench.push_image("a", "v", &["layer"]).await;
            readable(&bench, "a", &image(&["layer"])).await;
            bench.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await;
            bench.clock.advance(LEASE * 2);
            // In the second round the old content is due while the new one is pushed.
            store.hosted.get_or_init(|| Arc::downgrade(&bench.hosted));
        }
        bench.collect().await;
        assert_eq!(bench.store.stat(&digest_of(&image(&["layer"]))).await.unwrap(), None);
    }
}

const PUSHERS: usize = 6;
const PUSHES: usize = 24;

/// What pushers and collector tell each other.
#[derive(Default)]
struct Progress {
    done: [AtomicU64; PUSHERS],
    over: AtomicBool,
    failed: AtomicU64,
}

/// Blobs shared between pushes are collected, if at all, in the moments between "it is there" and
/// the manifest that refers to them. Time passes (a quarter of a lease at once) whenever each
/// pusher has come further, so that no push outlives a lease, yet leases run out all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_never_lose_to_the_collector() {
    for bench in [Bench::new().await, Bench::sharing().await] {
        let bench = Arc::new(bench);
        let progress = Arc::new(Progress::default());
        let collector = collect_all_the_while(&bench, &progress);
        let pushers = async {
            join_all((0..PUSHERS).map(|pusher| push_all(&bench, &progress, pusher))).await;
            progress.over.store(true, Ordering::SeqCst);
        };
        let (removed, ()) = tokio::join!(collector, pushers);
        assert_eq!(progress.failed.load(Ordering::SeqCst), 0, "pushes failed");
        assert!(removed > 0, "the collector had nothing to do: this test shows nothing");
        // In the end everything can go, and everything does.
        bench.collect_later().await;
        bench.collect_later().await;
        let left = bench.catalog.hosted_digests(None, 1000).await.unwrap();
        for row in left {
            assert!(bench.store.stat(&row.digest).await.unwrap().is_some(), "{}", row.digest);
        }
    }
}

async fn collect_all_the_while(bench: &Bench, progress: &Progress) -> u64 {
    let done = || progress.done.each_ref().map(|done| done.load(Ordering::SeqCst));
    let (mut removed, mut seen) = (0, done());
    while !progress.over.load(Ordering::SeqCst) {
        let now = done();
        let all_moved =
            now.iter().zip(&seen).all(|(now, seen)| now > seen || *now == PUSHES as u64);
        if all_moved {
            bench.clock.advance(LEASE / 4);
            seen = now;
        }
        removed += bench.collect().await.removed;
        tokio::task::yield_now().await;
    }
    removed
}

async fn push_all(bench: &Bench, progress: &Progress, pusher: usize) {
    let repository = format!("team/app{}", pusher % 3);
    let mut before: Option<Value> = None;
    for push in 0..PUSHES {
        let shared: BTreeSet<String> =
            [push % 5, (push + pusher) % 7].map(|n| format!("shared layer {n}")).into();
        let own = format!("layer {push} of {pusher}");
        let layers: Vec<&str> = shared.iter().map(String::as_str).chain([own.as_str()]).collect();
        let manifest = image(&layers);
        for blob in layers.iter().chain([&"{}"]) {
            let digest = Digest::sha256(blob.as_bytes());
            if bench.head(&format!("/v2/{repository}/blobs/{digest}")).await != 200 {
                bench.push_blob(&repository, blob.as_bytes()).await;
            }
        }
        let answer = bench.push_manifest(&repository, &format!("t{pusher}"), &manifest).await;
        if answer.status == 201 {
            readable(bench, &repository, &manifest).await;
        } else {
            progress.failed.fetch_add(1, Ordering::SeqCst);
        }
        // The image before goes, so that its layers are up for collection.
        if let Some(before) = before.replace(manifest) {
            let uri = format!("/v2/{repository}/manifests/{}", digest_of(&before));
            bench.ask("DELETE", &uri, &[], b"").await;
        }
        progress.done[pusher].fetch_add(1, Ordering::SeqCst);
    }
}
