//! Pins: digests that the cache keeps whatever else must go, and why.

use kuboard_oci::Digest;

use crate::{
    database::Catalog,
    error::{Result, attempt},
    rows,
};

/// One reason to keep one digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinRow {
    /// What is kept.
    pub digest: Digest,
    /// Why; a digest may be pinned for several reasons.
    pub reason: String,
    /// Since when.
    pub created_ms: i64,
}

pub(crate) const PINS: &str = "SELECT digest, reason, created_ms FROM pins ORDER BY digest, reason";
pub(crate) const ADD: &str = "INSERT INTO pins (digest, reason, created_ms) VALUES ($1, $2, $3) \
     ON CONFLICT (digest, reason) DO NOTHING";
pub(crate) const REMOVE: &str = "DELETE FROM pins WHERE digest = $1 AND reason = $2";

impl Catalog {
    /// All pins, by digest and reason.
    ///
    /// # Errors
    /// The database failed.
    pub async fn pins(&self) -> Result<Vec<PinRow>> {
        attempt(|| "list pins".to_owned(), async {
            let found: Vec<(String, String, i64)> =
                sqlx::query_as(PINS).fetch_all(&self.reader).await?;
            let row = |(digest, reason, created_ms): (String, String, i64)| {
                Ok(PinRow { digest: rows::digest(&digest)?, reason, created_ms })
            };
            found.into_iter().map(row).collect()
        })
        .await
    }

    /// Pins a digest for this reason; pinned for it already, the older date stays.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_pin(&self, digest: &Digest, reason: &str, created_ms: i64) -> Result<()> {
        attempt(|| format!("pin {digest}"), async {
            sqlx::query(ADD)
                .bind(digest.to_string())
                .bind(reason)
                .bind(created_ms)
                .execute(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    /// Takes back the pin for this reason. False if there was none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_pin(&self, digest: &Digest, reason: &str) -> Result<bool> {
        attempt(|| format!("unpin {digest}"), async {
            let gone = sqlx::query(REMOVE)
                .bind(digest.to_string())
                .bind(reason)
                .execute(self.writer())
                .await?;
            Ok(gone.rows_affected() > 0)
        })
        .await
    }
}
