//! Advisories changed: which images does it concern? The database says which packages have other
//! rows than before, the inverted index says which images hold them; only those are matched again,
//! and nothing is unpacked.

use std::sync::Arc;

use kuboard_catalog::NewJob;
use kuboard_feeds::database::Database;
use kuboard_oci::Digest;
use kuboard_vuln::Report;
use serde::{Deserialize, Serialize};

use super::{Engine, ScanError, ScanJob, results::subject_of};
use crate::inventories::decode;

/// Kind of the jobs that match some images again.
pub const REMATCH: &str = "rematch";

/// The mark up to which generation all images were matched; of other scanners than the own one with
/// their name behind it, since each counts for itself.
const MARK: &str = "rematched generation";
/// The own scanner's name.
const NATIVE: &str = "native";
/// Images of one job.
const BATCH: usize = 200;

#[derive(Serialize, Deserialize)]
struct Batch {
    images: Vec<Digest>,
    /// With these advisories or later ones: another process may not have them yet.
    #[serde(default)]
    generation: u64,
    /// Whose generation that is.
    #[serde(default = "native")]
    scanner: String,
}

fn native() -> String {
    NATIVE.to_owned()
}

impl Engine {
    /// Takes new advisories into use and queues what has to be matched again: images that hold a
    /// changed package if the database follows the one matched last, all images otherwise. How
    /// many images that are.
    ///
    /// # Errors
    /// The catalogue failed; asking again asks for the same.
    pub async fn advisories_changed(&self, database: Arc<Database>) -> Result<usize, ScanError> {
        let generation = database.generation();
        self.use_database(database.clone());
        self.rematch_all(generation, |last| changed_keys(&database, last)).await
    }

    /// Queues what has to be matched with advisories of this generation: images that hold one of
    /// the packages that `changed` since the generation matched last, or all.
    pub(crate) async fn rematch_all(
        &self,
        generation: u64,
        changed: impl FnOnce(Option<u64>) -> Option<Vec<String>>,
    ) -> Result<usize, ScanError> {
        let catalog = self.parts.catalog.clone();
        let last = self.matched_generation().await?;
        if last == Some(generation) {
            return Ok(0);
        }
        let follows = last.is_some_and(|last| last + 1 == generation);
        let keys = if follows { changed(last) } else { None };
        let images = match keys {
            Some(keys) => catalog.images_with(&keys).await?,
            None => self.all_images().await?,
        };
        for (number, images) in images.chunks(BATCH).enumerate() {
            let subject = format!("{generation} {number}");
            self.ask_rematch(subject, images, generation).await?;
        }
        catalog.set_mark(&self.generation_mark(), &generation.to_string()).await?;
        Ok(images.len())
    }

    fn generation_mark(&self) -> String {
        match self.scanner.name() {
            NATIVE => MARK.to_owned(),
            name => format!("{MARK} of {name}"),
        }
    }

    /// Up to which generation all images were matched.
    async fn matched_generation(&self) -> Result<Option<u64>, ScanError> {
        let mark = self.parts.catalog.mark(&self.generation_mark()).await?;
        Ok(mark.and_then(|text| text.parse().ok()))
    }

    async fn ask_rematch(
        &self,
        subject: String,
        images: &[Digest],
        generation: u64,
    ) -> Result<(), ScanError> {
        let scanner = self.scanner.name().to_owned();
        let batch = Batch { images: images.to_vec(), generation, scanner };
        let job = NewJob {
            kind: REMATCH.to_owned(),
            subject,
            payload: serde_json::to_string(&batch).unwrap_or_default(),
            priority: 60,
            run_after_ms: 0,
            max_attempts: 5,
        };
        self.parts.catalog.enqueue(&job, self.now_ms()).await?;
        self.added.notify_one();
        Ok(())
    }

    /// A report made with older advisories than those that all images were matched with came too
    /// late to be among them: its image is matched once more.
    pub(super) async fn catch_up(&self, image: &Digest, generation: u64) -> Result<(), ScanError> {
        match self.matched_generation().await? {
            Some(mark) if mark > generation => {
                self.ask_rematch(format!("{mark} {image}"), &[*image], mark).await
            }
            _ => Ok(()),
        }
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

    /// Whether the advisories that a job asks for are not here yet.
    pub(super) fn is_early(&self, payload: &str) -> bool {
        let here = self.generation();
        serde_json::from_str::<Batch>(payload)
            .is_ok_and(|batch| batch.generation > here && batch.scanner == self.scanner.name())
    }

    pub(super) async fn rematch_job(&self, payload: &str) -> Result<(), ScanError> {
        let Ok(batch) = serde_json::from_str::<Batch>(payload) else { return Ok(()) };
        if batch.scanner != self.scanner.name() {
            // Asked for before another scanner took over.
            return Ok(());
        }
        for image in &batch.images {
            match self.rematch(image).await {
                // One image that can't be read is no reason to leave the others.
                Err(error) if !error.is_retryable() => {
                    tracing::warn!(%image, %error, "not matched again; it is read anew");
                    self.ask_anew(image).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Has an image read anew, under the name that was seen last.
    async fn ask_anew(&self, image: &Digest) -> Result<(), ScanError> {
        const PRIORITY: i64 = 5;
        let names = self.parts.catalog.image_names(image).await?;
        let Some(last) = names.into_iter().max_by_key(|named| named.seen_ms) else {
            return Ok(());
        };
        let job = ScanJob {
            registry: last.name.registry,
            repository: last.name.repository,
            tag: last.name.tag,
            image: *image,
            fetch: true,
            layers: Vec::new(),
        };
        self.ask(&job, PRIORITY, self.now_ms()).await?;
        Ok(())
    }

    /// Matches one image again under all names that it has. One that was read by other indexers
    /// than today's is queued to be read anew.
    ///
    /// # Errors
    /// The catalogue failed, or what is stored is damaged.
    pub async fn rematch(&self, image: &Digest) -> Result<(), ScanError> {
        let Some(report) = self.report_now(image).await? else {
            return self.ask_anew(image).await;
        };
        let mut names = self.parts.catalog.image_names(image).await?;
        if names.is_empty() {
            return self.publish(image, &report).await;
        }
        // The report is stored once, under the name seen last.
        names.sort_by_key(|named| std::cmp::Reverse(named.seen_ms));
        for (position, named) in names.into_iter().enumerate() {
            let mut report = report.clone();
            report.image.name =
                subject_of(&named.name.registry, &named.name.repository, &named.name.tag, image);
            report.image.registry = named.name.registry;
            report.image.repository = named.name.repository;
            report.image.tag = named.name.tag;
            if position == 0 {
                self.publish(image, &report).await?;
            } else {
                self.publish_name(image, &report).await?;
            }
        }
        Ok(())
    }

    /// Tells of a report under the image's further names: asked for under several, it is scanned
    /// once.
    pub(super) async fn publish_other_names(
        &self,
        image: &Digest,
        report: &Report,
    ) -> Result<(), ScanError> {
        for named in self.parts.catalog.image_names(image).await? {
            let name = named.name;
            let subject = subject_of(&name.registry, &name.repository, &name.tag, image);
            if subject == report.image.name || self.parts.exclusions.covers(&name.registry) {
                continue;
            }
            let mut other = report.clone();
            other.image.name = subject;
            other.image.registry = name.registry;
            other.image.repository = name.repository;
            other.image.tag = name.tag;
            self.publish_name(image, &other).await?;
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
