//! Manifests of repositories: taking them only with all they need, deleting, listing referrers.

use std::collections::{BTreeMap, BTreeSet};

use kuboard_oci::{Digest, Tag};
use sqlx::AssertSqlSafe;

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Error, ErrorKind, Result, attempt},
    repositories::{Hold, Kind},
    rows,
};

/// A manifest to be recorded. Its own bytes were announced by [`Catalog::put_blob`] (hosted) and
/// published before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestRow {
    /// The repository's name.
    pub repository: String,
    /// The repository's kind.
    pub kind: Kind,
    /// Of the manifest's bytes.
    pub digest: Digest,
    /// As sent with the manifest.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// What it is listed as among the referrers of its subject.
    pub artifact_type: Option<String>,
    /// The manifest that it says something about; need not exist.
    pub subject: Option<Digest>,
    /// The manifest's own annotations.
    pub annotations: BTreeMap<String, String>,
    /// Config and layers. Hosted: each must be linked in the repository; leave out what is not
    /// distributable.
    pub blobs: Vec<Digest>,
    /// Manifests of an index. Hosted: each must be a manifest of the repository.
    pub children: Vec<Digest>,
    /// When it was pushed or fetched.
    pub pushed_at_ms: i64,
}

/// What became of a manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum PutOutcome {
    /// It and its tags are recorded.
    Stored,
    /// Nothing was recorded since the repository lacks these: blobs, children, or the manifest's
    /// own digest when it was not announced (or its lease is over).
    Missing(Vec<Digest>),
}

/// A recorded manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestMeta {
    /// As it was sent.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// The manifest that it says something about.
    pub subject: Option<Digest>,
    /// What it is listed as among the referrers of its subject.
    pub artifact_type: Option<String>,
}

/// A manifest that names another as its subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReferrerRow {
    /// As it was sent.
    pub media_type: String,
    /// Of the referring manifest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// The referring manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

pub(crate) fn missing_blobs(dialect: Dialect) -> String {
    let each = dialect.each("$2");
    format!(
        "SELECT item.value FROM {each} WHERE NOT EXISTS (SELECT 1 FROM links l \
         WHERE l.repository_id = $1 AND l.digest = item.value)"
    )
}

pub(crate) fn missing_manifests(dialect: Dialect) -> String {
    let each = dialect.each("$2");
    format!(
        "SELECT item.value FROM {each} WHERE NOT EXISTS (SELECT 1 FROM manifests m \
         WHERE m.repository_id = $1 AND m.digest = item.value)"
    )
}

pub(crate) const PUT: &str = "INSERT INTO manifests (repository_id, digest, media_type, size, \
     artifact_type, subject, annotations, pushed_at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
     ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type, \
     size = excluded.size, artifact_type = excluded.artifact_type, subject = excluded.subject, \
     annotations = excluded.annotations, pushed_at_ms = excluded.pushed_at_ms";

pub(crate) fn refer(dialect: Dialect) -> String {
    let each = dialect.each("$3");
    format!(
        "INSERT INTO manifest_references (repository_id, manifest, digest) \
         SELECT $1, $2, item.value FROM {each} WHERE true \
         ON CONFLICT (repository_id, manifest, digest) DO NOTHING"
    )
}

pub(crate) const META: &str = "SELECT m.media_type, m.size, m.subject, m.artifact_type \
     FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 \
     WHERE r.name = $1";
pub(crate) const REFERRERS: &str = "SELECT m.media_type, m.digest, m.size, m.artifact_type, \
     m.annotations FROM repositories r \
     JOIN manifests m ON m.repository_id = r.id AND m.subject = $2 \
     WHERE r.name = $1 ORDER BY m.pushed_at_ms, m.digest";
pub(crate) const REFERRERS_OF_TYPE: &str = "SELECT m.media_type, m.digest, m.size, \
     m.artifact_type, m.annotations FROM repositories r \
     JOIN manifests m ON m.repository_id = r.id AND m.subject = $2 \
     WHERE r.name = $1 AND m.artifact_type = $3 ORDER BY m.pushed_at_ms, m.digest";

/// Leases that manifests took over run out at once, so that the next sweep looks at the links.
pub(crate) const EXPIRE: &str = "UPDATE links SET lease_until_ms = 0 \
     WHERE repository_id = $1 AND lease_until_ms IS NULL AND digest IN \
     (SELECT e.digest FROM manifest_references e WHERE e.repository_id = $1 AND e.manifest = $2)";
pub(crate) const UNTAG: &str = "DELETE FROM tags WHERE repository_id = $1 AND digest = $2";
pub(crate) const DELETE: &str = "DELETE FROM manifests WHERE repository_id = $1 AND digest = $2";

impl Catalog {
    /// Records a manifest and points `tags` at it, all or nothing. A hosted one only if its
    /// repository holds all that it needs. Doing it again is no error and brings `pushed_at_ms` up
    /// to date.
    ///
    /// # Errors
    /// Conflict if the repository is of the other kind; otherwise the database failed.
    pub async fn put_manifest(&self, row: &ManifestRow, tags: &[Tag]) -> Result<PutOutcome> {
        attempt(|| format!("record manifest {} in {}", row.digest, row.repository), async {
            refuse_nul(row)?;
            let mut write = self.write().await?;
            write.hold(&row.repository, Hold::Shared).await?;
            if row.kind == Kind::Hosted {
                let missing = write.missing(row).await?;
                if !missing.is_empty() {
                    return Ok(PutOutcome::Missing(missing));
                }
            }
            let id = write.ensure(&row.repository, row.kind).await?;
            write.put(id, row).await?;
            match row.kind {
                Kind::Hosted => {
                    let needed = row.blobs.iter().chain(&row.children);
                    write.refer(id, &row.digest, needed).await?;
                }
                // Only the manifest itself was proven to be in the repository: whoever can write
                // a manifest there can name any digest in it.
                Kind::Cached => write.link_all(id, std::iter::once(&row.digest)).await?,
            }
            if !tags.is_empty() {
                write.point(id, tags, &row.digest, row.pushed_at_ms).await?;
            }
            write.commit().await?;
            Ok(PutOutcome::Stored)
        })
        .await
    }

    /// The manifest as recorded in this repository.
    ///
    /// # Errors
    /// The database failed.
    pub async fn manifest(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Option<ManifestMeta>> {
        attempt(|| format!("look up manifest {digest} in {repository}"), async {
            let row: Option<(String, i64, Option<String>, Option<String>)> = sqlx::query_as(META)
                .bind(repository)
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await?;
            let Some((media_type, size, subject, artifact_type)) = row else { return Ok(None) };
            Ok(Some(ManifestMeta {
                media_type,
                size: rows::size(size)?,
                subject: subject.as_deref().map(rows::digest).transpose()?,
                artifact_type,
            }))
        })
        .await
    }

    /// Deletes the manifest and the tags that point to it. Its blobs stay until a sweep. False if
    /// it was not there.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<bool> {
        attempt(|| format!("delete manifest {digest} from {repository}"), async {
            let mut write = self.write().await?;
            write.hold(repository, Hold::Exclusive).await?;
            let Some(found) = write.find(repository).await? else { return Ok(false) };
            if !write.delete_manifest(found.id, digest).await? {
                return Ok(false);
            }
            write.commit().await?;
            Ok(true)
        })
        .await
    }

    /// The manifests of this repository that name `subject`, oldest first, of one type or all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<ReferrerRow>> {
        if artifact_type.is_some_and(|wanted| wanted.contains('\0')) {
            return Ok(Vec::new());
        }
        attempt(|| format!("list referrers of {subject} in {repository}"), async {
            let statement = if artifact_type.is_some() { REFERRERS_OF_TYPE } else { REFERRERS };
            let mut query = sqlx::query_as(statement).bind(repository).bind(subject.to_string());
            if let Some(artifact_type) = artifact_type {
                query = query.bind(artifact_type);
            }
            let found: Vec<StoredReferrer> = query.fetch_all(&self.reader).await?;
            found.into_iter().map(referrer).collect()
        })
        .await
    }
}

type StoredReferrer = (String, String, i64, Option<String>, String);

fn referrer(stored: StoredReferrer) -> Result<ReferrerRow> {
    let (media_type, digest, size, artifact_type, annotations) = stored;
    let annotations = serde_json::from_str(&annotations).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "the database holds annotations that are no JSON")
            .with_source(error)
    })?;
    Ok(ReferrerRow {
        media_type,
        digest: rows::digest(&digest)?,
        size: rows::size(size)?,
        artifact_type,
        annotations,
    })
}

/// PostgreSQL's text can't hold NUL; said here so that both databases say the same. (Annotations
/// are kept as JSON, which escapes it.)
fn refuse_nul(row: &ManifestRow) -> Result<()> {
    let artifact_type = row.artifact_type.as_deref().unwrap_or_default();
    if row.media_type.contains('\0') || artifact_type.contains('\0') {
        return Err(Error::new(ErrorKind::Conflict, "a media type holds a NUL character"));
    }
    Ok(())
}

impl Write {
    /// What a hosted manifest needs and its repository lacks, in the manifest's order.
    ///
    /// The repository is held shared, and whoever takes links or manifests away holds it
    /// exclusively: what is found here stays until the commit.
    async fn missing(&mut self, row: &ManifestRow) -> Result<Vec<Digest>> {
        let own = std::slice::from_ref(&row.digest);
        let Some(found) = self.find(&row.repository).await? else {
            let all = row.blobs.iter().chain(&row.children).chain(own);
            return Ok(in_order(all, |_| true));
        };
        let blobs = missing_blobs(self.dialect);
        let manifests = missing_manifests(self.dialect);
        let no_blobs = self.absent(&blobs, found.id, row.blobs.iter().chain(own)).await?;
        let no_manifests =
            self.absent(&manifests, found.id, row.children.iter().chain(own)).await?;
        let mut missing = in_order(&row.blobs, |digest| no_blobs.contains(digest));
        missing.extend(in_order(&row.children, |digest| no_manifests.contains(digest)));
        // Its own bytes are held by the announcement, or by the manifest when it is put again.
        missing.extend(in_order(own, |it| no_blobs.contains(it) && no_manifests.contains(it)));
        Ok(missing)
    }

    async fn absent(
        &mut self,
        statement: &str,
        id: i64,
        digests: impl Iterator<Item = &Digest>,
    ) -> Result<BTreeSet<Digest>> {
        let absent: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(id)
            .bind(rows::array(digests))
            .fetch_all(self.connection())
            .await?;
        absent.iter().map(|digest| rows::digest(digest)).collect()
    }

    async fn put(&mut self, id: i64, row: &ManifestRow) -> Result<()> {
        let annotations = serde_json::to_string(&row.annotations).map_err(|error| {
            Error::new(ErrorKind::Other, "the annotations can't be encoded").with_source(error)
        })?;
        sqlx::query(PUT)
            .bind(id)
            .bind(row.digest.to_string())
            .bind(row.media_type.as_str())
            .bind(rows::stored_size(row.size)?)
            .bind(row.artifact_type.as_deref())
            .bind(row.subject.map(|subject| subject.to_string()))
            .bind(annotations)
            .bind(row.pushed_at_ms)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn refer(
        &mut self,
        id: i64,
        manifest: &Digest,
        digests: impl Iterator<Item = &Digest>,
    ) -> Result<()> {
        sqlx::query(AssertSqlSafe(refer(self.dialect)))
            .bind(id)
            .bind(manifest.to_string())
            .bind(rows::array(digests))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The repository must be held exclusively.
    pub(crate) async fn delete_manifest(&mut self, id: i64, digest: &Digest) -> Result<bool> {
        for statement in [EXPIRE, UNTAG] {
            sqlx::query(statement)
                .bind(id)
                .bind(digest.to_string())
                .execute(self.connection())
                .await?;
        }
        let gone = sqlx::query(DELETE)
            .bind(id)
            .bind(digest.to_string())
            .execute(self.connection())
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        self.loosen(digest).await?;
        Ok(true)
    }
}

fn in_order<'a>(
    digests: impl IntoIterator<Item = &'a Digest>,
    mut wanted: impl FnMut(&Digest) -> bool,
) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    digests.into_iter().filter(|digest| wanted(digest) && seen.insert(**digest)).copied().collect()
}
