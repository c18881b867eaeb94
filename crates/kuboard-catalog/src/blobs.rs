//! Blobs of repositories: announcing, leasing, mounting, unlinking.

use kuboard_oci::Digest;

use crate::{
    database::{Catalog, Write},
    error::{Result, attempt},
    repositories::{Hold, Kind},
    rows,
};

/// A blob as linked in one repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlobRow {
    /// Bytes.
    pub size: u64,
    /// Until when it stays though no manifest refers to it; 0 if nothing but manifests holds it.
    pub lease_until_ms: i64,
    /// A manifest of the same hosted repository refers to it.
    pub referenced: bool,
}

/// A digest whose bytes hosted repositories count on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostedRow {
    /// Of a blob or a manifest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// It is a hosted manifest, or one refers to it: the bytes must be there. Otherwise it is only
    /// announced, and after a crash the bytes may never have come.
    pub referenced: bool,
}

/// Leases are renewed up to the next full step, so that a client that asks for a blob many times
/// causes one write a step.
pub(crate) const LEASE_STEP_MS: i64 = 60_000;

pub(crate) const ANNOUNCE: &str = "INSERT INTO contents (digest, size) VALUES ($1, $2) \
     ON CONFLICT (digest) DO UPDATE SET size = excluded.size";
pub(crate) const LOCK_CONTENT: &str = "UPDATE contents SET size = size WHERE digest = $1";
pub(crate) const LINK: &str = "INSERT INTO links (repository_id, digest, size, lease_until_ms) \
     VALUES ($1, $2, $3, $4) \
     ON CONFLICT (repository_id, digest) DO UPDATE SET \
     lease_until_ms = CASE WHEN links.lease_until_ms > excluded.lease_until_ms \
     THEN links.lease_until_ms ELSE excluded.lease_until_ms END";
pub(crate) const BLOB: &str = "SELECT l.size, COALESCE(l.lease_until_ms, 0), \
     CASE WHEN EXISTS (SELECT 1 FROM manifest_references e \
     WHERE e.repository_id = l.repository_id AND e.digest = l.digest) THEN 1 ELSE 0 END \
     FROM repositories r JOIN links l ON l.repository_id = r.id AND l.digest = $2 \
     WHERE r.name = $1";
pub(crate) const LEASE: &str = "SELECT r.id, r.kind, COALESCE(l.lease_until_ms, 0) \
     FROM repositories r JOIN links l ON l.repository_id = r.id AND l.digest = $2 \
     WHERE r.name = $1";
pub(crate) const RENEW: &str = "UPDATE links \
     SET lease_until_ms = CASE WHEN lease_until_ms > $3 THEN lease_until_ms ELSE $3 END \
     WHERE repository_id = $1 AND digest = $2";
pub(crate) const HOSTED_SIZE: &str = "SELECT l.size \
     FROM repositories r JOIN links l ON l.repository_id = r.id AND l.digest = $2 \
     WHERE r.name = $1 AND r.kind = 'hosted'";
pub(crate) const FIND_BLOB: &str = "SELECT r.name, l.size \
     FROM links l JOIN repositories r ON r.id = l.repository_id \
     WHERE l.digest = $1 AND r.kind = 'hosted' LIMIT 1";
pub(crate) const UNLINK: &str = "DELETE FROM links WHERE repository_id = $1 AND digest = $2";
pub(crate) const LOOSEN: &str = "UPDATE contents SET loose = 1 WHERE digest = $1";
pub(crate) const HOSTED: &str = "SELECT c.digest, c.size, \
     CASE WHEN EXISTS (SELECT 1 FROM manifests m JOIN repositories r ON r.id = m.repository_id \
     WHERE m.digest = c.digest AND r.kind = 'hosted') \
     OR EXISTS (SELECT 1 FROM manifest_references e \
     JOIN links l ON l.repository_id = e.repository_id AND l.digest = e.digest \
     WHERE e.digest = c.digest) THEN 1 ELSE 0 END \
     FROM contents c WHERE c.digest > $1 ORDER BY c.digest LIMIT $2";

impl Catalog {
    /// Announces a blob of a repository **before** its bytes are published, with a lease. The
    /// repository is made if absent. Announced again, the longer lease counts.
    ///
    /// # Errors
    /// Conflict if the repository is of the other kind; otherwise the database failed.
    pub async fn put_blob(
        &self,
        repository: &str,
        kind: Kind,
        digest: &Digest,
        size: u64,
        lease_until_ms: i64,
    ) -> Result<()> {
        attempt(|| format!("announce {digest} in {repository}"), async {
            let stored_size = rows::stored_size(size)?;
            let mut write = self.write().await?;
            write.hold(repository, Hold::Shared).await?;
            let id = write.ensure(repository, kind).await?;
            let lease = (kind == Kind::Hosted).then_some(lease_until_ms);
            if kind == Kind::Hosted {
                // From here to the commit no sweep can remove this digest: see sweep.rs.
                sqlx::query(ANNOUNCE)
                    .bind(digest.to_string())
                    .bind(stored_size)
                    .execute(write.connection())
                    .await?;
            }
            write.link(id, digest, stored_size, lease).await?;
            write.commit().await
        })
        .await
    }

    /// The blob as linked in this repository.
    ///
    /// # Errors
    /// The database failed.
    pub async fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<BlobRow>> {
        attempt(|| format!("look up {digest} in {repository}"), async {
            let row: Option<(i64, i64, i64)> = sqlx::query_as(BLOB)
                .bind(repository)
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await?;
            let Some((size, lease_until_ms, referenced)) = row else { return Ok(None) };
            Ok(Some(BlobRow {
                size: rows::size(size)?,
                lease_until_ms,
                referenced: referenced > 0,
            }))
        })
        .await
    }

    /// Makes the blob's lease last at least until then (up to a minute longer). False if it is not
    /// linked: the client has to send it. Once this said true, no sweep before that time takes it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn renew_lease(
        &self,
        repository: &str,
        digest: &Digest,
        until_ms: i64,
    ) -> Result<bool> {
        attempt(|| format!("renew the lease of {digest} in {repository}"), async {
            let row: Option<(i64, String, i64)> = sqlx::query_as(LEASE)
                .bind(repository)
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await?;
            let Some((id, kind, lease_until_ms)) = row else { return Ok(false) };
            if kind == Kind::Cached.as_str() || lease_until_ms >= until_ms {
                return Ok(true);
            }
            // The sweep deletes with the lease as a condition of the same statement, so either it
            // sees this renewal or this update finds no row any more.
            let step = until_ms.rem_euclid(LEASE_STEP_MS);
            let until_ms = until_ms.saturating_add((LEASE_STEP_MS - step) % LEASE_STEP_MS);
            let renewed = sqlx::query(RENEW)
                .bind(id)
                .bind(digest.to_string())
                .bind(until_ms)
                .execute(self.writer())
                .await?;
            Ok(renewed.rows_affected() > 0)
        })
        .await
    }

    /// Links a blob of the hosted repository `from` into the hosted repository `to` and gives its
    /// size; none if `from` does not hold it.
    ///
    /// # Errors
    /// Conflict if `to` is a cached repository; otherwise the database failed.
    pub async fn mount(
        &self,
        from: &str,
        to: &str,
        digest: &Digest,
        lease_until_ms: i64,
    ) -> Result<Option<u64>> {
        attempt(|| format!("mount {digest} from {from} into {to}"), async {
            let mut write = self.write().await?;
            write.hold(to, Hold::Shared).await?;
            // Locks the content as put_blob does; a sweep that was faster has left no row.
            let locked = sqlx::query(LOCK_CONTENT)
                .bind(digest.to_string())
                .execute(write.connection())
                .await?;
            if locked.rows_affected() == 0 {
                return Ok(None);
            }
            let size: Option<i64> = sqlx::query_scalar(HOSTED_SIZE)
                .bind(from)
                .bind(digest.to_string())
                .fetch_optional(write.connection())
                .await?;
            let Some(size) = size else { return Ok(None) };
            let id = write.ensure(to, Kind::Hosted).await?;
            write.link(id, digest, size, Some(lease_until_ms)).await?;
            write.commit().await?;
            Ok(Some(rows::size(size)?))
        })
        .await
    }

    /// Some hosted repository that holds the blob, and its size.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find_blob(&self, digest: &Digest) -> Result<Option<(String, u64)>> {
        attempt(|| format!("look for {digest}"), async {
            let row: Option<(String, i64)> = sqlx::query_as(FIND_BLOB)
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await?;
            row.map(|(name, size)| Ok((name, rows::size(size)?))).transpose()
        })
        .await
    }

    /// Takes the blob out of the repository, referenced or not. The bytes go with the next sweep
    /// if nothing else holds them. False if it was not there.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unlink_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        attempt(|| format!("unlink {digest} from {repository}"), async {
            let mut write = self.write().await?;
            write.hold(repository, Hold::Exclusive).await?;
            let Some(found) = write.find(repository).await? else { return Ok(false) };
            let gone = sqlx::query(UNLINK)
                .bind(found.id)
                .bind(digest.to_string())
                .execute(write.connection())
                .await?;
            if gone.rows_affected() == 0 {
                return Ok(false);
            }
            write.loosen(digest).await?;
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Digests that hosted repositories count on, as blobs or manifests, in ASCII order after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn hosted_digests(
        &self,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<HostedRow>> {
        attempt(|| "list hosted content".to_owned(), async {
            let found: Vec<(String, i64, i64)> = sqlx::query_as(HOSTED)
                .bind(after.map(Digest::to_string).unwrap_or_default())
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            let row = |(digest, size, referenced): (String, i64, i64)| {
                Ok(HostedRow {
                    digest: rows::digest(&digest)?,
                    size: rows::size(size)?,
                    referenced: referenced > 0,
                })
            };
            found.into_iter().map(row).collect()
        })
        .await
    }
}

impl Write {
    pub(crate) async fn link(
        &mut self,
        id: i64,
        digest: &Digest,
        size: i64,
        lease: Option<i64>,
    ) -> Result<()> {
        sqlx::query(LINK)
            .bind(id)
            .bind(digest.to_string())
            .bind(size)
            .bind(lease)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Tells the sweep to look whether anything still holds this digest.
    pub(crate) async fn loosen(&mut self, digest: &Digest) -> Result<()> {
        sqlx::query(LOOSEN).bind(digest.to_string()).execute(self.connection()).await?;
        Ok(())
    }
}
