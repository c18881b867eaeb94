//! Each implementation through the conformance suite, and what only files can show.

use std::{fs, sync::Arc};

use kuboard_oci::{Algorithm, Digest};
use kuboard_store::{
    BlobStore, Content, DiskStore, ErrorKind, MemoryStore, ObjectStore, Spool, conformance,
};

use crate::place;

async fn check(store: Arc<dyn BlobStore>, spool: &Spool) {
    conformance::check(store, spool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_conforms() {
    let (dir, spool) = place();
    check(Arc::new(DiskStore::open(dir.path()).unwrap()), &spool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let (_dir, spool) = place();
    check(Arc::new(MemoryStore::new()), &spool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_memory_conform_with_and_without_a_prefix() {
    let (_dir, spool) = place();
    for prefix in ["", "some/prefix/"] {
        let remote = Arc::new(object_store::memory::InMemory::new());
        check(Arc::new(ObjectStore::new(remote, prefix).unwrap()), &spool).await;
    }
}

#[tokio::test]
async fn files_lie_where_the_layout_says_and_outlive_the_store() {
    let (dir, spool) = place();
    let store = DiskStore::open(dir.path()).unwrap();
    let bytes = conformance::sample(1, 100_000);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha512).await.unwrap();
    let digest = verified.digest();
    store.publish(verified).await.unwrap();
    let hex = digest.hex();
    let path = dir.path().join("blobs/sha512").join(&hex[..2]).join(&hex);
    assert_eq!(store.path(&digest), path);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    drop(store);
    let store = DiskStore::open(dir.path()).unwrap();
    assert_eq!(store.stat(&digest).await.unwrap(), Some(100_000));
}

#[tokio::test]
async fn a_hot_blob_is_mapped_once() {
    let (dir, spool) = place();
    let store = DiskStore::open(dir.path()).unwrap();
    let bytes = conformance::sample(2, 100_000);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
    let digest = verified.digest();
    store.publish(verified).await.unwrap();
    let open = async || match store.open(&digest).await.unwrap().unwrap().content {
        Content::Mapped(mapping) => mapping,
        Content::Memory(_) | Content::Remote(_) => panic!("a file is mapped"),
    };
    let first = open().await;
    let address = Arc::as_ptr(&first);
    assert_eq!(Arc::as_ptr(&open().await), address);
    assert!(store.in_use(&digest));
    drop(first);
    assert!(!store.in_use(&digest));
    // Even the file system is not asked: the map serves while the file is away.
    fs::rename(store.path(&digest), dir.path().join("away")).unwrap();
    assert_eq!(Arc::as_ptr(&open().await), address);
    // Not published, not mapped.
    let other = Digest::sha256(b"other");
    assert!(store.open(&other).await.unwrap().is_none());
}

#[tokio::test]
async fn publishing_heals_a_damaged_file_and_spares_its_readers() {
    let (dir, spool) = place();
    let store = DiskStore::open(dir.path()).unwrap();
    let bytes = conformance::sample(3, 300_000);
    let publish = async || {
        let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
        let digest = verified.digest();
        store.publish(verified).await.unwrap();
        digest
    };
    let digest = publish().await;
    // As a bad disk would have it; never in place, for a map of it may be open.
    let damaged = dir.path().join("damaged");
    fs::write(&damaged, vec![0; 300_000]).unwrap();
    fs::rename(&damaged, store.path(&digest)).unwrap();
    let fresh = DiskStore::open(dir.path()).unwrap();
    let reader = fresh.open(&digest).await.unwrap().unwrap();
    publish().await;
    assert_eq!(reader.bytes(300_000).await.unwrap(), vec![0; 300_000], "reads what it opened");
    assert_eq!(store.open(&digest).await.unwrap().unwrap().bytes(300_000).await.unwrap(), bytes);
}

/// A spool in `/dev/shm`, which is another file system wherever there is one.
#[tokio::test]
async fn a_spool_elsewhere_is_refused_with_a_hint() {
    let (dir, _spool) = place();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let spool = Spool::open(shm.path()).unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let bytes = conformance::sample(4, 10);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
    let error = store.publish(verified).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("hint: put the spool"), "{error}");
    assert_eq!(spool.names().await.unwrap(), []);
}
