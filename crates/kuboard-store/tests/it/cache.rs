//! The cache over real files, and over a store that is slow or fails on demand.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, future::join_all, stream::BoxStream};
use kuboard_oci::{Algorithm, Digest};
use kuboard_rt::{BoxFuture, ManualClock, Tasks};
use kuboard_store::{
    Blob, BlobStore, Cache, CacheConfig, DiskStore, Error, ErrorKind, Found, MemoryStore, Result,
    Spool, Verified, conformance,
};
use tokio::sync::Semaphore;

use crate::place;

const KIB: u64 = 1 << 10;

async fn open(store: Arc<dyn BlobStore>, max_bytes: u64) -> Cache {
    let config = CacheConfig::new(max_bytes, Tasks::default());
    Cache::open(store, config, Arc::new(ManualClock::new(1_000))).await.unwrap()
}

async fn disk(dir: &std::path::Path, max_bytes: u64) -> (Cache, DiskStore) {
    let store = DiskStore::open(dir).unwrap();
    (open(Arc::new(store.clone()), max_bytes).await, store)
}

async fn verified(spool: &Spool, seed: u64, size: u64) -> Verified {
    let bytes = conformance::sample(seed, size as usize);
    conformance::verified(spool, &bytes, Algorithm::Sha256).await.unwrap()
}

async fn put(cache: &Cache, spool: &Spool, seed: u64, size: u64) -> Digest {
    let reservation = cache.reserve(size).expect("can be made room for");
    let verified = verified(spool, seed, size).await;
    let digest = verified.digest();
    cache.insert(verified, reservation).await.unwrap();
    digest
}

async fn touch(cache: &Cache, digest: &Digest) {
    assert!(cache.open_blob(digest).await.unwrap().is_some());
}

async fn stored(store: &dyn BlobStore) -> u64 {
    let sizes: Vec<u64> = store.list().map_ok(|entry| entry.size).try_collect().await.unwrap();
    sizes.into_iter().sum()
}

#[tokio::test]
async fn stays_within_the_bound_and_keeps_what_is_used() {
    let (dir, spool) = place();
    let (cache, store) = disk(dir.path(), 1_000 * KIB).await;
    let hot = put(&cache, &spool, 0, 100 * KIB).await;
    for seed in 1..40 {
        touch(&cache, &hot).await;
        touch(&cache, &hot).await;
        let mut reservation = cache.reserve(100 * KIB).unwrap();
        reservation.ready().await;
        // The space is there before the first byte is.
        assert!(stored(&store).await <= 900 * KIB);
        cache.insert(verified(&spool, seed, 100 * KIB).await, reservation).await.unwrap();
        let stats = cache.stats();
        assert!(stats.used + stats.reserved <= stats.max, "{stats:?}");
        assert_eq!(stored(&store).await, stats.used);
    }
    assert_eq!(cache.stat(&hot).await, Some(100 * KIB));
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.evicted, stats.evicted_bytes), (10, 30, 30 * 100 * KIB));
    let entry = cache.entries().into_iter().find(|entry| entry.digest == hot).unwrap();
    assert_eq!((entry.hits, entry.leased, entry.pinned), (78, false, false));
    assert_eq!(entry.last_used, 1_000);
}

#[tokio::test]
async fn what_is_held_stays_and_a_full_cache_says_so() {
    let (dir, spool) = place();
    let (cache, store) = disk(dir.path(), 300 * KIB).await;
    let pinned = Digest::sha256(&conformance::sample(1, 100 * KIB as usize));
    cache.pin(&pinned);
    assert_eq!(put(&cache, &spool, 1, 100 * KIB).await, pinned);
    let read = put(&cache, &spool, 2, 100 * KIB).await;
    let sent = put(&cache, &spool, 3, 100 * KIB).await;
    let lease = cache.open_blob(&read).await.unwrap().unwrap();
    // The guard becomes a body; the bytes are on their way to somebody.
    let body = cache.open_blob(&sent).await.unwrap().unwrap().body(0..100 * KIB);
    assert_eq!(cache.stats().leased, 2);
    assert!(cache.reserve(1).is_none());
    assert!(cache.reserve(400 * KIB).is_none(), "more than there is");
    assert_eq!(cache.stats().refused, 2);
    assert_eq!(stored(&store).await, 300 * KIB);

    assert_eq!(body.collect().await.unwrap(), conformance::sample(3, 100 * KIB as usize));
    let mut room = cache.reserve(100 * KIB).unwrap();
    room.ready().await;
    assert_eq!(cache.stat(&sent).await, None);
    assert!(cache.reserve(1).is_none());
    drop(lease);
    assert!(room.grow(100 * KIB) && !room.grow(1), "the pinned one stays");
    assert_eq!((room.bytes(), cache.stats().reserved), (200 * KIB, 200 * KIB));
    drop(room);
    assert_eq!(cache.stats().reserved, 0);
    assert!(cache.unpin(&pinned) && !cache.unpin(&pinned));
    assert!(cache.reserve(300 * KIB).is_some());
}

#[tokio::test]
async fn a_blob_longer_than_announced_needs_more_space() {
    let (_dir, spool) = place();
    let cache = open(Arc::new(MemoryStore::new()), 100 * KIB).await;
    let small = cache.reserve(10).unwrap();
    cache.insert(verified(&spool, 1, 60 * KIB).await, small).await.unwrap();
    assert_eq!(cache.stats().used, 60 * KIB);
    let big = verified(&spool, 2, 101 * KIB).await;
    let error = cache.insert(big, cache.reserve(10).unwrap()).await.unwrap_err();
    assert!(error.is_no_space());
    assert_eq!(spool.names().await.unwrap(), []);
    assert_eq!((cache.stats().used, cache.stats().reserved), (60 * KIB, 0));
    // Shorter gives the rest back.
    let wide = cache.reserve(100 * KIB).unwrap();
    cache.insert(verified(&spool, 3, 5).await, wide).await.unwrap();
    assert_eq!((cache.stats().used, cache.stats().reserved), (5, 0));
}

#[tokio::test]
async fn the_index_is_rebuilt_and_the_oldest_leave_first() {
    let (dir, spool) = place();
    let (cache, store) = disk(dir.path(), 500 * KIB).await;
    let mut digests = Vec::new();
    for seed in 0..5 {
        let digest = put(&cache, &spool, seed, 100 * KIB).await;
        let file = fs::File::open(store.path(&digest)).unwrap();
        // Younger ones first, so that the order of names or of making cannot pass for it.
        file.set_modified(UNIX_EPOCH + Duration::from_secs(10_000 - seed)).unwrap();
        digests.push(digest);
    }
    let before: Vec<_> = digests.iter().map(|d| fs::metadata(store.path(d)).unwrap()).collect();
    for digest in &digests {
        touch(&cache, digest).await;
    }
    for (digest, before) in digests.iter().zip(before) {
        let after = fs::metadata(store.path(digest)).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "no write for a read");
    }
    drop(cache);
    let (cache, store) = disk(dir.path(), 250 * KIB).await;
    assert_eq!(cache.stats().used, 500 * KIB, "nothing was evicted before pins are known");
    assert_eq!(cache.entries()[0].last_used, 10_000_000);
    cache.pin(&digests[4]);
    assert!(cache.trim().await);
    let mut left: Vec<_> = cache.entries().into_iter().map(|entry| entry.digest).collect();
    left.sort_unstable();
    let mut wanted = vec![digests[0], digests[4]];
    wanted.sort_unstable();
    assert_eq!(left, wanted);
    assert_eq!(stored(&store).await, 200 * KIB);
    for digest in &digests[..4] {
        cache.pin(digest);
    }
    assert!(cache.trim().await, "within the bound although all is pinned");
}

#[tokio::test]
async fn removed_and_vanished_blobs_are_misses_and_readers_go_on() {
    let (dir, spool) = place();
    let (cache, store) = disk(dir.path(), 500 * KIB).await;
    let digest = put(&cache, &spool, 1, 100 * KIB).await;
    cache.pin(&digest);
    let reader = cache.open_blob(&digest).await.unwrap().unwrap();
    assert!(cache.remove(&digest).await.unwrap(), "an order is an order");
    assert!(!cache.remove(&digest).await.unwrap());
    assert!(cache.open_blob(&digest).await.unwrap().is_none());
    assert_eq!(cache.stats().used, 0);
    assert_eq!(put(&cache, &spool, 1, 100 * KIB).await, digest);
    let bytes = conformance::sample(1, 100 * KIB as usize);
    assert_eq!(reader.body(0..100 * KIB).collect().await.unwrap(), bytes);
    assert!(cache.entries()[0].pinned, "the pin outlived the blob");

    // Somebody removes a file that was never opened.
    let other = put(&cache, &spool, 2, 10).await;
    fs::remove_file(store.path(&other)).unwrap();
    assert_eq!(cache.stat(&other).await, Some(10));
    assert!(cache.open_blob(&other).await.unwrap().is_none());
    assert_eq!(cache.stat(&other).await, None);
    assert_eq!(cache.stats().used, 100 * KIB);
    assert_eq!((cache.stats().hits, cache.stats().misses), (2, 1));
}

#[tokio::test]
async fn figures_are_shown() {
    let (_dir, spool) = place();
    let cache = open(Arc::new(MemoryStore::new()), 1_000).await;
    let metrics = kuboard_rt::metrics::Metrics::new();
    cache.metrics().register(metrics.registry()).unwrap();
    assert!(cache.metrics().register(metrics.registry()).is_err());
    put(&cache, &spool, 1, 600).await;
    let mut reservation = cache.reserve(700).unwrap();
    reservation.ready().await;
    assert!(cache.reserve(301).is_none());
    let text = metrics.encode();
    for line in [
        "registry_storage_used_bytes 0",
        "registry_storage_limit_bytes 1000",
        "registry_storage_reserved_bytes 700",
        "registry_storage_blobs 0",
        "registry_storage_refusals_total 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} not in\n{text}");
    }
}

/// A store in memory whose removals wait for a word, or fail.
struct Moody {
    store: MemoryStore,
    removals: Semaphore,
    failing: AtomicBool,
}

impl Moody {
    fn new() -> Arc<Moody> {
        let (store, removals) = (MemoryStore::new(), Semaphore::new(0));
        Arc::new(Moody { store, removals, failing: AtomicBool::new(false) })
    }
}

impl BlobStore for Moody {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        self.store.stat(digest)
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>> {
        self.store.open(digest)
    }

    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>> {
        self.store.publish(verified)
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.removals.acquire().await.unwrap().forget();
            if self.failing.load(Ordering::SeqCst) {
                // Any error will do; this one can be made from outside.
                return Err(no_such_folder());
            }
            self.store.remove(digest).await
        })
    }

    fn walk(&self) -> BoxStream<'_, Result<Found>> {
        self.store.walk()
    }

    fn describe(&self) -> String {
        "moody".to_owned()
    }
}

fn no_such_folder() -> Error {
    Spool::open("/dev/null/spool").err().unwrap()
}

#[tokio::test]
async fn a_blob_that_comes_back_while_it_leaves_is_not_lost() {
    let (_dir, spool) = place();
    let store = Moody::new();
    let cache = open(store.clone(), 100).await;
    let digest = put(&cache, &spool, 1, 60).await;
    // Evicts it; the removal waits.
    let mut space = cache.reserve(100).unwrap();
    assert!(cache.open_blob(&digest).await.unwrap().is_none(), "out of the index at once");
    let again = verified(&spool, 1, 60).await;
    let work = async {
        // Both wait for the removal.
        space.ready().await;
        drop(space);
        let reservation = cache.reserve(60).unwrap();
        cache.insert(again, reservation).await.unwrap();
    };
    let let_go = async {
        tokio::task::yield_now().await;
        store.removals.add_permits(1);
    };
    tokio::join!(work, let_go);
    assert_eq!(cache.open_blob(&digest).await.unwrap().unwrap().size, 60);

    // Without waiting for the space: the publication itself waits.
    let space = cache.reserve(50).unwrap();
    drop(space);
    let again = verified(&spool, 1, 60).await;
    let reservation = cache.reserve(60).unwrap();
    let insert = cache.insert(again, reservation);
    let let_go = async {
        tokio::task::yield_now().await;
        assert_eq!(cache.stat(&digest).await, None, "not before the old one has left");
        store.removals.add_permits(1);
    };
    let (inserted, ()) = tokio::join!(insert, let_go);
    inserted.unwrap();
    assert_eq!(cache.open_blob(&digest).await.unwrap().unwrap().size, 60);
    assert_eq!(stored(&*store).await, 60);
}

#[tokio::test]
async fn what_cannot_be_removed_stays_in_the_books() {
    let (_dir, spool) = place();
    let store = Moody::new();
    let cache = open(store.clone(), 100).await;
    let digest = put(&cache, &spool, 1, 60).await;
    store.failing.store(true, Ordering::SeqCst);
    store.removals.add_permits(2);
    let mut space = cache.reserve(70).unwrap();
    space.ready().await;
    assert_eq!(cache.stat(&digest).await, Some(60));
    assert_eq!(cache.stats().evicted, 0);
    drop(space);
    let error = cache.remove(&digest).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Io);
    assert_eq!((cache.stats().used, cache.stats().entries), (60, 1));
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_an_insertion() {
    let (_dir, spool) = place();
    let store = Moody::new();
    let tasks = Tasks::default();
    let config = CacheConfig::new(100, tasks.clone());
    let cache = Cache::open(store.clone(), config, Arc::new(ManualClock::new(0))).await.unwrap();
    let first = put(&cache, &spool, 1, 60).await;
    let reservation = cache.reserve(80).unwrap();
    let second = verified(&spool, 2, 80).await;
    let digest = second.digest();
    {
        let mut insert = std::pin::pin!(cache.insert(second, reservation));
        let polled = futures_util::poll!(insert.as_mut());
        assert!(polled.is_pending(), "waits for {first} to leave");
    }
    store.removals.add_permits(1);
    tasks.drain(Duration::from_secs(60)).await;
    assert_eq!(cache.stat(&digest).await, Some(80));
    assert_eq!(stored(&*store).await, 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn books_and_files_agree_after_a_storm() {
    let (dir, spool) = place();
    let (cache, store) = disk(dir.path(), 400 * KIB).await;
    let blobs: Vec<Bytes> =
        (0..30).map(|seed| conformance::sample(seed, (20 + seed as usize) << 10)).collect();
    let work = (0..8_usize).map(|worker| {
        let (cache, spool, blobs) = (&cache, &spool, &blobs);
        async move {
            for round in 0..40_usize {
                let bytes = &blobs[(worker * 7 + round * round) % blobs.len()];
                let digest = Digest::sha256(bytes);
                if let Some(leased) = cache.open_blob(&digest).await.unwrap() {
                    let size = leased.size;
                    assert_eq!(leased.body(0..size).collect().await.unwrap(), *bytes);
                } else if round % 9 == 8 {
                    cache.remove(&digest).await.unwrap();
                } else if let Some(reservation) = cache.reserve(bytes.len() as u64) {
                    let verified = conformance::verified(spool, bytes, Algorithm::Sha256).await;
                    cache.insert(verified.unwrap(), reservation).await.unwrap();
                }
                let stats = cache.stats();
                assert!(stats.used + stats.reserved <= stats.max, "{stats:?}");
            }
        }
    });
    join_all(work).await;
    assert!(cache.trim().await);
    let stats = cache.stats();
    assert_eq!((stats.reserved, stats.leased), (0, 0), "{stats:?}");
    for entry in cache.entries() {
        let leased = cache.open_blob(&entry.digest).await.unwrap();
        assert!(leased.is_some_and(|leased| leased.size == entry.size), "{entry:?}");
    }
    assert_eq!(stored(&store).await, stats.used);
    assert_eq!(spool.names().await.unwrap(), []);
}
