//! The external Clair in the place of the own scanner: it reads images out of this registry, it
//! judges them, and when its advisories change all known images are judged anew.
//!
//! Clair numbers its updates by references that mean nothing to others. All of them together are
//! one state here, and each new state is the next generation, which the catalogue keeps for all
//! processes.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use kuboard_catalog::Catalog;
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{BoxFuture, Shutdown};
use kuboard_vuln::{DatabaseStamp, ImageIdentity, ImageInventory, LayerReference, Report};

use super::{ClairImage, ExternalClair, Update};
use crate::{
    engine::{Engine, ScanError, Scanner},
    source::{Image, SourceError},
};

/// What stands for Clair's own indexers, whose version it asks for itself each time.
const STATE: &str = "clair 4";
/// The mark with the state of Clair's advisories.
const MARK: &str = "clair advisories";
/// How often the process that keeps schedules asks Clair for its advisories' state.
pub const LOOK: Duration = Duration::from_secs(15);

/// A [`Scanner`] that asks an external Clair.
pub struct ClairScanner {
    clair: Arc<ExternalClair>,
    catalog: Catalog,
    stamp: ArcSwap<DatabaseStamp>,
}

impl ClairScanner {
    /// Scans with that Clair.
    #[must_use]
    pub fn new(clair: Arc<ExternalClair>, catalog: Catalog) -> Arc<Self> {
        Arc::new(Self { clair, catalog, stamp: ArcSwap::default() })
    }

    /// Follows the state of Clair's advisories until stop. `asks`: this process asks Clair, and has
    /// all images judged anew when it changed; others go by what it noted.
    ///
    /// # Errors
    /// None; the return type is that of a role.
    pub async fn keep(
        self: Arc<Self>,
        engine: Arc<Engine>,
        asks: bool,
        pace: Duration,
        stop: Shutdown,
    ) -> anyhow::Result<()> {
        loop {
            let looked = match asks {
                true => self.ask(&engine).await,
                false => self.read_mark(&engine).await,
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "the state of Clair's advisories is not known");
            }
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = tokio::time::sleep(pace) => {}
            }
        }
    }

    async fn ask(&self, engine: &Engine) -> Result<(), ScanError> {
        self.read_mark(engine).await?;
        let updates = self.clair.updates().await?;
        let known = self.stamp.load_full();
        if let Some(next) = next(&known, &updates) {
            let mark = serde_json::to_string(&next).unwrap_or_default();
            self.catalog.set_mark(MARK, &mark).await?;
            self.take(engine, next);
        }
        // Also what an earlier run did not come to.
        let generation = self.generation();
        if generation > 0 {
            let images = engine.rematch_all(generation, |_| None).await?;
            if images > 0 {
                tracing::info!(images, generation, "images to be judged anew by Clair");
            }
        }
        Ok(())
    }

    async fn read_mark(&self, engine: &Engine) -> Result<(), ScanError> {
        let mark = self.catalog.mark(MARK).await?;
        let noted: Option<DatabaseStamp> = mark.and_then(|mark| serde_json::from_str(&mark).ok());
        if let Some(noted) = noted
            && noted.generation > self.generation()
        {
            self.take(engine, noted);
        }
        Ok(())
    }

    fn take(&self, engine: &Engine, stamp: DatabaseStamp) {
        engine.tell_stamp(&stamp);
        self.stamp.store(Arc::new(stamp));
    }
}

/// The stamp of these updates, if they are others than those of the known one.
fn next(known: &DatabaseStamp, updates: &[Update]) -> Option<DatabaseStamp> {
    if updates.is_empty() {
        return None;
    }
    let mut sources: Vec<(String, i64)> =
        updates.iter().map(|update| (update.updater.clone(), update.at_ms)).collect();
    sources.sort();
    let mut references: Vec<&str> =
        updates.iter().map(|update| update.reference.as_str()).collect();
    references.sort_unstable();
    let checksum = Digest::sha256(references.join("\n").as_bytes()).hex();
    (checksum != known.checksum).then(|| DatabaseStamp {
        generation: known.generation + 1,
        checksum,
        built_ms: sources.iter().map(|(_, at_ms)| *at_ms).max().unwrap_or_default(),
        sources,
    })
}

/// The repository below `/v2/` of this registry.
fn repository_of(identity: &ImageIdentity) -> Result<RepositoryName, ScanError> {
    let name = match identity.registry.as_str() {
        "" => identity.repository.clone(),
        registry => format!("{registry}/{}", identity.repository),
    };
    let parsed = name.parse();
    parsed.map_err(|error| SourceError::invalid(format!("{name}: {error}")).into())
}

fn manifest_of(identity: &ImageIdentity) -> Result<Digest, ScanError> {
    identity.digest.ok_or_else(|| SourceError::invalid("an image without a digest").into())
}

impl ClairScanner {
    async fn report(
        &self,
        identity: &ImageIdentity,
        layers: &[LayerReference],
    ) -> Result<Report, ScanError> {
        // The state of before: what changes meanwhile is found changed, and asked for once more.
        let stamp = self.stamp.load_full();
        let repository = repository_of(identity)?;
        let manifest = manifest_of(identity)?;
        let image = ClairImage { identity, manifest, repository: &repository, layers };
        let report = self.clair.report(&image).await?;
        Ok(Report { database: DatabaseStamp::clone(&stamp), ..report })
    }
}

impl Scanner for ClairScanner {
    fn name(&self) -> &'static str {
        "clair"
    }

    fn state(&self) -> String {
        STATE.to_owned()
    }

    fn generation(&self) -> u64 {
        self.stamp.load().generation
    }

    fn reads_along(&self) -> bool {
        false
    }

    /// Clair keeps what the image holds; of it, only the layers are known here.
    fn read<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<ImageInventory, ScanError>> {
        Box::pin(async move {
            let identity = &image.identity;
            let (repository, manifest) = (repository_of(identity)?, manifest_of(identity)?);
            let layers = &image.layers[..];
            let asked = ClairImage { identity, manifest, repository: &repository, layers };
            self.clair.index(&asked).await?;
            Ok(ImageInventory { layers: image.layers.clone(), ..ImageInventory::default() })
        })
    }

    fn judge(
        &self,
        identity: ImageIdentity,
        inventory: ImageInventory,
    ) -> BoxFuture<'_, Result<Report, ScanError>> {
        Box::pin(async move { self.report(&identity, &inventory.layers).await })
    }
}

#[cfg(test)]
mod tests {
    use kuboard_vuln::{DatabaseStamp, ImageIdentity};

    use super::{next, repository_of};
    use crate::clair_engine::Update;

    fn update(updater: &str, reference: &str, at_ms: i64) -> Update {
        Update { updater: updater.to_owned(), reference: reference.to_owned(), at_ms }
    }

    #[test]
    fn each_new_state_is_a_generation() {
        let none = DatabaseStamp::default();
        assert_eq!(next(&none, &[]), None);
        let first = next(&none, &[update("osv", "1", 5), update("debian", "2", 7)]).unwrap();
        assert_eq!((first.generation, first.built_ms), (1, 7));
        assert_eq!(first.sources, [("debian".to_owned(), 7), ("osv".to_owned(), 5)]);
        let same = [update("debian", "2", 7), update("osv", "1", 5)];
        assert_eq!(next(&first, &same), None, "their order does not matter");
        let newer = next(&first, &[update("debian", "3", 9), update("osv", "1", 5)]).unwrap();
        assert_eq!((newer.generation, newer.built_ms), (2, 9));
        assert_eq!(next(&newer, &[]), None, "one that lost its database has no newer state");
    }

    #[test]
    fn repositories_are_named_as_clients_name_them() {
        let name = |registry: &str, repository: &str| {
            let (registry, repository) = (registry.to_owned(), repository.to_owned());
            let identity = ImageIdentity { registry, repository, ..ImageIdentity::default() };
            repository_of(&identity).ok().map(|name| name.to_string())
        };
        assert_eq!(name("", "team/app").unwrap(), "team/app");
        assert_eq!(name("docker.io", "library/nginx").unwrap(), "docker.io/library/nginx");
        assert_eq!(name("docker.io", "../x"), None);
    }
}
