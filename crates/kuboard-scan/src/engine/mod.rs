//! The scan engine as a service: images that pass are indexed while they pass, matched, reported,
//! and matched again when advisories change.
//!
//! What is to be done stands in the catalogue's job queue, so that any number of workers share it
//! and nothing asked for is lost. A worker that finds a layer being indexed at the moment waits for
//! that instead of reading it again.

mod facts;
mod jobs;
mod metrics;
mod passing;
mod rematch;
mod results;
mod scanner;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use kuboard_catalog::Catalog;
use kuboard_feeds::database::Database;
use kuboard_oci::{Digest, Reference, RepositoryName};
use kuboard_rt::{BoxFuture, Clock, Tasks};
use kuboard_vuln::{Advisories, DatabaseStamp, ImageIdentity, ImageInventory, Problem, Report};

pub use facts::AWAITED;
pub use jobs::{Exclusions, SCAN, ScanJob};
pub use metrics::EngineMetrics;
pub use passing::{Heard, LayerObserver, Passing, SeenImage, Settled};
pub use rematch::REMATCH;
pub use results::{Summary, subject_of};
use scanner::Native;
pub use scanner::Scanner;

use crate::{
    assemble::keys,
    clair_engine::ClairError,
    index::MACHINE,
    inspect::Inspector,
    inventories::{decode, encode},
    source::{Contents, SourceError, SourceErrorKind, open_image},
};

/// Gives access to repositories: through the registry of this process, or by network.
pub trait Repositories: Send + Sync + 'static {
    /// The content of a repository. `registry` is a registry's name, empty for hosted ones.
    ///
    /// # Errors
    /// No rule allows it.
    fn contents(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError>;

    /// Whether a blob is at hand, so that reading it costs no download.
    fn is_cached<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, bool> {
        let _ = blob;
        Box::pin(std::future::ready(false))
    }
}

/// What an engine is made of.
pub struct EngineParts {
    /// Where everything is kept.
    pub catalog: Catalog,
    /// Reads images. Its inventories are those of the catalogue.
    pub inspector: Inspector,
    /// What finds vulnerabilities in place of the inspector and the own advisories.
    pub scanner: Option<Arc<dyn Scanner>>,
    /// Gives content.
    pub repositories: Arc<dyn Repositories>,
    /// Which images are left alone.
    pub exclusions: Exclusions,
    /// To whom events go.
    pub receivers: Vec<String>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where work runs.
    pub tasks: Tasks,
    /// Everything counted.
    pub metrics: EngineMetrics,
}

/// The scan engine.
pub struct Engine {
    parts: EngineParts,
    /// The own indexers and advisories, which answer the APIs of others.
    native: Arc<Native>,
    /// What scans: those, or what takes their place.
    scanner: Arc<dyn Scanner>,
    passing: Arc<Passing>,
    /// Scans beside the queue at a time.
    at_once: Arc<tokio::sync::Semaphore>,
    /// A job was added here, so that a worker of this process need not come by first.
    added: tokio::sync::Notify,
    /// When the counts of all reports were last taken from the catalogue.
    warmed_ms: parking_lot::Mutex<Option<i64>>,
}

/// Why an image was not scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The image can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalog(#[from] kuboard_catalog::Error),
    /// What is stored can't be read.
    #[error("the stored inventory of {0} is damaged")]
    Damaged(Digest),
    /// The external Clair gives no report.
    #[error(transparent)]
    Clair(#[from] ClairError),
}

impl ScanError {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Source(error) => error.is_retryable(),
            Self::Catalog(error) => error.is_retryable(),
            Self::Damaged(_) => false,
            Self::Clair(error) => error.is_retryable(),
        }
    }

    /// Whether it is no fault of the image, so that any other would fail in the same way now.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Clair(ClairError::Unavailable(_)))
    }
}

/// How long a worker holds a job before it must renew.
pub const LEASE: Duration = Duration::from_secs(60);

/// Images scanned at a time while they pass; each is held in memory.
const AT_ONCE: usize = 4;

impl Engine {
    /// Makes an engine without advisories; see [`Engine::use_database`]. `passing` hears of what
    /// passes the registry.
    #[must_use]
    pub fn new(parts: EngineParts, passing: Arc<Passing>) -> Arc<Self> {
        let (inspector, clock) = (parts.inspector.clone(), parts.clock.clone());
        let native = Arc::new(Native::new(inspector, clock, parts.tasks.clone()));
        Arc::new(Self {
            scanner: parts.scanner.clone().unwrap_or_else(|| native.clone()),
            native,
            parts,
            passing,
            at_once: Arc::new(tokio::sync::Semaphore::new(AT_ONCE)),
            added: tokio::sync::Notify::new(),
            warmed_ms: parking_lot::Mutex::default(),
        })
    }

    /// Matches with these advisories from now on.
    pub fn use_database(&self, database: Arc<Database>) {
        self.tell_stamp(&database.stamp());
        self.native.database.store(Some(database));
    }

    /// Shows which advisories are in use.
    pub(crate) fn tell_stamp(&self, stamp: &DatabaseStamp) {
        self.parts.metrics.database(stamp);
    }

    /// The own advisories in use.
    #[must_use]
    pub fn database(&self) -> Option<Arc<Database>> {
        self.native.database.load_full()
    }

    /// Generation of the advisories that reports are made with now; 0: there are none.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.scanner.generation()
    }

    /// The catalogue.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.parts.catalog
    }

    /// The time, milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.parts.clock.now_ms()
    }

    /// Version of what reads images: when it changes, images have to be read anew.
    #[must_use]
    pub fn state(&self) -> String {
        self.scanner.state()
    }

    /// Reads images.
    #[must_use]
    pub fn inspector(&self) -> &Inspector {
        &self.parts.inspector
    }

    /// The stored inventory of an image, if its indexers are those of today.
    ///
    /// # Errors
    /// The catalogue failed, or what is stored is damaged.
    pub async fn inventory(
        &self,
        image: &Digest,
    ) -> Result<Option<(ImageIdentity, ImageInventory)>, ScanError> {
        let Some(row) = self.parts.catalog.image_inventory(image).await? else { return Ok(None) };
        if row.indexer != self.state() {
            return Ok(None);
        }
        let decoded = self.blocking(move || decode(&row.body)).await?;
        decoded.map(Some).map_err(|_| ScanError::Damaged(*image))
    }

    /// Stores what an image contains.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn keep_inventory(
        &self,
        image: &Digest,
        identity: &ImageIdentity,
        inventory: &ImageInventory,
    ) -> Result<(), ScanError> {
        let (identity, inventory) = (identity.clone(), inventory.clone());
        let made = self.blocking(move || (encode(&(identity, &inventory)), keys(&inventory)));
        let (body, keys) = made.await?;
        let body = body.map_err(|_| ScanError::Damaged(*image))?;
        let row = kuboard_catalog::InventoryRow {
            image: *image,
            indexer: self.state(),
            body,
            indexed_ms: self.now_ms(),
        };
        self.parts.catalog.put_image_inventory(&row, keys).await?;
        Ok(())
    }

    /// What is known of an image today: its stored inventory against the advisories of now.
    /// `None`: it was not indexed.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub async fn report_now(&self, image: &Digest) -> Result<Option<Report>, ScanError> {
        let Some((identity, inventory)) = self.inventory(image).await? else { return Ok(None) };
        self.matched(identity, inventory).await.map(Some)
    }

    /// The report on this inventory by the own advisories of now; nothing is stored.
    #[must_use]
    pub fn report_on(&self, identity: ImageIdentity, inventory: ImageInventory) -> Report {
        self.native.report_on(identity, inventory)
    }

    async fn matched(
        &self,
        identity: ImageIdentity,
        inventory: ImageInventory,
    ) -> Result<Report, ScanError> {
        let timer = self.parts.metrics.match_seconds.start_timer();
        let report = self.scanner.judge(identity, inventory).await?;
        timer.observe_duration();
        Ok(report)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ScanError> {
        let done = self.parts.tasks.blocking("scan", work).await;
        done.map_err(|error| ScanError::Source(SourceError::io(error)))
    }

    /// Whether the image's inventory is there, by indexers of today.
    pub(crate) async fn is_indexed(&self, image: &Digest) -> Result<bool, ScanError> {
        let indexer = self.parts.catalog.image_indexer(image).await?;
        Ok(indexer.is_some_and(|indexer| indexer == self.state()))
    }

    /// Scans an image of a repository: indexes what is not yet indexed, matches, stores the report
    /// and tells of what changed.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub async fn scan(&self, job: &ScanJob) -> Result<Report, ScanError> {
        let timer = self.parts.metrics.scan_seconds.start_timer();
        let (identity, inventory) = match self.inventory(&job.image).await {
            // What was posted to the indexer's API is the poster's word: it has no configuration,
            // and an image of a registry is read from there.
            Ok(Some(known)) if machine_problem(&known.1).is_none() && known.0.config.is_some() => {
                known
            }
            Ok(_) => self.index(job).await?,
            Err(ScanError::Damaged(image)) => {
                tracing::warn!(%image, "its stored inventory is damaged: it is read anew");
                self.index(job).await?
            }
            Err(error) => return Err(error),
        };
        // What this machine could not read is told, and read again next time.
        let failed = machine_problem(&inventory).cloned();
        let identity = named(identity, job);
        let report = self.matched(identity, inventory).await?;
        self.publish(&job.image, &report).await?;
        self.publish_other_names(&job.image, &report).await?;
        self.catch_up(&job.image, report.database.generation).await?;
        timer.observe_duration();
        match failed {
            None => Ok(report),
            Some(problem) => Err(ScanError::Source(SourceError::new(
                SourceErrorKind::Unreachable,
                format!("it was not read completely: {} {}", problem.path, problem.why),
            ))),
        }
    }

    async fn index(&self, job: &ScanJob) -> Result<(ImageIdentity, ImageInventory), ScanError> {
        let repository: RepositoryName = job
            .repository
            .parse()
            .map_err(|error| SourceError::invalid(format!("{}: {error}", job.repository)))?;
        let contents = self.parts.repositories.contents(&job.registry, &repository)?;
        let identity = named(ImageIdentity::default(), job);
        let reference = Reference::Digest(job.image);
        let image = open_image(contents, identity, Some(&reference), None).await?;
        let inventory = self.scanner.read(&image).await?;
        if machine_problem(&inventory).is_none() {
            self.keep_inventory(&job.image, &image.identity, &inventory).await?;
        }
        Ok((image.identity, inventory))
    }
}

/// What could not be read through this machine's fault: it may be read another time.
fn machine_problem(inventory: &ImageInventory) -> Option<&Problem> {
    inventory.problems.iter().find(|problem| problem.by == MACHINE)
}

fn named(mut identity: ImageIdentity, job: &ScanJob) -> ImageIdentity {
    identity.registry.clone_from(&job.registry);
    identity.repository.clone_from(&job.repository);
    identity.tag.clone_from(&job.tag);
    identity.digest = Some(job.image);
    identity.name = subject_of(&job.registry, &job.repository, &job.tag, &job.image);
    identity
}
