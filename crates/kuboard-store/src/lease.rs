//! Guards over a cache: of a blob that is being read, and of space for one that is coming.

use std::{mem, ops::Deref, ops::Range, sync::Arc};

use futures_util::StreamExt as _;
use kuboard_oci::Digest;
use kuboard_rt::http::Body;

use crate::{Blob, Content, cache::Inner, policy::Ticket};

/// A blob of a cache, which does not evict it while this, or a body made from it, is alive.
pub struct Leased {
    // Dropped before the lease, which looks whether somebody else still reads the bytes.
    blob: Blob,
    lease: Lease,
}

impl Leased {
    pub(crate) fn new(blob: Blob, lease: Lease) -> Leased {
        Leased { blob, lease }
    }

    /// A body of the bytes of `range`, cut to the blob's length, that carries the lease on.
    pub fn body(self, range: Range<u64>) -> Body {
        let Leased { blob, lease } = self;
        let range = blob.cut(range);
        match blob.content {
            Content::Remote(remote) => {
                let length = range.end - range.start;
                let pieces = remote.stream(range).map(move |piece| {
                    let _held = &lease;
                    piece
                });
                Body::sized_stream(length, pieces)
            }
            // The store knows that the map is in use; bytes in memory need no lease.
            Content::Mapped(_) | Content::Memory(_) => {
                let body = blob.body(range);
                drop(lease);
                body
            }
        }
    }
}

impl Deref for Leased {
    type Target = Blob;

    fn deref(&self) -> &Blob {
        &self.blob
    }
}

pub(crate) struct Lease {
    cache: Arc<Inner>,
    digest: Digest,
    ticket: Ticket,
}

impl Lease {
    pub(crate) fn new(cache: Arc<Inner>, digest: Digest, ticket: Ticket) -> Lease {
        Lease { cache, digest, ticket }
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cache.end_lease(self.digest, self.ticket);
    }
}

/// Space in a cache for a blob that is on its way. Dropping it gives the space back.
pub struct Reservation {
    cache: Arc<Inner>,
    bytes: u64,
    /// Who had to leave for it, and may still be leaving.
    leaving: Vec<Digest>,
}

impl Reservation {
    pub(crate) fn new(cache: Arc<Inner>, bytes: u64, leaving: Vec<Digest>) -> Reservation {
        Reservation { cache, bytes, leaving }
    }

    /// Bytes set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets `bytes` more aside, evicting for it; false, and nothing has changed, when that much
    /// cannot be evicted. For blobs whose length is not known when they begin.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let Some(victims) = self.cache.take_space(bytes) else { return false };
        self.bytes += bytes;
        self.leaving.extend(victims);
        true
    }

    /// Waits until who had to leave has left, so that the space is there on the disk too.
    pub async fn ready(&mut self) {
        for digest in mem::take(&mut self.leaving) {
            self.cache.gone(&digest).await;
        }
    }

    /// The bytes go over to whoever asks.
    pub(crate) fn hand_over(mut self) -> u64 {
        mem::take(&mut self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.cache.give_space(self.bytes);
        }
    }
}
