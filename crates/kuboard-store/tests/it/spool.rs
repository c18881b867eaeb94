//! The folder of files being written: names, locks, resuming, sweeping.

use std::fs;

use bytes::Bytes;
use kuboard_oci::{Algorithm, Digest};
use kuboard_store::{ErrorKind, Spool};

use crate::place;

#[tokio::test]
async fn one_spool_a_folder() {
    let (dir, spool) = place();
    let path = dir.path().join("ingest");
    let error = Spool::open(&path).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("hint: stop the other process"), "{error}");
    drop(spool);
    Spool::open(&path).unwrap();
}

#[tokio::test]
async fn names_are_checked_and_exclusive() {
    let (_dir, spool) = place();
    for bad in ["", ".", "..", "a/b", "../a", "a.b", ".lock", "a b", "ü", &"x".repeat(129)] {
        let error = spool.create_named(bad, Algorithm::Sha256).await.err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{bad:?}");
        assert!(spool.resume(bad).await.is_err(), "{bad:?}");
        assert!(spool.remove(bad).await.is_err(), "{bad:?}");
    }
    let busy = |error: kuboard_store::Error| assert_eq!(*error.kind(), ErrorKind::Busy);
    let ingest = spool.create_named("upload-1", Algorithm::Sha256).await.unwrap();
    assert_eq!(ingest.name(), "upload-1");
    busy(spool.create_named("upload-1", Algorithm::Sha512).await.err().unwrap());
    busy(spool.resume("upload-1").await.err().unwrap());
    busy(spool.remove("upload-1").await.err().unwrap());
    ingest.keep();
    busy(spool.create_named("upload-1", Algorithm::Sha256).await.err().unwrap());
    assert!(spool.resume("upload-2").await.unwrap().is_none());
    assert!(spool.remove("upload-1").await.unwrap());
    assert!(!spool.remove("upload-1").await.unwrap());
}

#[tokio::test]
async fn a_kept_upload_goes_on_where_it_was() {
    for algorithm in Algorithm::ALL {
        let (dir, spool) = place();
        let mut ingest = spool.create_named("u", algorithm).await.unwrap();
        ingest.write(Bytes::from_static(b"first ")).await.unwrap();
        ingest.flush().await.unwrap();
        ingest.keep();
        // As after a restart.
        drop(spool);
        let spool = Spool::open(dir.path().join("ingest")).unwrap();
        let mut ingest = spool.resume("u").await.unwrap().unwrap();
        assert_eq!((ingest.written(), ingest.tail().written()), (6, 6));
        ingest.write(Bytes::from_static(b"second")).await.unwrap();
        let digest = Digest::of(algorithm, b"first second");
        let verified = ingest.finish(&digest, Some(12)).await.unwrap();
        assert_eq!(fs::read(verified.path()).unwrap(), b"first second");
        let path = verified.path().to_owned();
        drop(verified);
        assert!(!path.exists(), "nobody published it");
    }
}

#[tokio::test]
async fn sweeps_what_nobody_wants() {
    let (dir, spool) = place();
    for name in ["a", "b", "c", "wanted"] {
        let mut ingest = spool.create_named(name, Algorithm::Sha256).await.unwrap();
        ingest.write(Bytes::from_static(b"12345")).await.unwrap();
        ingest.flush().await.unwrap();
        ingest.keep();
    }
    let active = spool.create_named("active", Algorithm::Sha256).await.unwrap();
    fs::write(dir.path().join("ingest/README"), "not ours").unwrap();
    let names = async || -> Vec<String> {
        spool.names().await.unwrap().into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names().await, ["a", "active", "b", "c", "wanted"]);
    assert_eq!(spool.sweep(0, |_| false, 9).await.unwrap().removed, 0, "all are young");
    let keep = |name: &str| name == "wanted";
    let report = spool.sweep(i64::MAX, keep, 2).await.unwrap();
    assert_eq!((report.removed, report.bytes, report.more), (2, 10, true));
    let report = spool.sweep(i64::MAX, keep, 2).await.unwrap();
    assert_eq!((report.removed, report.bytes, report.more), (1, 5, false));
    assert_eq!(names().await, ["active", "wanted"]);
    assert!(dir.path().join("ingest/README").exists());
    drop(active);
}

#[tokio::test]
async fn a_blob_that_cannot_fit_is_refused_before_it_begins() {
    let (_dir, spool) = place();
    let error = spool.create(Algorithm::Sha256, Some(1 << 60)).await.err().unwrap();
    assert!(error.is_no_space(), "{error:?}");
    assert!(error.to_string().contains("hint: free space"), "{error}");
    assert_eq!(spool.names().await.unwrap(), []);
}
