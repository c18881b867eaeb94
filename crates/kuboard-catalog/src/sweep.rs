//! Collecting what hosted repositories no longer need, while they are being pushed to.
//!
//! # Steps
//! 1. **Unlink.** A link is looked at when its lease is over. If a manifest of the same repository
//!    refers to the digest, the manifest holds it from now on (lease NULL) and the sweep will not
//!    look again until a deleted manifest expires the lease. Otherwise the link goes, and the
//!    content is marked `loose`.
//! 2. **Remove.** A loose content that no hosted repository links, as blob or as manifest, goes
//!    from `contents`, and its bytes from the store.
//! 3. Repositories with nothing left go.
//!
//! Each step works off marks that changes left behind, so that a sweep costs what changed, not what
//! is stored.
//!
//! # Why this never takes a blob from under an uploader
//! *Between check and use in one repository.* [`Catalog::put_manifest`] finds a blob linked, then
//! refers to it; step 1 finds it unreferenced, then unlinks it. The first holds the repository
//! shared, the second exclusively, so one of them sees the other's finished work. A `HEAD` that
//! promises a blob renews its lease, and step 1 deletes with the lease as a condition: either the
//! sweep sees the new lease, or the renewal finds no row and the client is told to upload.
//!
//! *Between the rows and the bytes.* An uploader writes its rows first (`contents` and `links`, one
//! transaction), then publishes the bytes. Step 2 first updates the digest's row in `contents`,
//! then looks for links, then deletes the row and awaits the removal of the bytes, and only then
//! commits. The row is the lock, and there are two orders:
//! - The uploader had the row first. The sweep's update waits for its commit; the look for links
//!   is a later statement and therefore sees the new link; the content lives.
//! - The sweep had the row first. The uploader's upsert waits until the sweep has committed, that
//!   is, until the bytes are gone; then it inserts the row anew, and *afterwards* publishes.
//!
//! In neither order does a removal follow the publication. (In SQLite transactions that write run
//! one after another, which gives the same two orders.) If the bytes were removed after the commit,
//! an uploader could come between: row and bytes there, push acknowledged, and then the removal.
//!
//! If the process dies between removal and commit, the row stays, loose and without bytes; nobody
//! links it, so nobody was promised it, and the next sweep removes it again.

use std::collections::BTreeMap;

use kuboard_oci::Digest;
use sqlx::AssertSqlSafe;

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Result, attempt},
    repositories::{Hold, SWEEP},
    rows,
};

/// What a sweep did.
#[derive(Debug, Default)]
#[must_use]
pub struct SweepReport {
    /// Links taken out of repositories.
    pub unlinked: u64,
    /// Digests removed from the store.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories that had nothing left.
    pub repositories: u64,
    /// Digests that the store would not remove, and why. They are tried again by the next sweep.
    pub failed: Vec<(Digest, Box<dyn std::error::Error + Send + Sync>)>,
}

/// After so many failed removals the store itself is in trouble, and the sweep stops.
const MAX_FAILED: usize = 8;

pub(crate) const OVERDUE: &str = "SELECT r.name, l.digest \
     FROM links l JOIN repositories r ON r.id = l.repository_id \
     WHERE l.lease_until_ms < $1 ORDER BY l.lease_until_ms LIMIT $2";

pub(crate) fn take_over(dialect: Dialect) -> String {
    let each = dialect.each("$3");
    format!(
        "UPDATE links SET lease_until_ms = NULL WHERE repository_id = $1 \
         AND lease_until_ms < $2 AND digest IN (SELECT item.value FROM {each}) \
         AND EXISTS (SELECT 1 FROM manifest_references e \
         WHERE e.repository_id = links.repository_id AND e.digest = links.digest)"
    )
}

pub(crate) fn loosen_overdue(dialect: Dialect) -> String {
    let each = dialect.each("$3");
    format!(
        "UPDATE contents SET loose = 1 WHERE digest IN (SELECT l.digest FROM links l \
         WHERE l.repository_id = $1 AND l.lease_until_ms < $2 \
         AND l.digest IN (SELECT item.value FROM {each}))"
    )
}

pub(crate) fn unlink_overdue(dialect: Dialect) -> String {
    let each = dialect.each("$3");
    format!(
        "DELETE FROM links WHERE repository_id = $1 AND lease_until_ms < $2 \
         AND digest IN (SELECT item.value FROM {each})"
    )
}

pub(crate) const LOOSE: &str = "SELECT digest, size FROM contents \
     WHERE loose = 1 AND digest > $1 ORDER BY digest LIMIT $2";
pub(crate) const FASTEN: &str = "UPDATE contents SET loose = 0 WHERE digest = $1 AND loose = 1";
pub(crate) const HELD: &str = "SELECT 1 WHERE \
     EXISTS (SELECT 1 FROM links l JOIN repositories r ON r.id = l.repository_id \
     WHERE l.digest = $1 AND r.kind = 'hosted') OR \
     EXISTS (SELECT 1 FROM manifests m JOIN repositories r ON r.id = m.repository_id \
     WHERE m.digest = $1 AND r.kind = 'hosted')";
pub(crate) const DROP_CONTENT: &str = "DELETE FROM contents WHERE digest = $1";
pub(crate) const EMPTY: &str = "SELECT r.name FROM repositories r WHERE \
     NOT EXISTS (SELECT 1 FROM links l WHERE l.repository_id = r.id) AND \
     NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id) AND \
     NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = r.id) LIMIT $1";
pub(crate) const DROP_EMPTY: &str = "DELETE FROM repositories WHERE name = $1 AND \
     NOT EXISTS (SELECT 1 FROM links l WHERE l.repository_id = repositories.id) AND \
     NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = repositories.id) AND \
     NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = repositories.id)";

impl Catalog {
    /// Collects hosted content whose lease was over at `now_ms` and that nothing holds; `batch`
    /// bounds what one transaction unlinks. May run beside pushes and other sweeps; dropped half
    /// way, it has done half.
    ///
    /// `remove` removes a digest's bytes from the store and must be done with it when it answers:
    /// a removal still under way after that could hit a blob pushed anew. It must be bounded in
    /// time (SQLite has one writer, and it waits), and removing what is not there is no error.
    ///
    /// # Errors
    /// The database failed. A store that fails is told in [`SweepReport::failed`].
    pub async fn sweep<F, E>(
        &self,
        now_ms: i64,
        batch: u32,
        mut remove: impl FnMut(Digest) -> F,
    ) -> Result<SweepReport>
    where
        // Not `AsyncFnMut`: of the future of one of those the compiler can't see that it is Send.
        F: Future<Output = std::result::Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let batch = batch.max(1);
        attempt(|| "sweep hosted repositories".to_owned(), async {
            let mut report = SweepReport {
                unlinked: self.unlink_overdue(now_ms, batch).await?,
                ..Default::default()
            };
            let mut after = String::new();
            loop {
                let loose = self.loose(&after, batch).await?;
                let Some((last, _)) = loose.last() else { break };
                after = last.to_string();
                for (digest, size) in loose {
                    match self.remove_if_loose(digest, &mut remove).await? {
                        Removal::Held => {}
                        Removal::Removed => {
                            report.removed += 1;
                            report.bytes += size;
                        }
                        Removal::Failed(error) => report.failed.push((digest, error.into())),
                    }
                    if report.failed.len() >= MAX_FAILED {
                        return Ok(report);
                    }
                }
            }
            report.repositories = self.drop_empty(batch).await?;
            Ok(report)
        })
        .await
    }

    async fn unlink_overdue(&self, now_ms: i64, batch: u32) -> Result<u64> {
        let mut unlinked = 0;
        loop {
            let overdue: Vec<(String, String)> = sqlx::query_as(OVERDUE)
                .bind(now_ms)
                .bind(i64::from(batch))
                .fetch_all(&self.reader)
                .await?;
            // Each link that was read is unlinked, held by a manifest or renewed now, so that
            // reading again gives others.
            let last = overdue.len() < batch as usize;
            let mut by_repository: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (repository, digest) in overdue {
                by_repository.entry(repository).or_default().push(digest);
            }
            for (repository, digests) in by_repository {
                let mut write = self.write().await?;
                write.hold(SWEEP, Hold::Exclusive).await?;
                write.hold(&repository, Hold::Exclusive).await?;
                if let Some(found) = write.find(&repository).await? {
                    unlinked +=
                        write.unlink_overdue(found.id, now_ms, rows::array(digests)).await?;
                }
                write.commit().await?;
            }
            if last {
                return Ok(unlinked);
            }
        }
    }

    async fn loose(&self, after: &str, batch: u32) -> Result<Vec<(Digest, u64)>> {
        let loose: Vec<(String, i64)> = sqlx::query_as(LOOSE)
            .bind(after)
            .bind(i64::from(batch))
            .fetch_all(&self.reader)
            .await?;
        loose.iter().map(|(digest, size)| Ok((rows::digest(digest)?, rows::size(*size)?))).collect()
    }

    async fn remove_if_loose<E, F>(
        &self,
        digest: Digest,
        remove: &mut impl FnMut(Digest) -> F,
    ) -> Result<Removal<E>>
    where
        F: Future<Output = std::result::Result<(), E>>,
    {
        let mut write = self.write().await?;
        if let Some(statement) = self.dialect().patience() {
            sqlx::query(statement).execute(write.connection()).await?;
        }
        // The order of these statements is what the head of this file argues about.
        let text = digest.to_string();
        let locked = sqlx::query(FASTEN).bind(text.as_str()).execute(write.connection()).await?;
        if locked.rows_affected() == 0 {
            return Ok(Removal::Held);
        }
        let held = sqlx::query(HELD).bind(text.as_str()).fetch_optional(write.connection()).await?;
        if held.is_some() {
            write.commit().await?;
            return Ok(Removal::Held);
        }
        sqlx::query(DROP_CONTENT).bind(text).execute(write.connection()).await?;
        if let Err(error) = remove(digest).await {
            return Ok(Removal::Failed(error));
        }
        write.commit().await?;
        Ok(Removal::Removed)
    }

    async fn drop_empty(&self, batch: u32) -> Result<u64> {
        let mut dropped = 0;
        loop {
            let empty: Vec<String> =
                sqlx::query_scalar(EMPTY).bind(i64::from(batch)).fetch_all(&self.reader).await?;
            let last = empty.len() < batch as usize;
            for name in empty {
                let mut write = self.write().await?;
                write.hold(&name, Hold::Exclusive).await?;
                let gone = sqlx::query(DROP_EMPTY).bind(name).execute(write.connection()).await?;
                dropped += gone.rows_affected();
                write.commit().await?;
            }
            if last {
                return Ok(dropped);
            }
        }
    }
}

enum Removal<E> {
    Removed,
    Held,
    Failed(E),
}

impl Write {
    async fn unlink_overdue(&mut self, id: i64, now_ms: i64, digests: String) -> Result<u64> {
        let mut changed = 0;
        let statements =
            [take_over(self.dialect), loosen_overdue(self.dialect), unlink_overdue(self.dialect)];
        for statement in statements {
            let done = sqlx::query(AssertSqlSafe(statement))
                .bind(id)
                .bind(now_ms)
                .bind(digests.as_str())
                .execute(self.connection())
                .await?;
            changed = done.rows_affected();
        }
        Ok(changed)
    }
}
