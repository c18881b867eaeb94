//! Blobs in memory, for tests and for roles that keep nothing.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kuboard_oci::Digest;
use kuboard_rt::BoxFuture;
use parking_lot::Mutex;

use crate::{
    Blob, BlobStore, Content, Entry, Error, Found, Result, Verified, blocking, page, spool,
};

/// A store of blobs in memory. It has no bound of its own: put a [`crate::Cache`] around it.
#[derive(Default)]
pub struct MemoryStore {
    blobs: Mutex<HashMap<Digest, Kept>>,
}

struct Kept {
    bytes: Bytes,
    modified_ms: i64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }
}

impl BlobStore for MemoryStore {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        let size = self.blobs.lock().get(digest).map(|kept| kept.bytes.len() as u64);
        Box::pin(async move { Ok(size) })
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>> {
        let bytes = self.blobs.lock().get(digest).map(|kept| kept.bytes.clone());
        let digest = *digest;
        let blob = bytes.map(|bytes| {
            let size = bytes.len() as u64;
            Blob { digest, size, content: Content::Memory(bytes) }
        });
        Box::pin(async move { Ok(blob) })
    }

    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let digest = verified.digest();
            let kept = blocking("publishing a blob", move || {
                let doing = |e| Error::io(format!("reading {digest}"), e);
                let length = usize::try_from(verified.size()).unwrap_or(usize::MAX);
                let bytes = page::read_waiting(verified.file(), 0, length).map_err(doing)?;
                let modified_ms = spool::modified_ms(&verified.file().metadata().map_err(doing)?);
                Ok(Kept { bytes: bytes.into(), modified_ms })
            })
            .await?;
            self.blobs.lock().entry(digest).or_insert(kept);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        let removed = self.blobs.lock().remove(digest).is_some();
        Box::pin(async move { Ok(removed) })
    }

    fn walk(&self) -> BoxStream<'_, Result<Found>> {
        let blobs = self.blobs.lock();
        let entries = blobs.iter().map(|(digest, kept)| Entry {
            digest: *digest,
            size: kept.bytes.len() as u64,
            modified_ms: kept.modified_ms,
        });
        let found: Vec<_> = entries.map(|entry| Ok(Found::Blob(entry))).collect();
        stream::iter(found).boxed()
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
