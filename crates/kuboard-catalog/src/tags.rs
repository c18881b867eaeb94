//! Tags: names in a repository that point to manifests.

use kuboard_oci::{Digest, Tag};
use sqlx::AssertSqlSafe;

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Error, ErrorKind, Result, attempt},
    repositories::{Hold, Kind},
    rows,
};

/// Where a tag points, and the manifest there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TagRow {
    /// Of the manifest.
    pub digest: Digest,
    /// Of the manifest.
    pub media_type: String,
    /// Of the manifest, in bytes.
    pub size: u64,
    /// When the tag last came to point elsewhere.
    pub updated_ms: i64,
    /// When it was last known to point here: the push, or the upstream's last word.
    pub checked_ms: i64,
    /// The upstream's entity tag, if it gave one.
    pub etag: Option<String>,
}

pub(crate) const RESOLVE: &str = "SELECT t.digest, m.media_type, m.size, t.updated_ms, \
     t.checked_ms, t.etag FROM repositories r \
     JOIN tags t ON t.repository_id = r.id AND t.name = $2 \
     JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest \
     WHERE r.name = $1";
pub(crate) const SET: &str = "INSERT INTO tags \
     (repository_id, name, digest, updated_ms, checked_ms, etag) VALUES ($1, $2, $3, $4, $4, $5) \
     ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, \
     updated_ms = CASE WHEN tags.digest = excluded.digest THEN tags.updated_ms \
     ELSE excluded.updated_ms END, \
     checked_ms = excluded.checked_ms, etag = excluded.etag";

/// As `SET` for many tags; an entity tag of the same digest stays.
pub(crate) fn point(dialect: Dialect) -> String {
    let each = dialect.each("$4");
    format!(
        "INSERT INTO tags (repository_id, name, digest, updated_ms, checked_ms) \
         SELECT $1, item.value, $2, $3, $3 FROM {each} WHERE true \
         ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, \
         updated_ms = CASE WHEN tags.digest = excluded.digest THEN tags.updated_ms \
         ELSE excluded.updated_ms END, \
         checked_ms = excluded.checked_ms, \
         etag = CASE WHEN tags.digest = excluded.digest THEN tags.etag END"
    )
}

pub(crate) const HAS_MANIFEST: &str =
    "SELECT 1 FROM manifests WHERE repository_id = $1 AND digest = $2";
pub(crate) const DELETE_TAG: &str = "DELETE FROM tags WHERE name = $2 AND repository_id = \
     (SELECT id FROM repositories WHERE name = $1)";
pub(crate) const TAGS: &str = "SELECT name FROM tags WHERE repository_id = $1 AND name > $2 \
     ORDER BY name LIMIT $3";

impl Catalog {
    /// Where the tag points; none if there is no such tag, or (cached) its manifest is not known.
    ///
    /// # Errors
    /// The database failed.
    pub async fn resolve(&self, repository: &str, tag: &Tag) -> Result<Option<TagRow>> {
        attempt(|| format!("resolve {repository}:{tag}"), async {
            let row: Option<(String, String, i64, i64, i64, Option<String>)> =
                sqlx::query_as(RESOLVE)
                    .bind(repository)
                    .bind(tag.as_str())
                    .fetch_optional(&self.reader)
                    .await?;
            let Some((digest, media_type, size, updated_ms, checked_ms, etag)) = row else {
                return Ok(None);
            };
            let (digest, size) = (rows::digest(&digest)?, rows::size(size)?);
            Ok(Some(TagRow { digest, media_type, size, updated_ms, checked_ms, etag }))
        })
        .await
    }

    /// Points a tag. A cached repository is made if absent and its manifest need not be known; a
    /// hosted one must hold the manifest.
    ///
    /// # Errors
    /// Conflict if a hosted repository lacks the manifest or the repository is of the other kind;
    /// otherwise the database failed.
    #[expect(clippy::too_many_arguments, reason = "one tag's row, each of another type")]
    pub async fn set_tag(
        &self,
        repository: &str,
        kind: Kind,
        tag: &Tag,
        digest: &Digest,
        checked_ms: i64,
        etag: Option<&str>,
    ) -> Result<()> {
        attempt(|| format!("point {repository}:{tag} to {digest}"), async {
            let mut write = self.write().await?;
            write.hold(repository, Hold::Shared).await?;
            let id = write.ensure(repository, kind).await?;
            if kind == Kind::Hosted {
                let manifest = sqlx::query(HAS_MANIFEST)
                    .bind(id)
                    .bind(digest.to_string())
                    .fetch_optional(write.connection())
                    .await?;
                if manifest.is_none() {
                    return Err(Error::new(ErrorKind::Conflict, "there is no such manifest"));
                }
            }
            sqlx::query(SET)
                .bind(id)
                .bind(tag.as_str())
                .bind(digest.to_string())
                .bind(checked_ms)
                .bind(etag)
                .execute(write.connection())
                .await?;
            write.commit().await
        })
        .await
    }

    /// Deletes the tag, not its manifest. False if it was not there.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delete_tag(&self, repository: &str, tag: &Tag) -> Result<bool> {
        attempt(|| format!("delete {repository}:{tag}"), async {
            let gone = sqlx::query(DELETE_TAG)
                .bind(repository)
                .bind(tag.as_str())
                .execute(self.writer())
                .await?;
            Ok(gone.rows_affected() > 0)
        })
        .await
    }

    /// Tag names in ASCII order after `after`, at most `limit`; none if there is no such
    /// repository. (A known one may have no tags.)
    ///
    /// # Errors
    /// The database failed.
    pub async fn tags(
        &self,
        repository: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<String>>> {
        attempt(|| format!("list tags of {repository}"), async {
            let Some(found) = self.find(repository).await? else { return Ok(None) };
            let names = sqlx::query_scalar(TAGS)
                .bind(found.id)
                .bind(rows::after(after))
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            Ok(Some(names))
        })
        .await
    }
}

impl Write {
    pub(crate) async fn point(
        &mut self,
        id: i64,
        tags: &[Tag],
        digest: &Digest,
        now_ms: i64,
    ) -> Result<()> {
        sqlx::query(AssertSqlSafe(point(self.dialect)))
            .bind(id)
            .bind(digest.to_string())
            .bind(now_ms)
            .bind(rows::array(tags))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
