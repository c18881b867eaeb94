//! What layers and images contain, and the reports on images. Bodies are bytes in the form that
//! the scan engine writes; the catalogue does not look into them.

use kuboard_oci::Digest;

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Result, attempt},
    rows,
};

/// An image's inventory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InventoryRow {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Version of the indexers that made it.
    pub indexer: String,
    /// The inventory.
    pub body: Vec<u8>,
    /// When it was made.
    pub indexed_ms: i64,
}

/// An image's report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReportRow {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// The report.
    pub body: Vec<u8>,
    /// JSON with what lists need: counts by severity, outcome.
    pub summary: String,
    /// Generation of the advisories that were used.
    pub generation: u64,
    /// When it was made.
    pub reported_ms: i64,
    /// When the image's first report that says something was made; 0: this one says nothing, and
    /// none before it did. Kept as the first report that was stored with it said.
    pub first_ms: i64,
}

/// A report that was made or changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReportChange {
    /// Number of the change; later ones have higher numbers.
    pub number: u64,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// When the report was made.
    pub reported_ms: i64,
}

/// A name that an image was seen under.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct ImageName {
    /// Registry host; empty for hosted repositories.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Tag; empty if it was asked for by digest.
    pub tag: String,
}

/// A name with the image behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedImage {
    /// The name.
    pub name: ImageName,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// When it was last seen so.
    pub seen_ms: i64,
}

pub(crate) const PUT_LAYER: &str = "INSERT INTO layer_inventories (layer, indexer, body, created_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (layer, indexer) DO UPDATE SET body = excluded.body";
pub(crate) const LAYER: &str =
    "SELECT body FROM layer_inventories WHERE layer = $1 AND indexer = $2";
pub(crate) const PUT_IMAGE: &str = "INSERT INTO image_inventories (image, indexer, body, indexed_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (image) DO UPDATE SET indexer = excluded.indexer, body = excluded.body, \
     indexed_ms = excluded.indexed_ms";
pub(crate) const IMAGE: &str =
    "SELECT indexer, body, indexed_ms FROM image_inventories WHERE image = $1";
pub(crate) const UNINDEX: &str = "DELETE FROM image_packages WHERE image = $1";
pub(crate) const IMAGES: &str =
    "SELECT image FROM image_inventories WHERE image > $1 ORDER BY image LIMIT $2";
pub(crate) const PUT_REPORT: &str = "INSERT INTO image_reports \
     (image, body, summary, generation, reported_ms, first_ms, change) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) \
     ON CONFLICT (image) DO UPDATE SET body = excluded.body, summary = excluded.summary, \
     generation = excluded.generation, reported_ms = excluded.reported_ms, \
     first_ms = CASE WHEN image_reports.first_ms > 0 THEN image_reports.first_ms \
       ELSE excluded.first_ms END, change = excluded.change";
/// Whoever has the number holds the counter until its transaction ends, so that numbers become
/// visible in their order.
pub(crate) const NEXT_CHANGE: &str =
    "UPDATE counters SET value = value + 1 WHERE name = 'image reports' RETURNING value";
pub(crate) const CHANGES: &str = "SELECT change, image, reported_ms FROM image_reports \
     WHERE change > $1 ORDER BY change LIMIT $2";
pub(crate) const REPORT: &str =
    "SELECT body, summary, generation, reported_ms, first_ms FROM image_reports WHERE image = $1";
pub(crate) const SUMMARIES: &str = "SELECT image, summary FROM image_reports \
     WHERE image > $1 ORDER BY image LIMIT $2";
pub(crate) const NAME: &str = "INSERT INTO image_names (registry, repository, tag, image, seen_ms) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (registry, repository, tag, image) \
     DO UPDATE SET seen_ms = excluded.seen_ms";
pub(crate) const NAMES: &str = "SELECT registry, repository, tag, image, seen_ms \
     FROM image_names WHERE image = $1 ORDER BY registry, repository, tag";
pub(crate) const SEEN: &str = "SELECT registry, repository, tag, image, seen_ms FROM image_names \
     WHERE seen_ms >= $1 ORDER BY registry, repository, tag, seen_ms, image";
pub(crate) const NAMED: &str = "SELECT image FROM image_names WHERE registry = $1 \
     AND repository = $2 AND tag = $3 ORDER BY seen_ms DESC, image DESC LIMIT 1";
pub(crate) const INDEXER: &str = "SELECT indexer FROM image_inventories WHERE image = $1";
const FORGET_IMAGE: [&str; 4] = [
    "DELETE FROM image_packages WHERE image = $1",
    "DELETE FROM image_reports WHERE image = $1",
    "DELETE FROM image_names WHERE image = $1",
    "DELETE FROM image_inventories WHERE image = $1",
];

pub(crate) fn index_all(dialect: Dialect) -> String {
    let keys = dialect.each("$2");
    format!(
        "INSERT INTO image_packages (key, image) SELECT value, $1 FROM {keys} WHERE true \
         ON CONFLICT (key, image) DO NOTHING"
    )
}

pub(crate) fn holders(dialect: Dialect) -> String {
    let keys = dialect.each("$1");
    format!(
        "SELECT DISTINCT image FROM image_packages WHERE key IN (SELECT value FROM {keys}) \
         ORDER BY image"
    )
}

fn digests(found: Vec<(String,)>) -> Result<Vec<Digest>> {
    found.iter().map(|(digest,)| rows::digest(digest)).collect()
}

type Named = (String, String, String, String, i64);

fn named(row: Named) -> Result<NamedImage> {
    let (registry, repository, tag, image, seen_ms) = row;
    let name = ImageName { registry, repository, tag };
    Ok(NamedImage { name, image: rows::digest(&image)?, seen_ms })
}

/// Comes last in a transaction, since from here on others wait who report on images.
pub(crate) async fn put_report(write: &mut Write, row: &ReportRow) -> Result<()> {
    let (change,): (i64,) = sqlx::query_as(NEXT_CHANGE).fetch_one(write.connection()).await?;
    sqlx::query(PUT_REPORT)
        .bind(row.image.to_string())
        .bind(&row.body)
        .bind(&row.summary)
        .bind(rows::stored_size(row.generation)?)
        .bind(row.reported_ms)
        .bind(row.first_ms)
        .bind(change)
        .execute(write.connection())
        .await?;
    Ok(())
}

impl Catalog {
    /// Keeps a layer's inventory.
    ///
    /// # Errors
    /// The database failed.
    pub async fn put_layer_inventory(
        &self,
        layer: &Digest,
        indexer: &str,
        body: &[u8],
        now_ms: i64,
    ) -> Result<()> {
        attempt(|| format!("keep the inventory of layer {layer}"), async {
            sqlx::query(PUT_LAYER)
                .bind(layer.to_string())
                .bind(indexer)
                .bind(body)
                .bind(now_ms)
                .execute(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    /// A layer's inventory by indexers of that version.
    ///
    /// # Errors
    /// The database failed.
    pub async fn layer_inventory(&self, layer: &Digest, indexer: &str) -> Result<Option<Vec<u8>>> {
        attempt(|| format!("read the inventory of layer {layer}"), async {
            let found: Option<(Vec<u8>,)> = sqlx::query_as(LAYER)
                .bind(layer.to_string())
                .bind(indexer)
                .fetch_optional(&self.reader)
                .await?;
            Ok(found.map(|(body,)| body))
        })
        .await
    }

    /// Keeps an image's inventory together with the keys (`namespace name`) of its packages, by
    /// which [`Catalog::images_with`] finds it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn put_image_inventory(
        &self,
        row: &InventoryRow,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        attempt(|| format!("keep the inventory of image {}", row.image), async {
            let image = row.image.to_string();
            let mut write = self.write().await?;
            sqlx::query(PUT_IMAGE)
                .bind(&image)
                .bind(&row.indexer)
                .bind(&row.body)
                .bind(row.indexed_ms)
                .execute(write.connection())
                .await?;
            sqlx::query(UNINDEX).bind(&image).execute(write.connection()).await?;
            sqlx::query(sqlx::AssertSqlSafe(index_all(self.dialect())))
                .bind(&image)
                .bind(rows::array(keys))
                .execute(write.connection())
                .await?;
            write.commit().await
        })
        .await
    }

    /// An image's inventory.
    ///
    /// # Errors
    /// The database failed.
    pub async fn image_inventory(&self, image: &Digest) -> Result<Option<InventoryRow>> {
        attempt(|| format!("read the inventory of image {image}"), async {
            let found: Option<(String, Vec<u8>, i64)> =
                sqlx::query_as(IMAGE).bind(image.to_string()).fetch_optional(&self.reader).await?;
            Ok(found.map(|(indexer, body, indexed_ms)| InventoryRow {
                image: *image,
                indexer,
                body,
                indexed_ms,
            }))
        })
        .await
    }

    /// Images with an inventory, by digest, after the given one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn inventoried_images(
        &self,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<Digest>> {
        attempt(|| "list inventories".to_owned(), async {
            let after = after.map(ToString::to_string).unwrap_or_default();
            digests(
                sqlx::query_as(IMAGES)
                    .bind(after)
                    .bind(i64::from(limit))
                    .fetch_all(&self.reader)
                    .await?,
            )
        })
        .await
    }

    /// Images that hold a package with any of these keys, by digest.
    ///
    /// # Errors
    /// The database failed.
    pub async fn images_with(&self, keys: &[String]) -> Result<Vec<Digest>> {
        attempt(|| "find the images that hold a package".to_owned(), async {
            digests(
                sqlx::query_as(sqlx::AssertSqlSafe(holders(self.dialect())))
                    .bind(rows::array(keys))
                    .fetch_all(&self.reader)
                    .await?,
            )
        })
        .await
    }

    /// Keeps an image's report in place of the last one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn put_report(&self, row: &ReportRow) -> Result<()> {
        attempt(|| format!("keep the report on {}", row.image), async {
            let mut write = self.write().await?;
            put_report(&mut write, row).await?;
            write.commit().await
        })
        .await
    }

    /// The report on an image.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report(&self, image: &Digest) -> Result<Option<ReportRow>> {
        attempt(|| format!("read the report on {image}"), async {
            let found: Option<(Vec<u8>, String, i64, i64, i64)> =
                sqlx::query_as(REPORT).bind(image.to_string()).fetch_optional(&self.reader).await?;
            let Some((body, summary, generation, reported_ms, first_ms)) = found else {
                return Ok(None);
            };
            let generation = rows::size(generation)?;
            Ok(Some(ReportRow { image: *image, body, summary, generation, reported_ms, first_ms }))
        })
        .await
    }

    /// Reports that were made or changed after the change of that number, in order; 0 begins with
    /// all. Of several changes to one report the last is told. Nothing is missed by whoever goes on
    /// after the last number it got. Images that were forgotten are not told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report_changes(&self, after: u64, limit: u32) -> Result<Vec<ReportChange>> {
        attempt(|| "list changed reports".to_owned(), async {
            let found: Vec<(i64, String, i64)> = sqlx::query_as(CHANGES)
                .bind(rows::stored_size(after)?)
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            let change = |(number, image, reported_ms): (i64, String, i64)| {
                let (number, image) = (rows::size(number)?, rows::digest(&image)?);
                Ok(ReportChange { number, image, reported_ms })
            };
            found.into_iter().map(change).collect()
        })
        .await
    }

    /// Images with a report and its summary, by digest, after the given one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report_summaries(
        &self,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<(Digest, String)>> {
        attempt(|| "list reports".to_owned(), async {
            let found: Vec<(String, String)> = sqlx::query_as(SUMMARIES)
                .bind(after.map(ToString::to_string).unwrap_or_default())
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            found.into_iter().map(|(image, text)| Ok((rows::digest(&image)?, text))).collect()
        })
        .await
    }

    /// Notes that an image was seen under a name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn name_image(&self, name: &ImageName, image: &Digest, now_ms: i64) -> Result<()> {
        attempt(|| format!("name {image}"), async {
            sqlx::query(NAME)
                .bind(&name.registry)
                .bind(&name.repository)
                .bind(&name.tag)
                .bind(image.to_string())
                .bind(now_ms)
                .execute(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    /// The names that an image was seen under.
    ///
    /// # Errors
    /// The database failed.
    pub async fn image_names(&self, image: &Digest) -> Result<Vec<NamedImage>> {
        attempt(|| format!("list the names of {image}"), async {
            let found: Vec<Named> =
                sqlx::query_as(NAMES).bind(image.to_string()).fetch_all(&self.reader).await?;
            found.into_iter().map(named).collect()
        })
        .await
    }

    /// The image that a name means now: the one last seen under it. `None`: the name is not known.
    ///
    /// # Errors
    /// The database failed.
    pub async fn image_named(&self, name: &ImageName) -> Result<Option<Digest>> {
        attempt(|| format!("find the image named {}:{}", name.repository, name.tag), async {
            let found: Option<(String,)> = sqlx::query_as(NAMED)
                .bind(&name.registry)
                .bind(&name.repository)
                .bind(&name.tag)
                .fetch_optional(&self.reader)
                .await?;
            found.map(|(image,)| rows::digest(&image)).transpose()
        })
        .await
    }

    /// The version of the indexers that made an image's inventory. `None`: it has none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn image_indexer(&self, image: &Digest) -> Result<Option<String>> {
        attempt(|| format!("look for the inventory of image {image}"), async {
            let found: Option<(String,)> = sqlx::query_as(INDEXER)
                .bind(image.to_string())
                .fetch_optional(&self.reader)
                .await?;
            Ok(found.map(|(indexer,)| indexer))
        })
        .await
    }

    /// All names seen since, by name, then by time: the last image of a name is what it means now.
    ///
    /// # Errors
    /// The database failed.
    pub async fn images_seen_since(&self, since_ms: i64) -> Result<Vec<NamedImage>> {
        attempt(|| "list the images seen".to_owned(), async {
            let found: Vec<Named> =
                sqlx::query_as(SEEN).bind(since_ms).fetch_all(&self.reader).await?;
            found.into_iter().map(named).collect()
        })
        .await
    }

    /// Forgets an image's inventory, report and names. Layers stay: other images share them.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_image(&self, image: &Digest) -> Result<bool> {
        attempt(|| format!("forget image {image}"), async {
            let mut write = self.write().await?;
            let mut gone = 0;
            for statement in FORGET_IMAGE {
                let done =
                    sqlx::query(statement).bind(image.to_string()).execute(write.connection());
                gone = done.await?.rows_affected();
            }
            write.commit().await?;
            Ok(gone > 0)
        })
        .await
    }
}
