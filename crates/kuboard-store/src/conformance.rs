//! What every [`BlobStore`] must do, run by the tests of each.
//!
//! [`check`] wants an empty store and panics, like any test, where the store falls short.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    TryStreamExt as _,
    future::{join, join_all, try_join_all},
};
use kuboard_oci::{Algorithm, Digest};

use crate::{Blob, BlobStore, Content, Error, ErrorKind, Result, Spool, Verified};

/// Longer than what object stores put in one piece, and a multiple of nothing.
const BIG: usize = (17 << 20) + 3;

/// Runs the suite. Leaves the store and the spool empty.
///
/// Fails with the store's own error where it should have succeeded.
pub async fn check(store: Arc<dyn BlobStore>, spool: &Spool) -> Result<()> {
    assert!(!store.describe().is_empty(), "says what it is");
    is_empty(&*store).await?;
    absent(&*store).await?;
    round_trips(&*store, spool).await?;
    publishes_twice(&*store, spool).await?;
    two_publishers(&*store, spool).await?;
    lists(&*store, spool).await?;
    removes_while_read(&*store, spool).await?;
    many_at_once(&*store, spool).await?;
    comes_and_goes(&*store, spool).await?;
    is_empty(&*store).await?;
    assert_eq!(spool.names().await?, [], "nothing stays in the spool");
    Ok(())
}

/// `length` bytes that look random, another sequence for each `seed`.
pub fn sample(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Writes and checks `bytes` in a spool.
pub async fn verified(spool: &Spool, bytes: &Bytes, algorithm: Algorithm) -> Result<Verified> {
    let size = bytes.len() as u64;
    let mut ingest = spool.create(algorithm, Some(size)).await?;
    for start in (0..bytes.len()).step_by(300_000) {
        ingest.write(bytes.slice(start..bytes.len().min(start + 300_000))).await?;
    }
    ingest.finish(&Digest::of(algorithm, bytes), Some(size)).await
}

async fn publish(store: &dyn BlobStore, spool: &Spool, bytes: &Bytes) -> Result<Digest> {
    let verified = verified(spool, bytes, Algorithm::Sha256).await?;
    let digest = verified.digest();
    store.publish(verified).await?;
    Ok(digest)
}

async fn open(store: &dyn BlobStore, digest: &Digest) -> Result<Blob> {
    let absent = || Error::new(ErrorKind::Io, format!("{digest} was published but is not there"));
    store.open(digest).await?.ok_or_else(absent)
}

async fn read(store: &dyn BlobStore, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
    let body = open(store, digest).await?.body(range).collect().await;
    body.map_err(|error| Error::io(format!("reading {digest}"), error))
}

async fn listing(store: &dyn BlobStore) -> Result<BTreeMap<Digest, u64>> {
    store.list().map_ok(|entry| (entry.digest, entry.size)).try_collect().await
}

async fn is_empty(store: &dyn BlobStore) -> Result<()> {
    assert_eq!(listing(store).await?, BTreeMap::new(), "the store is empty");
    Ok(())
}

async fn absent(store: &dyn BlobStore) -> Result<()> {
    let digest = Digest::sha256(b"never published");
    assert_eq!(store.stat(&digest).await?, None);
    assert!(store.open(&digest).await?.is_none());
    assert!(!store.remove(&digest).await?, "there is nothing to remove");
    assert!(!store.in_use(&digest));
    Ok(())
}

async fn round_trips(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let cases = [
        (Algorithm::Sha256, 0),
        (Algorithm::Sha256, 1),
        (Algorithm::Sha512, 5_000),
        (Algorithm::Sha256, 8 << 20),
        (Algorithm::Sha512, BIG),
    ];
    for (algorithm, length) in cases {
        let bytes = sample(length as u64, length);
        let size = length as u64;
        let verified = verified(spool, &bytes, algorithm).await?;
        let (digest, file) = (verified.digest(), verified.path().to_owned());
        assert_eq!(store.stat(&digest).await?, None, "not visible before it is published");
        store.publish(verified).await?;
        assert!(!file.exists(), "the file has left the spool");
        assert_eq!(store.stat(&digest).await?, Some(size));
        let blob = open(store, &digest).await?;
        assert_eq!((blob.digest, blob.size), (digest, size));
        assert_eq!(blob.bytes(length).await?, bytes, "{length} bytes of {algorithm:?}");
        if length > 0 {
            let refused = blob.bytes(length - 1).await.err().map(|error| error.kind().clone());
            assert!(matches!(refused, Some(ErrorKind::Length { .. })), "{refused:?}");
        }
        let middle = size / 2;
        let ranges = [
            (0..size, 0..size),
            (0..1, 0..1.min(size)),
            (middle..size, middle..size),
            (size.saturating_sub(1)..size, size.saturating_sub(1)..size),
            (middle..middle, 0..0),
            (middle..size + 100, middle..size),
            (size + 5..size + 100, 0..0),
        ];
        for (asked, wanted) in ranges {
            let wanted = bytes.slice(wanted.start as usize..wanted.end as usize);
            assert_eq!(read(store, &digest, asked.clone()).await?, wanted, "{asked:?}");
        }
        assert_eq!(listing(store).await?, BTreeMap::from([(digest, size)]));
        assert!(store.remove(&digest).await?);
        assert_eq!(store.stat(&digest).await?, None, "gone at once");
        assert!(store.open(&digest).await?.is_none(), "gone at once");
        assert!(!store.remove(&digest).await?, "gone already");
    }
    Ok(())
}

async fn publishes_twice(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let bytes = sample(2, 100_000);
    let digest = publish(store, spool, &bytes).await?;
    assert_eq!(publish(store, spool, &bytes).await?, digest);
    assert_eq!(read(store, &digest, 0..100_000).await?, bytes);
    assert_eq!(spool.names().await?, [], "the second file has left the spool too");
    assert!(store.remove(&digest).await?);
    Ok(())
}

async fn two_publishers(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    for length in [1_000, 9 << 20] {
        let bytes = sample(3, length);
        let one = verified(spool, &bytes, Algorithm::Sha256).await?;
        let two = verified(spool, &bytes, Algorithm::Sha256).await?;
        let digest = one.digest();
        let (one, two) = join(store.publish(one), store.publish(two)).await;
        one.and(two)?;
        assert_eq!(read(store, &digest, 0..length as u64).await?, bytes);
        assert_eq!(listing(store).await?.len(), 1);
        assert!(store.remove(&digest).await?);
    }
    Ok(())
}

async fn lists(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for seed in 0..20 {
        let bytes = sample(100 + seed, 10 + seed as usize);
        wanted.insert(publish(store, spool, &bytes).await?, bytes.len() as u64);
    }
    assert_eq!(listing(store).await?, wanted);
    // Some time of this century, in milliseconds.
    let times: Vec<i64> = store.list().map_ok(|entry| entry.modified_ms).try_collect().await?;
    assert!(times.iter().all(|time| (1_000_000_000_000..4_000_000_000_000).contains(time)));
    for digest in wanted.keys() {
        assert!(store.remove(digest).await?);
    }
    Ok(())
}

/// What was opened is read to its end; a remote store may fail instead, but has no other bytes.
async fn removes_while_read(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let bytes = sample(4, BIG);
    let digest = publish(store, spool, &bytes).await?;
    let (first, second) = (open(store, &digest).await?, open(store, &digest).await?);
    let remote = matches!(first.content, Content::Remote(_));
    assert!(store.remove(&digest).await?);
    assert!(store.open(&digest).await?.is_none(), "nobody else can open it any more");
    for blob in [first, second] {
        match blob.body(1..BIG as u64).collect().await {
            Ok(read) => assert_eq!(read, bytes.slice(1..)),
            Err(error) => assert!(remote, "{error}"),
        }
    }
    // Back again, and the bytes are there for new readers.
    assert_eq!(publish(store, spool, &bytes).await?, digest);
    assert_eq!(read(store, &digest, 0..BIG as u64).await?, bytes);
    assert!(store.remove(&digest).await?);
    assert!(!store.in_use(&digest), "nobody reads it any more");
    Ok(())
}

async fn many_at_once(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let blobs: Vec<Bytes> = (0..16).map(|seed| sample(200 + seed, 50_000)).collect();
    let work = blobs.iter().map(|bytes| async move {
        let digest = publish(store, spool, bytes).await?;
        let reads = (0..4).map(|_| read(store, &digest, 10..50_000));
        for read in try_join_all(reads).await? {
            assert_eq!(read, bytes.slice(10..));
        }
        Ok(digest)
    });
    for digest in try_join_all(work).await? {
        assert!(store.remove(&digest).await?);
    }
    Ok(())
}

/// Publishing, removing and reading one digest all at once: a reader sees all of it or nothing.
async fn comes_and_goes(store: &dyn BlobStore, spool: &Spool) -> Result<()> {
    let bytes = &sample(5, 200_000);
    let digest = Digest::sha256(bytes);
    let work = (0..8_u64).map(|number| async move {
        for _ in 0..8 {
            if number == 0 {
                publish(store, spool, bytes).await?;
            } else if number == 1 {
                store.remove(&digest).await?;
            } else if let Some(blob) = store.open(&digest).await? {
                let remote = matches!(blob.content, Content::Remote(_));
                match blob.bytes(200_000).await {
                    Ok(read) => assert_eq!(read, *bytes),
                    Err(error) => assert!(remote, "{error}"),
                }
            }
        }
        Ok(())
    });
    join_all(work).await.into_iter().collect::<Result<()>>()?;
    publish(store, spool, bytes).await?;
    assert_eq!(read(store, &digest, 0..200_000).await?, *bytes, "the last publication stands");
    assert!(store.remove(&digest).await?);
    Ok(())
}
