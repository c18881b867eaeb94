//! Who finds vulnerabilities: the own indexers and advisories, or somebody else's. Both first say
//! what an image holds, once, and then, whenever it is asked, what is wrong with that.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use kuboard_feeds::database::Database;
use kuboard_rt::{BoxFuture, Clock, Tasks};
use kuboard_vuln::{Advisories, ImageIdentity, ImageInventory, Report, matching::MatchOptions};

use super::ScanError;
use crate::{
    assemble::assemble,
    inspect::Inspector,
    source::{Image, SourceError},
};

/// Finds vulnerabilities in images.
pub trait Scanner: Send + Sync + 'static {
    /// Its name: what is noted of its advisories is noted under it.
    fn name(&self) -> &'static str;

    /// Version of what reads images: what was read by another one is read anew.
    fn state(&self) -> String;

    /// Generation of the advisories in use; 0: there are none.
    fn generation(&self) -> u64;

    /// Whether layers are read while they pass; else only their coming is noted.
    fn reads_along(&self) -> bool;

    /// What an image holds. `image` was opened and its layers were not read; its identity has the
    /// registry, the repository and the digest that it is known by here.
    fn read<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<ImageInventory, ScanError>>;

    /// The report on what [`Scanner::read`] said, by the advisories of now. Nothing is stored.
    fn judge(
        &self,
        identity: ImageIdentity,
        inventory: ImageInventory,
    ) -> BoxFuture<'_, Result<Report, ScanError>>;
}

/// The own indexers and advisories.
pub(super) struct Native {
    pub(super) inspector: Inspector,
    pub(super) database: ArcSwapOption<Database>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
}

impl Native {
    pub(super) fn new(inspector: Inspector, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { inspector, database: ArcSwapOption::empty(), clock, tasks }
    }

    /// The report on an inventory, on this thread.
    pub(super) fn report_on(&self, identity: ImageIdentity, inventory: ImageInventory) -> Report {
        matched(self.database.load_full(), identity, inventory, self.clock.now_ms())
    }
}

impl Scanner for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn state(&self) -> String {
        self.inspector.indexers.version()
    }

    fn generation(&self) -> u64 {
        self.database.load().as_ref().map_or(0, |database| database.generation())
    }

    fn reads_along(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<ImageInventory, ScanError>> {
        Box::pin(async move { Ok(self.inspector.inspect(image, &|_, _| {}).await?) })
    }

    /// Matching a large image takes a while: it is done where it holds up nobody.
    fn judge(
        &self,
        identity: ImageIdentity,
        inventory: ImageInventory,
    ) -> BoxFuture<'_, Result<Report, ScanError>> {
        let (database, now_ms) = (self.database.load_full(), self.clock.now_ms());
        let work = move || matched(database, identity, inventory, now_ms);
        Box::pin(async move {
            let done = self.tasks.blocking("scan", work).await;
            done.map_err(|error| ScanError::Source(SourceError::io(error)))
        })
    }
}

fn matched(
    database: Option<Arc<Database>>,
    identity: ImageIdentity,
    inventory: ImageInventory,
    now_ms: i64,
) -> Report {
    let advisories = database.as_deref().map(|database| database as &dyn Advisories);
    assemble(identity, inventory, advisories, &MatchOptions::default(), now_ms)
}
