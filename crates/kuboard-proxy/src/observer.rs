//! Who looks on while images pass. The registry knows none of them; the binary wires them.

use std::sync::Arc;

use bytes::Bytes;
use kuboard_oci::Digest;
use kuboard_store::BlobObserver;

/// A manifest that was pushed, or handed to a client.
#[derive(Clone, Debug)]
pub struct ManifestSeen {
    /// Name of the upstream's rule (`docker.io`); empty for hosted repositories.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// The tag that was asked for or pushed, if it was one.
    pub tag: Option<String>,
    /// Digest of the bytes.
    pub digest: Digest,
    /// As it was declared.
    pub media_type: String,
    /// Verbatim.
    pub bytes: Bytes,
}

/// Hears of manifests.
pub trait ManifestObserver: Send + Sync + 'static {
    /// A manifest was pushed or handed out. Called for each request: this must return at once.
    fn manifest(&self, seen: ManifestSeen);
}

/// All who look on.
#[derive(Clone, Default)]
pub struct Observers {
    /// Of blobs.
    pub blobs: Vec<Arc<dyn BlobObserver>>,
    /// Of manifests.
    pub manifests: Vec<Arc<dyn ManifestObserver>>,
}

impl Observers {
    /// Tells of a manifest; `seen` is asked only if somebody listens.
    pub(crate) fn tell(&self, seen: impl FnOnce() -> ManifestSeen) {
        let Some((last, others)) = self.manifests.split_last() else { return };
        let seen = seen();
        for observer in others {
            observer.manifest(seen.clone());
        }
        last.manifest(seen);
    }
}
