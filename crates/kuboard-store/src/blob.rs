//! The door: what a store of blobs does, and what it hands out.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _, future,
    stream::{self, BoxStream},
};
use kuboard_oci::Digest;
use kuboard_rt::{BoxFuture, Mapping, http::Body};
use object_store::{GetOptions, path::Path};

use crate::{Error, ErrorKind, Result, Verified, blocking, page};

/// A place that keeps blobs under their digests.
///
/// What it holds under a digest are the bytes of that digest, all of them; it never shows a blob
/// half published. Implementations pass the conformance suite of this crate.
pub trait BlobStore: Send + Sync + 'static {
    /// The length of a blob in bytes; `None`: not here.
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Opens a blob; `None`: not here. What was opened can be read to its end even if the blob is
    /// removed meanwhile (a remote store may end it with an error, never with other bytes).
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>>;

    /// Makes a checked file visible under its digest, durably: when this returns, a crash does not
    /// lose it. Publishing what is there already succeeds, also from two callers at once. The
    /// file leaves the spool either way. Giving up the wait does not stop it halfway.
    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>>;

    /// Removes a blob at once for all that open it from now on; whether there was one.
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>>;

    /// Everything that lies where blobs lie, in no order, read as the stream is.
    fn walk(&self) -> BoxStream<'_, Result<Found>>;

    /// All blobs, in no order.
    fn list(&self) -> BoxStream<'_, Result<Entry>> {
        let entry = |found| match found {
            Found::Blob(entry) => future::ready(Ok(Some(entry))),
            Found::Foreign { .. } | Found::Misplaced { .. } => future::ready(Ok(None)),
        };
        self.walk().try_filter_map(entry).boxed()
    }

    /// Whether somebody still reads bytes that this store handed out, so that removing the blob
    /// would free nothing yet. False where that is not known.
    fn in_use(&self, _digest: &Digest) -> bool {
        false
    }

    /// What and where it is, for logs and health pages. Holds no secret.
    fn describe(&self) -> String;
}

/// A blob of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its digest, by name; the bytes were not looked at.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Unix milliseconds of when it was written.
    pub modified_ms: i64,
}

/// Something that lies where blobs lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A blob in its place.
    Blob(Entry),
    /// Something that is no blob.
    Foreign {
        /// Where it lies, relative to the store.
        path: String,
        /// Length in bytes.
        size: u64,
    },
    /// Named like a blob, but not where that blob is looked for.
    Misplaced {
        /// Where it lies, relative to the store.
        path: String,
        /// The digest it is named by.
        digest: Digest,
        /// Length in bytes.
        size: u64,
    },
}

/// An opened blob.
#[derive(Clone)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// How to get at its bytes.
    pub content: Content,
}

/// How to get at the bytes of a blob.
#[derive(Clone)]
pub enum Content {
    /// A file, mapped; never empty.
    Mapped(Arc<Mapping>),
    /// In memory.
    Memory(Bytes),
    /// Behind the network.
    Remote(RemoteBlob),
}

/// A blob in a remote object store.
#[derive(Clone)]
pub struct RemoteBlob {
    pub(crate) store: Arc<dyn object_store::ObjectStore>,
    pub(crate) path: Path,
}

impl RemoteBlob {
    /// The bytes of `range`, which must lie within the blob, as they come. An empty range asks
    /// the remote store nothing.
    pub async fn range(&self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let doing = format!("reading {}", self.path);
        let options = GetOptions::new().with_range(Some(range));
        let answer = self.store.get_opts(&self.path, options).await;
        let answer = answer.map_err(|error| Error::backend(&doing, error))?;
        Ok(answer.into_stream().map_err(move |error| Error::backend(&doing, error)).boxed())
    }
}

impl RemoteBlob {
    /// Asks on the first poll.
    pub(crate) fn stream(
        self,
        range: Range<u64>,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        async move { self.range(range).await }.try_flatten_stream().map_err(Into::into)
    }
}

impl Blob {
    /// A body of the bytes of `range`, cut to the blob's length.
    pub fn body(self, range: Range<u64>) -> Body {
        let range = self.cut(range);
        match self.content {
            Content::Mapped(mapping) => Body::mapped(mapping, range),
            Content::Memory(bytes) => Body::full(slice(&bytes, range)),
            Content::Remote(remote) => {
                let length = range.end - range.start;
                Body::sized_stream(length, remote.stream(range))
            }
        }
    }

    /// All bytes in memory. Fails with [`ErrorKind::Length`] when there are more than `max`.
    pub async fn bytes(&self, max: usize) -> Result<Bytes> {
        let length = usize::try_from(self.size).ok().filter(|length| *length <= max);
        let Some(length) = length else {
            let kind = ErrorKind::Length { expected: max as u64, actual: self.size };
            return Err(Error::new(kind, format!("reading {} into memory", self.digest)));
        };
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::Mapped(mapping) => {
                if let Some(read) = page::read_cached(mapping.file(), 0, length)
                    && read.len() == length
                {
                    return Ok(read.into());
                }
                let (mapping, digest) = (mapping.clone(), self.digest);
                let read = blocking("reading a blob", move || {
                    page::read_waiting(mapping.file(), 0, length)
                        .map_err(|e| Error::io(format!("reading {digest}"), e))
                })
                .await?;
                self.whole(read.into())
            }
            Content::Remote(remote) => {
                let mut pieces = remote.range(0..self.size).await?;
                let mut all = BytesMut::with_capacity(length);
                while let Some(piece) = pieces.try_next().await? {
                    all.extend_from_slice(&piece);
                }
                self.whole(all.freeze())
            }
        }
    }

    fn whole(&self, bytes: Bytes) -> Result<Bytes> {
        if bytes.len() as u64 == self.size {
            return Ok(bytes);
        }
        let kind = ErrorKind::Length { expected: self.size, actual: bytes.len() as u64 };
        Err(Error::new(kind, format!("reading {}", self.digest)))
    }

    pub(crate) fn cut(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.size);
        range.start.min(end)..end
    }
}

/// `range` lies within `bytes`.
pub(crate) fn slice(bytes: &Bytes, range: Range<u64>) -> Bytes {
    // Both fit: they are at most the length of something in memory.
    bytes.slice(range.start as usize..range.end as usize)
}
