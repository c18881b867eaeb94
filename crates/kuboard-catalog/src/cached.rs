//! What cached repositories are known to hold. Nothing here is checked or kept for long: it can be
//! fetched again.

use kuboard_oci::Digest;

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Result, attempt},
    repositories::{Hold, Kind},
    rows,
};

pub(crate) const LINKED: &str = "SELECT 1 FROM repositories r WHERE r.name = $1 AND ( \
     EXISTS (SELECT 1 FROM links l WHERE l.repository_id = r.id AND l.digest = $2) OR \
     EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id AND m.digest = $2))";

pub(crate) fn link_all(dialect: Dialect) -> String {
    let each = dialect.each("$2");
    format!(
        "INSERT INTO links (repository_id, digest, size) SELECT $1, item.value, 0 FROM {each} \
         WHERE true ON CONFLICT (repository_id, digest) DO NOTHING"
    )
}

/// In the order in which a manifest is put, so that the two never wait for each other.
pub(crate) const FORGET: [&str; 3] = [
    "DELETE FROM manifests WHERE digest = $1 \
     AND repository_id IN (SELECT id FROM repositories WHERE kind = 'cached')",
    "DELETE FROM links WHERE digest = $1 \
     AND repository_id IN (SELECT id FROM repositories WHERE kind = 'cached')",
    "DELETE FROM tags WHERE digest = $1 \
     AND repository_id IN (SELECT id FROM repositories WHERE kind = 'cached')",
];

impl Catalog {
    /// Whether this repository, of either kind, is known to hold the digest as blob or manifest.
    ///
    /// # Errors
    /// The database failed.
    pub async fn linked(&self, repository: &str, digest: &Digest) -> Result<bool> {
        attempt(|| format!("look up {digest} in {repository}"), async {
            let found = sqlx::query(LINKED)
                .bind(repository)
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await?;
            Ok(found.is_some())
        })
        .await
    }

    /// Notes that this cached repository holds these digests; it is made if absent.
    ///
    /// # Errors
    /// Conflict if the repository is hosted; otherwise the database failed.
    pub async fn link(&self, repository: &str, digests: &[Digest]) -> Result<()> {
        attempt(|| format!("link {} digests in {repository}", digests.len()), async {
            let mut write = self.write().await?;
            write.hold(repository, Hold::Shared).await?;
            let id = write.ensure(repository, Kind::Cached).await?;
            write.link_all(id, digests).await?;
            write.commit().await
        })
        .await
    }

    /// The digest left the cache: in cached repositories its manifest, the tags that point to it
    /// and its links go. Hosted repositories are not touched.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_cached(&self, digest: &Digest) -> Result<()> {
        attempt(|| format!("forget {digest}"), async {
            let mut write = self.write().await?;
            for statement in FORGET {
                sqlx::query(statement).bind(digest.to_string()).execute(write.connection()).await?;
            }
            write.commit().await
        })
        .await
    }
}

impl Write {
    pub(crate) async fn link_all<'a>(
        &mut self,
        id: i64,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<()> {
        sqlx::query(sqlx::AssertSqlSafe(link_all(self.dialect)))
            .bind(id)
            .bind(rows::array(digests))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
