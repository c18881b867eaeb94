//! The door for whoever looks on while a blob fills: the bytes pass once, and what has to be known
//! of them (the packages of a layer, the hashes of its blocks) is found out on the way.

use kuboard_oci::Digest;

use crate::Tail;

/// Looks on while blobs fill.
pub trait BlobObserver: Send + Sync + 'static {
    /// A blob begins to fill. `size` is what its source promised, in bytes. The tail gives every
    /// byte from the first, the last one only after the digest was checked; it fails if the blob
    /// turns out to be another. Called where the blob is received: this must return at once.
    fn filling(&self, digest: &Digest, size: Option<u64>, tail: Tail);
}
