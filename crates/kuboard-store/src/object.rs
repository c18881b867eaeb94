//! Blobs in S3, Google Cloud Storage, Azure or anything `object_store` speaks to.
//!
//! Objects are immutable and named by their digest, so nothing here needs a lock or a condition:
//! two publishers put the same bytes, and a put is atomic. Blobs of more than [`PART`] go up in
//! parts. An upload runs in a task of its own, so it is completed or aborted even if the caller
//! gives up; only a killed process leaves parts behind, which the bucket's lifecycle rule for
//! incomplete uploads removes (the protocol has no portable way to find them).

use std::{ops::Range, sync::Arc};

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{BoxStream, FuturesUnordered},
};
use kuboard_oci::{Algorithm, Digest};
use kuboard_rt::{BoxFuture, Mapping, Tasks};
use object_store::{
    MultipartUpload, ObjectMeta, ObjectStore as Remote, ObjectStoreExt as _, PutPayload, path::Path,
};
use tokio::sync::oneshot;

use crate::{
    Blob, BlobStore, Content, Entry, Error, ErrorKind, Found, RemoteBlob, Result, Verified,
};

/// Bytes of a part, and of the biggest blob that is put in one piece.
const PART: u64 = 8 << 20;
/// Parts that are on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// S3 takes at most 10,000 parts; bigger blobs get bigger parts.
const MAX_PARTS: u64 = 9_000;

/// A store of blobs in a remote object store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ObjectStore {
    remote: Arc<dyn Remote>,
    root: Path,
    tasks: Tasks,
}

impl ObjectStore {
    /// A store under `prefix` (may be empty) of `remote`.
    ///
    /// Fails with [`ErrorKind::Invalid`] when the prefix is no path.
    pub fn new(remote: Arc<dyn Remote>, prefix: &str) -> Result<ObjectStore> {
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| {
            let text = format!("{prefix:?} cannot be a prefix of objects: {error}");
            Error::new(ErrorKind::Invalid, text)
        })?;
        Ok(ObjectStore { remote, root: prefix.join("blobs"), tasks: Tasks::default() })
    }

    /// Uploads run on `tasks`, so that a drain waits for them.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Tasks) -> ObjectStore {
        self.tasks = tasks;
        self
    }

    fn path(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.root.clone().join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }

    async fn head(&self, digest: &Digest) -> Result<Option<ObjectMeta>> {
        match self.remote.head(&self.path(digest)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::backend(format!("looking for {digest}"), error)),
        }
    }

    async fn upload(&self, verified: Verified) -> Result<()> {
        let digest = verified.digest();
        let size = verified.size();
        if self.head(&digest).await?.is_some_and(|meta| meta.size == size) {
            return Ok(());
        }
        let doing = |error| Error::backend(format!("publishing {digest}"), error);
        let path = self.path(&digest);
        if size == 0 {
            let put = self.remote.put(&path, PutPayload::new()).await;
            return put.map(drop).map_err(doing);
        }
        let mapping = verified.file().try_clone().and_then(Mapping::from_file);
        let mapping = mapping.map_err(|e| Error::io(format!("publishing {digest}"), e))?;
        if size <= PART {
            let payload = read_part(&mapping, 0..size).await?;
            return self.remote.put(&path, payload).await.map(drop).map_err(doing);
        }
        let mut upload = self.remote.put_multipart(&path).await.map_err(doing)?;
        let done = match send_parts(&mut *upload, &mapping, doing).await {
            Ok(()) => upload.complete().await.map(drop).map_err(doing),
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%digest, %error, "cannot abort an upload; its parts stay behind");
        }
        done
    }

    fn found(&self, meta: &ObjectMeta) -> Found {
        let relative: Vec<_> = meta
            .location
            .prefix_match(&self.root)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect())
            .unwrap_or_default();
        let size = meta.size;
        let path = relative.join("/");
        let Some(digest) = relative.last().and_then(|name| named(name)) else {
            return Found::Foreign { path, size };
        };
        if self.path(&digest) != meta.location {
            return Found::Misplaced { path, digest, size };
        }
        let modified_ms = meta.last_modified.timestamp_millis();
        Found::Blob(Entry { digest, size, modified_ms })
    }
}

impl BlobStore for ObjectStore {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { Ok(self.head(digest).await?.map(|meta| meta.size)) })
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>> {
        Box::pin(async move {
            Ok(self.head(digest).await?.map(|meta| {
                let remote = RemoteBlob { store: self.remote.clone(), path: meta.location };
                Blob { digest: *digest, size: meta.size, content: Content::Remote(remote) }
            }))
        })
    }

    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>> {
        let store = self.clone();
        let (tell, told) = oneshot::channel();
        self.tasks.spawn("blob-upload", async move {
            // Nobody may be left to be told.
            let _ = tell.send(store.upload(verified).await);
        });
        Box::pin(async move {
            let gone = || Error::new(ErrorKind::Closed, "publishing a blob");
            told.await.unwrap_or_else(|_| Err(gone()))
        })
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            // Object stores answer the same whether there was one.
            if self.head(digest).await?.is_none() {
                return Ok(false);
            }
            match self.remote.delete(&self.path(digest)).await {
                Ok(()) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(Error::backend(format!("removing {digest}"), error)),
            }
        })
    }

    fn walk(&self) -> BoxStream<'_, Result<Found>> {
        self.remote
            .list(Some(&self.root))
            .map_ok(|meta| self.found(&meta))
            .map_err(|error| Error::backend("listing blobs", error))
            .boxed()
    }

    fn describe(&self) -> String {
        format!("{} at {}", self.remote, self.root)
    }
}

async fn send_parts(
    upload: &mut dyn MultipartUpload,
    mapping: &Arc<Mapping>,
    doing: impl Fn(object_store::Error) -> Error,
) -> Result<()> {
    let size = mapping.len();
    let length = size.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART);
    let mut sending = FuturesUnordered::new();
    let mut start = 0;
    let mut outcome = Ok(());
    while start < size && outcome.is_ok() {
        let end = size.min(start.saturating_add(length));
        match read_part(mapping, start..end).await {
            Ok(payload) => sending.push(upload.put_part(payload)),
            Err(error) => outcome = Err(error),
        }
        start = end;
        if sending.len() == PARTS_AT_ONCE {
            outcome = outcome.and(sending.try_next().await.map(drop).map_err(&doing));
        }
    }
    // After a failure too: a part that is still on its way would outlive the abort.
    while let Some(sent) = sending.next().await {
        outcome = outcome.and(sent.map_err(&doing));
    }
    outcome
}

/// A part of the checked file, out of the page cache and not copied.
async fn read_part(mapping: &Arc<Mapping>, range: Range<u64>) -> Result<PutPayload> {
    if !mapping.is_resident(range.end - 1) {
        let read = kuboard_rt::read_ahead(mapping.clone(), range.clone()).await;
        read.map_err(|e| Error::io("reading a checked blob", e))?;
    }
    Ok(mapping.slice(range).into())
}

/// The digest that an object's name means; its length tells the algorithm.
fn named(name: &str) -> Option<Digest> {
    let algorithm =
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.len() * 2 == name.len())?;
    format!("{algorithm}:{name}").parse().ok()
}
