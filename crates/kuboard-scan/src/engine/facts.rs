//! What admission reads of the engine: the facts of an image, and the way to ask for an image that
//! it knows nothing of.

use std::collections::HashMap;

use kuboard_catalog::ImageName;
use kuboard_oci::Digest;
use kuboard_vuln::{ImageFacts, Report};

use super::{
    Engine, ScanError, ScanJob,
    results::{key_of, subject_of},
};
use crate::inventories::decode;

/// Priority of a scan that a pod waits for: before all others.
pub const AWAITED: i64 = 200;

/// Names of an image whose findings are looked through for when each was first seen.
const NAMES: usize = 32;

impl Engine {
    /// The facts of an image by its stored report. `None`: it was not reported on. A finding was
    /// first seen when it was under any of the image's names, so that a further name makes no old
    /// finding new.
    ///
    /// # Errors
    /// The catalogue failed, or what is stored is damaged.
    pub async fn facts(&self, image: &Digest) -> Result<Option<ImageFacts>, ScanError> {
        let catalog = self.catalog();
        let Some(row) = catalog.report(image).await? else { return Ok(None) };
        // An image that nothing could be said of yet has been scanned since its last report at most.
        let first_ms = if row.first_ms > 0 { row.first_ms } else { row.reported_ms };
        let decoded = self.blocking(move || decode::<Report>(&row.body)).await?;
        let mut report = decoded.map_err(|_| ScanError::Damaged(*image))?;
        let mut names = catalog.image_names(image).await?;
        names.sort_by_key(|named| std::cmp::Reverse(named.seen_ms));
        let mut earliest: HashMap<String, i64> = HashMap::new();
        for ImageName { registry, repository, tag } in
            names.into_iter().take(NAMES).map(|named| named.name)
        {
            for row in catalog.findings(&subject_of(&registry, &repository, &tag, image)).await? {
                let seen = earliest.entry(row.key).or_insert(row.first_seen_ms);
                *seen = row.first_seen_ms.min(*seen);
            }
        }
        for finding in &mut report.findings {
            let stored = finding.first_seen_ms.into_iter();
            finding.first_seen_ms = stored.chain(earliest.get(&key_of(finding)).copied()).min();
        }
        Ok(Some(ImageFacts::of(&report, first_ms)))
    }

    /// Asks for a scan of an image by a name that means it, with the image fetched for it if need
    /// be. False: its registry is left alone, nothing was asked.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn ask_for(
        &self,
        name: &ImageName,
        image: &Digest,
        priority: i64,
    ) -> Result<bool, ScanError> {
        if self.excludes(&name.registry) {
            return Ok(false);
        }
        let now_ms = self.now_ms();
        self.catalog().name_image(name, image, now_ms).await?;
        let job = ScanJob {
            registry: name.registry.clone(),
            repository: name.repository.clone(),
            tag: name.tag.clone(),
            image: *image,
            fetch: true,
            layers: Vec::new(),
        };
        self.ask(&job, priority, now_ms).await?;
        Ok(true)
    }

    /// Whether images of a registry are left alone; hosted ones have an empty name.
    #[must_use]
    pub fn excludes(&self, registry: &str) -> bool {
        self.parts.exclusions.covers(registry)
    }
}
