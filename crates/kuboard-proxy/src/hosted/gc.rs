//! Collecting what hosted repositories no longer need, while they are used.
//!
//! What goes is decided by the catalogue, by leases; see its `sweep`. Here the bytes are removed
//! when it says so, memory forgets them, and unfinished uploads are thrown away by age.

use anyhow::Context;
use kuboard_oci::Digest;

use super::Hosted;

/// Links, and untagged manifests, that one transaction takes away.
const BATCH: u32 = 200;
/// How long a session's file stays open after its last request.
const CLOSE_AFTER_MS: i64 = 5 * 60 * 1000;
/// Unfinished uploads thrown away in one collection.
const MAX_UPLOADS: usize = 10_000;

/// What a collection has done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Manifests deleted because nothing names them.
    pub(crate) untagged: u64,
    /// Blobs taken out of repositories.
    pub(crate) unlinked: u64,
    /// Digests whose bytes were removed.
    pub(crate) removed: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Digests that the store would not remove; the next collection tries again.
    pub(crate) failed: usize,
    /// Unfinished uploads thrown away.
    pub(crate) uploads: usize,
}

impl Hosted {
    /// Collects what is over at `now_ms`; with `untagged_before_ms` also the manifests pushed
    /// before then that nothing names. May run beside pushes and beside itself.
    pub(crate) async fn collect(
        &self,
        now_ms: i64,
        untagged_before_ms: Option<i64>,
    ) -> anyhow::Result<Collected> {
        self.metrics.gc_runs.inc();
        let collected = self.collect_content(now_ms, untagged_before_ms).await;
        let uploads = self.expire_uploads(now_ms).await;
        let both = collected.and_then(|collected| Ok(Collected { uploads: uploads?, ..collected }));
        match &both {
            Ok(collected) if collected.failed == 0 => {
                self.metrics.gc_last_success.set(now_ms / 1000);
            }
            _ => self.metrics.gc_failures.inc(),
        }
        both
    }

    async fn collect_content(
        &self,
        now_ms: i64,
        untagged_before_ms: Option<i64>,
    ) -> anyhow::Result<Collected> {
        let mut collected = Collected::default();
        if let Some(before_ms) = untagged_before_ms {
            let deleted = self.catalog.delete_untagged(before_ms, BATCH).await;
            // Deleted in part or in whole: which ones is not told.
            self.manifests.clear();
            collected.untagged = deleted.context("deleting untagged manifests")?;
        }
        let swept = self.catalog.sweep(now_ms, BATCH, async |digest| self.remove(&digest).await);
        let swept = swept.await;
        self.known.forget_links();
        let swept = swept.context("collecting hosted content")?;
        for (digest, error) in &swept.failed {
            tracing::error!(%digest, %error, "collected content could not be removed");
        }
        self.metrics.gc_unlinked.inc_by(swept.unlinked + collected.untagged);
        self.metrics.gc_removed.inc_by(swept.removed);
        self.metrics.gc_removed_bytes.inc_by(swept.bytes);
        Ok(Collected {
            unlinked: swept.unlinked,
            removed: swept.removed,
            bytes: swept.bytes,
            failed: swept.failed.len(),
            ..collected
        })
    }

    /// Called by the sweep inside the transaction that takes away the last listing.
    async fn remove(&self, digest: &Digest) -> Result<(), kuboard_store::Error> {
        self.store.remove(digest).await?;
        self.manifests.forget(digest);
        Ok(())
    }

    async fn expire_uploads(&self, now_ms: i64) -> anyhow::Result<usize> {
        self.sessions.close_resting(now_ms.saturating_sub(CLOSE_AFTER_MS));
        let before_ms = now_ms.saturating_sub(self.upload_ttl_ms);
        let swept = self.spool.sweep(before_ms, |_| false, MAX_UPLOADS).await;
        let swept = swept.context("throwing away unfinished uploads")?;
        self.metrics.gc_expired_uploads.inc_by(swept.removed as u64);
        Ok(swept.removed)
    }
}
