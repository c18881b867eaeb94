//! Checking stores that somebody has damaged.

use std::{fs, path::Path, sync::Arc};

use kuboard_oci::{Algorithm, Digest};
use kuboard_store::{
    BlobStore, Damage, DiskStore, FsckOptions, MemoryStore, ObjectStore, Spool, conformance, fsck,
    verify,
};

use crate::place;

async fn publish(store: &dyn BlobStore, spool: &Spool, seed: u64, length: usize) -> Digest {
    let bytes = conformance::sample(seed, length);
    let algorithm = Algorithm::ALL[seed as usize % 2];
    let verified = conformance::verified(spool, &bytes, algorithm).await.unwrap();
    let digest = verified.digest();
    store.publish(verified).await.unwrap();
    digest
}

/// Never in place: a map of the file may be open.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, path).unwrap();
}

#[tokio::test]
async fn whole_stores_are_clean() {
    let (dir, spool) = place();
    let objects = Arc::new(object_store::memory::InMemory::new());
    let stores: [Arc<dyn BlobStore>; 3] = [
        Arc::new(DiskStore::open(dir.path()).unwrap()),
        Arc::new(MemoryStore::new()),
        Arc::new(ObjectStore::new(objects, "x").unwrap()),
    ];
    for store in stores {
        for (seed, length) in [(0, 0), (1, 1), (2, 3 << 20), (3, 100_000)] {
            let digest = publish(&*store, &spool, seed, length).await;
            let blob = store.open(&digest).await.unwrap().unwrap();
            assert_eq!(verify(&blob).await.unwrap(), digest);
        }
        for parallel in [0, 1, 16] {
            let mut told = Vec::new();
            let progress = |progress: &_| told.push(*progress);
            let report = fsck(&*store, FsckOptions { parallel }, progress).await.unwrap();
            assert!(report.is_clean(), "{}: {report:?}", store.describe());
            assert_eq!((report.checked, report.bytes), (4, 1 + (3 << 20) + 100_000));
            assert_eq!(told.len(), 4);
            assert!(told.is_sorted_by_key(|progress| progress.checked));
        }
    }
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let (dir, spool) = place();
    let store = DiskStore::open(dir.path()).unwrap();
    let mut digests = Vec::new();
    for seed in 0..6 {
        digests.push(publish(&store, &spool, seed, 10_000).await);
    }
    let path = |number: usize| store.path(&digests[number]);
    // Flipped, cut, empty, misplaced by copy, and two strangers.
    let mut bytes = fs::read(path(0)).unwrap();
    bytes[5_000] ^= 1;
    replace(&path(0), &bytes);
    replace(&path(1), &bytes[..9_000]);
    replace(&path(2), b"");
    let blobs = dir.path().join("blobs");
    fs::copy(path(3), blobs.join(digests[3].hex())).unwrap();
    fs::write(blobs.join("notes.txt"), "x").unwrap();
    std::os::unix::fs::symlink(path(4), blobs.join("sha256").join(digests[4].hex())).unwrap();

    let store = DiskStore::open(dir.path()).unwrap();
    let report = fsck(&store, FsckOptions::default(), |_| {}).await.unwrap();
    let mut wanted = digests[..3].to_vec();
    wanted.sort_unstable();
    let corrupt: Vec<_> = report.corrupt.iter().map(|problem| problem.digest).collect();
    assert_eq!(corrupt, wanted);
    assert!(report.corrupt.iter().all(|p| matches!(p.damage, Damage::Digest { .. })));
    assert_eq!(report.misplaced, [(digests[3].hex(), digests[3])]);
    assert_eq!(report.foreign, ["notes.txt".to_owned(), format!("sha256/{}", digests[4].hex())]);
    assert_eq!((report.checked, report.is_clean()), (6, false));
    // What is foreign or misplaced is no blob to anybody else.
    let listed: Vec<_> = futures_util::TryStreamExt::try_collect(store.list()).await.unwrap();
    assert_eq!(listed.len(), 6);
}
