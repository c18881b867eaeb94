//! Advisories changed: which images does it concern? The database says which packages have other
//! rows than before, the inverted index says which images hold them; only those are matched again,
//! and nothing is unpacked.

use std::sync::Arc;

use kuboard_catalog::NewJob;
use kuboard_feeds::database::Database;
use kuboard_oci::Digest;
use kuboard_vuln::{Advisories, Report};
use serde::{Deserialize, Serialize};

use super::{Engine, ScanError, results::subject_of};
use crate::inventories::decode;

/// Kind of the jobs that match some images again.
pub const REMATCH: &str = "rematch";

/// The mark up to which generation all images were matched.
const MARK: &str = "rematched generation";
/// Images of one job.
const BATCH: usize = 200;

#[derive(Serialize, Deserialize)]
struct Batch {
    images: Vec<Digest>,
}

impl Engine {
    /// Takes new advisories into use and queues what has to be matched again: images that hold a
    /// changed package if the database follows the one matched last, all images otherwise. How
    /// many images that are.
    ///
    /// # Errors
    /// The catalogue failed; asking again asks for the same.
    pub async fn advisories_changed(&self, database: Arc<Database>) -> Result<usize, ScanError> {
        let stamp = database.stamp();
        self.use_database(database.clone());
        let catalog = self.parts.catalog.clone();
        let last = catalog.mark(MARK).await?.and_then(|text| text.parse::<u64>().ok());
        if last == Some(stamp.generation) {
            return Ok(0);
        }
        let follows = last.is_some_and(|last| last + 1 == stamp.generation);
        let keys = if follows { changed_keys(&database, last) } else { None };
        let images = match keys {
            Some(keys) => catalog.images_with(&keys).await?,
            None => self.all_images().await?,
        };
        let batches: Vec<String> = images
            .chunks(BATCH)
            .filter_map(|images| serde_json::to_string(&Batch { images: images.to_vec() }).ok())
            .collect();
        for (number, payload) in batches.into_iter().enumerate() {
            let job = NewJob {
                kind: REMATCH.to_owned(),
                subject: format!("{} {number}", stamp.generation),
                payload,
                priority: 60,
                run_after_ms: 0,
                max_attempts: 5,
            };
            catalog.enqueue(&job, self.now_ms()).await?;
        }
        catalog.set_mark(MARK, &stamp.generation.to_string()).await?;
        Ok(images.len())
    }

    async fn all_images(&self) -> Result<Vec<Digest>, ScanError> {
        let mut images: Vec<Digest> = Vec::new();
        loop {
            let last = images.last().copied();
            let page = self.parts.catalog.inventoried_images(last.as_ref(), 5000).await?;
            if page.is_empty() {
                return Ok(images);
            }
            images.extend(page);
        }
    }

    pub(super) async fn rematch_job(&self, payload: &str) -> Result<(), ScanError> {
        let Ok(batch) = serde_json::from_str::<Batch>(payload) else { return Ok(()) };
        for image in &batch.images {
            self.rematch(image).await?;
        }
        Ok(())
    }

    /// Matches one image again under all names that it has.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn rematch(&self, image: &Digest) -> Result<(), ScanError> {
        let Some(report) = self.report_now(image).await? else { return Ok(()) };
        let names = self.parts.catalog.image_names(image).await?;
        if names.is_empty() {
            return self.publish(image, &report).await;
        }
        for named in names {
            let mut report = report.clone();
            report.image.name = subject_of(
                &named.name.registry,
                &named.name.repository,
                &named.name.tag,
                image,
            );
            report.image.registry = named.name.registry;
            report.image.repository = named.name.repository;
            report.image.tag = named.name.tag;
            self.publish(image, &report).await?;
        }
        Ok(())
    }

    /// The stored report on an image.
    ///
    /// # Errors
    /// The catalogue failed, or what is stored is damaged.
    pub async fn stored_report(&self, image: &Digest) -> Result<Option<Report>, ScanError> {
        let Some(row) = self.parts.catalog.report(image).await? else { return Ok(None) };
        decode(&row.body).map(Some).map_err(|_| ScanError::Damaged(*image))
    }
}

/// Keys as the inverted index has them; `None` if so much changed that all images are asked.
fn changed_keys(database: &Database, last: Option<u64>) -> Option<Vec<String>> {
    const MANY: usize = 50_000;
    let changed = database.changed().ok()?;
    if changed.since.is_none() || changed.since != last || changed.packages.len() > MANY {
        return None;
    }
    let key = |(namespace, package): &(String, String)| format!("{namespace} {package}");
    Some(changed.packages.iter().map(key).collect())
}
