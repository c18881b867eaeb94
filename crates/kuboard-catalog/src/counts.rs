//! How much there is, for metrics.

use crate::{
    database::Catalog,
    error::{Result, attempt},
    rows,
};

/// How much the catalogue holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Hosted repositories.
    pub hosted_repositories: u64,
    /// Cached repositories.
    pub cached_repositories: u64,
    /// Tags, in both kinds.
    pub tags: u64,
    /// Manifests, in both kinds; one in two repositories counts twice.
    pub manifests: u64,
    /// Different blobs and manifests that hosted repositories hold.
    pub hosted_contents: u64,
    /// Their bytes, each counted once.
    pub hosted_bytes: u64,
}

pub(crate) const COUNTS: &str = "SELECT \
     (SELECT COUNT(*) FROM repositories WHERE kind = 'hosted'), \
     (SELECT COUNT(*) FROM repositories WHERE kind = 'cached'), \
     (SELECT COUNT(*) FROM tags), \
     (SELECT COUNT(*) FROM manifests), \
     (SELECT COUNT(*) FROM contents), \
     (SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM contents)";

impl Catalog {
    /// Counts everything, which reads every index once: for an occasional look (once a minute),
    /// not for each request.
    ///
    /// # Errors
    /// The database failed.
    pub async fn counts(&self) -> Result<Counts> {
        attempt(|| "count the catalogue's rows".to_owned(), async {
            let row: (i64, i64, i64, i64, i64, i64) =
                sqlx::query_as(COUNTS).fetch_one(&self.reader).await?;
            Ok(Counts {
                hosted_repositories: rows::size(row.0)?,
                cached_repositories: rows::size(row.1)?,
                tags: rows::size(row.2)?,
                manifests: rows::size(row.3)?,
                hosted_contents: rows::size(row.4)?,
                hosted_bytes: rows::size(row.5)?,
            })
        })
        .await
    }
}
