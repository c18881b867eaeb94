//! Uploaders against sweeps, at the same digests, over a store that is a set in memory: what was
//! acknowledged is there until it is deleted, and what was deleted is gone in the end.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kuboard_catalog::{Catalog, Kind, ManifestRow, PutOutcome};
use kuboard_oci::Digest;
use tokio::{
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::{
    harness::{World, both},
    script::{check, digest},
};

both![
    an_upload_never_loses_its_bytes_to_a_sweep,
    a_manifest_that_was_stored_keeps_its_blobs,
    a_mounted_blob_keeps_its_bytes,
    a_renewed_lease_keeps_its_blob,
    pushes_deletes_and_sweeps_in_one_repository_do_not_wait_for_each_other,
];

const UPLOADERS: usize = 6;
const SWEEPERS: usize = 2;
const ROUNDS: usize = 40;
const REMOVAL: Duration = Duration::from_millis(3);
const NOW: i64 = 1_000;
const OVER: i64 = 0;
const LATER: i64 = 1_000_000;

#[derive(Default)]
struct Store(Mutex<BTreeSet<Digest>>);

impl Store {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeSet<Digest>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has(&self, digest: &Digest) -> bool {
        self.change(|set| set.contains(digest))
    }
}

/// One of several that push the same few digests, each into a repository of its own.
struct Uploader {
    catalog: Catalog,
    store: Arc<Store>,
    own: String,
    /// Changes with each round, differently for each uploader, so that they meet.
    blob: Digest,
    manifest: Digest,
}

impl Uploader {
    /// As the registry does: first the row, then the bytes.
    async fn upload(&self, repository: &str, digest: &Digest, lease_until_ms: i64) {
        self.catalog.put_blob(repository, Kind::Hosted, digest, 10, lease_until_ms).await.unwrap();
        yield_now().await;
        self.store.change(|set| set.insert(*digest));
    }

    /// Looks several times, with other work between.
    async fn expect(&self, repository: &str, digest: &Digest) {
        for _ in 0..3 {
            assert!(self.store.has(digest), "the bytes of {repository}@{digest} are gone");
            let row = self.catalog.blob(repository, digest).await.unwrap();
            assert!(row.is_some(), "the row of {repository}@{digest} is gone");
        }
    }

    fn row(&self, repository: &str) -> ManifestRow {
        ManifestRow {
            repository: repository.to_owned(),
            kind: Kind::Hosted,
            digest: self.manifest,
            media_type: "image".to_owned(),
            size: 10,
            artifact_type: None,
            subject: None,
            annotations: Default::default(),
            blobs: vec![self.blob],
            children: Vec::new(),
            pushed_at_ms: NOW,
        }
    }
}

type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs `turn` many times in several uploaders beside several sweepers, then sweeps alone.
async fn race(world: World, turn: fn(Uploader) -> Turn) {
    let store = Arc::new(Store::default());
    let running = Arc::new(AtomicUsize::new(UPLOADERS));
    let removed = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..UPLOADERS {
        let (catalog, store, running) = (world.catalog.clone(), store.clone(), running.clone());
        tasks.spawn(async move {
            let _done = Leaving(running);
            for round in 0..ROUNDS {
                let blob = digest(&format!("n{}", (round * (number + 1)) % 3));
                let manifest = digest(&format!("m{}", (round * (number + 1)) % 3));
                let own = format!("own/{number}");
                turn(Uploader {
                    catalog: catalog.clone(),
                    store: store.clone(),
                    own,
                    blob,
                    manifest,
                })
                .await;
            }
        });
    }
    for _ in 0..SWEEPERS {
        let (catalog, store, running) = (world.catalog.clone(), store.clone(), running.clone());
        let removed = removed.clone();
        tasks.spawn(async move {
            while running.load(Ordering::SeqCst) > 0 {
                removed.fetch_add(sweep(&catalog, &store).await, Ordering::SeqCst);
                yield_now().await;
            }
        });
    }
    tasks.join_all().await;
    removed.fetch_add(sweep(&world.catalog, &store).await, Ordering::SeqCst);
    assert!(removed.load(Ordering::SeqCst) > 0, "no sweep found anything: there was no race");
    assert_eq!(store.change(|set| set.clone()), BTreeSet::new(), "left behind in the store");
    check(&world.catalog, "hosted => nothing\n repositories => nothing").await;
}

/// Counts itself out, also when its task panics, so that the sweepers end.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn sweep(catalog: &Catalog, store: &Store) -> u64 {
    let remove = |digest: Digest| async move {
        // As long as an upload takes, so that one can come between whatever lets it.
        sleep(REMOVAL).await;
        store.change(|set| set.remove(&digest));
        Ok::<_, std::io::Error>(())
    };
    catalog.sweep(NOW, 3, remove).await.unwrap().removed
}

async fn an_upload_never_loses_its_bytes_to_a_sweep(world: World) {
    race(world, |up| {
        Box::pin(async move {
            up.upload(&up.own, &up.blob, LATER).await;
            up.expect(&up.own, &up.blob).await;
            assert!(up.catalog.unlink_blob(&up.own, &up.blob).await.unwrap());
        })
    })
    .await;
}

async fn a_manifest_that_was_stored_keeps_its_blobs(world: World) {
    race(world, |up| {
        Box::pin(async move {
            // Leases so short that the sweep takes most blobs from under us, and we are told.
            let put = loop {
                up.upload(&up.own, &up.blob, OVER).await;
                up.upload(&up.own, &up.manifest, OVER).await;
                match up.catalog.put_manifest(&up.row(&up.own), &[]).await.unwrap() {
                    PutOutcome::Stored => break up.manifest,
                    PutOutcome::Missing(missing) => assert!(!missing.is_empty()),
                }
            };
            up.expect(&up.own, &up.blob).await;
            assert!(up.store.has(&put), "the manifest's bytes are gone");
            assert!(up.catalog.delete_manifest(&up.own, &put).await.unwrap());
        })
    })
    .await;
}

async fn a_mounted_blob_keeps_its_bytes(world: World) {
    race(world, |up| {
        Box::pin(async move {
            let from = format!("{}/from", up.own);
            loop {
                up.upload(&from, &up.blob, OVER).await;
                if up.catalog.mount(&from, &up.own, &up.blob, LATER).await.unwrap().is_some() {
                    break;
                }
            }
            up.expect(&up.own, &up.blob).await;
            assert!(up.catalog.unlink_blob(&up.own, &up.blob).await.unwrap());
        })
    })
    .await;
}

async fn a_renewed_lease_keeps_its_blob(world: World) {
    race(world, |up| {
        Box::pin(async move {
            loop {
                up.upload(&up.own, &up.blob, OVER).await;
                if up.catalog.renew_lease(&up.own, &up.blob, LATER).await.unwrap() {
                    break;
                }
            }
            up.expect(&up.own, &up.blob).await;
            assert!(up.catalog.unlink_blob(&up.own, &up.blob).await.unwrap());
        })
    })
    .await;
}

async fn pushes_deletes_and_sweeps_in_one_repository_do_not_wait_for_each_other(world: World) {
    race(world, |up| {
        Box::pin(async move {
            // All in one repository, so that uploaders delete what others push: any call may find
            // nothing, none may fail.
            let shared = "shared";
            up.upload(shared, &up.manifest, LATER).await;
            up.upload(shared, &up.blob, LATER).await;
            let tags = ["v1".parse().unwrap(), "v2".parse().unwrap()];
            let _ = up.catalog.put_manifest(&up.row(shared), &tags).await.unwrap();
            up.catalog.mount(shared, &up.own, &up.blob, OVER).await.unwrap();
            up.catalog.forget_cached(&up.blob).await.unwrap();
            up.catalog.delete_manifest(shared, &up.manifest).await.unwrap();
            up.catalog.delete_untagged(LATER, 5).await.unwrap();
            up.catalog.unlink_blob(shared, &up.blob).await.unwrap();
            up.catalog.unlink_blob(shared, &up.manifest).await.unwrap();
        })
    })
    .await;
}
