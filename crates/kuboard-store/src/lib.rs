//! Content-addressed bytes: written once, checked while they are written, visible under their
//! digest only when they are whole and right, never changed afterwards.
//!
//! The way of a blob: [`Spool::create`] → [`Ingest::write`] (followers read along through
//! [`Tail`]) → [`Ingest::finish`] → [`BlobStore::publish`], or [`Cache::insert`], which keeps a
//! store within a size → [`BlobStore::open`] → [`Blob::body`].
//!
//! This crate knows digests and bytes. It knows no repository, tag, manifest or user, and it never
//! decides what may be deleted, except that a [`Cache`] evicts what nobody has pinned or leased.

mod blob;
mod cache;
mod config;
#[doc(hidden)]
pub mod conformance;
mod disk;
mod error;
mod fsck;
mod ingest;
mod lease;
mod mappings;
mod memory;
mod metrics;
mod object;
mod observer;
mod page;
pub mod policy;
mod reserve;
mod spool;
mod tail;

pub use blob::{Blob, BlobStore, Content, Entry, Found, RemoteBlob};
pub use cache::{Cache, CacheEntry, CacheStats};
pub use config::{CacheConfig, ObjectConfig, object_store_from};
pub use disk::DiskStore;
pub use error::{Error, ErrorKind, Result};
pub use fsck::{Damage, FsckOptions, FsckProgress, FsckReport, Problem, fsck, verify};
pub use ingest::{Ingest, Verified};
pub use lease::{Leased, Reservation};
pub use memory::MemoryStore;
pub use metrics::Metrics;
pub use object::ObjectStore;
pub use observer::BlobObserver;
pub use spool::{Spool, SpoolEntry, SweepReport};
pub use tail::{MAX_READ, State, Tail};

/// Runs file operations off the async threads. They are bounded by themselves and awaited by
/// whoever asked, so they need no owner; when the caller gives up, they still run to their end.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::io(doing, std::io::Error::other(error))),
    }
}
