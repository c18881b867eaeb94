//! Deleting hosted manifests that nothing names any more.

use std::collections::BTreeMap;

use kuboard_oci::Digest;

use crate::{
    database::Catalog,
    error::{Result, attempt},
    repositories::{Hold, SWEEP},
    rows,
};

/// What `m` must satisfy besides its age. A signature or other referrer lives as long as its
/// subject; it does not keep the subject alive.
macro_rules! unnamed {
    () => {
        "NOT EXISTS (SELECT 1 FROM tags t \
         WHERE t.repository_id = m.repository_id AND t.digest = m.digest) \
         AND NOT EXISTS (SELECT 1 FROM manifest_references e \
         WHERE e.repository_id = m.repository_id AND e.digest = m.digest) \
         AND NOT EXISTS (SELECT 1 FROM manifests s \
         WHERE s.repository_id = m.repository_id AND s.digest = m.subject)"
    };
}

pub(crate) const UNNAMED: &str = concat!(
    "SELECT r.name, m.digest FROM manifests m JOIN repositories r ON r.id = m.repository_id \
     WHERE m.pushed_at_ms < $1 AND r.kind = 'hosted' AND ",
    unnamed!(),
    " ORDER BY m.pushed_at_ms LIMIT $2"
);
pub(crate) const STILL_UNNAMED: &str = concat!(
    "SELECT 1 FROM manifests m WHERE m.repository_id = $1 AND m.digest = $2 \
     AND m.pushed_at_ms < $3 AND ",
    unnamed!()
);

impl Catalog {
    /// Deletes hosted manifests pushed before `before_ms` that have no tag, are no child of an
    /// index, and whose subject (if they name one) is not there; then what that leaves without a
    /// name, and so on. Gives how many; their blobs go with the next sweep. `batch` bounds what one
    /// transaction deletes.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delete_untagged(&self, before_ms: i64, batch: u32) -> Result<u64> {
        attempt(|| "delete untagged manifests".to_owned(), async {
            let mut deleted = 0;
            loop {
                let unnamed: Vec<(String, String)> = sqlx::query_as(UNNAMED)
                    .bind(before_ms)
                    .bind(i64::from(batch.max(1)))
                    .fetch_all(&self.reader)
                    .await?;
                if unnamed.is_empty() {
                    return Ok(deleted);
                }
                let mut by_repository: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
                for (repository, digest) in unnamed {
                    by_repository.entry(repository).or_default().push(rows::digest(&digest)?);
                }
                for (repository, digests) in by_repository {
                    deleted += self.delete_unnamed(&repository, &digests, before_ms).await?;
                }
            }
        })
        .await
    }

    async fn delete_unnamed(
        &self,
        repository: &str,
        digests: &[Digest],
        before_ms: i64,
    ) -> Result<u64> {
        let mut write = self.write().await?;
        write.hold(SWEEP, Hold::Exclusive).await?;
        write.hold(repository, Hold::Exclusive).await?;
        let Some(found) = write.find(repository).await? else { return Ok(0) };
        let mut deleted = 0;
        for digest in digests {
            let unnamed = sqlx::query(STILL_UNNAMED)
                .bind(found.id)
                .bind(digest.to_string())
                .bind(before_ms)
                .fetch_optional(write.connection())
                .await?;
            if unnamed.is_some() && write.delete_manifest(found.id, digest).await? {
                deleted += 1;
            }
        }
        write.commit().await?;
        Ok(deleted)
    }
}
