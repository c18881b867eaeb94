//! A catalogue of one's own in either database, and engines on it, for tests.

use std::sync::Arc;

use kuboard_catalog::Catalog;
use kuboard_oci::RepositoryName;
use kuboard_rt::{Clock, Tasks};
use kuboard_testkit::postgres::Postgres;

use crate::{
    engine::{Engine, EngineMetrics, EngineParts, Exclusions, Passing, Repositories},
    index::{Indexers, Settings},
    inspect::Inspector,
    inventories::NoInventories,
    source::{Contents, SourceError},
};

pub(crate) struct Ground {
    pub(crate) catalog: Catalog,
    _folder: Option<tempfile::TempDir>,
}

struct NoRepositories;

impl Repositories for NoRepositories {
    fn contents(
        &self,
        _: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError> {
        Err(SourceError::invalid(format!("{repository} is not here")))
    }
}

impl Ground {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_file(&folder.path().join("catalog.db")).await.unwrap();
        Self { catalog, _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        let url = Postgres::shared().and_then(Postgres::database);
        let url = url.unwrap_or_else(|error| panic!("{error:#}"));
        Self { catalog: Catalog::open(&url).await.unwrap(), _folder: None }
    }

    /// An engine as another process would have it.
    pub(crate) fn engine(&self, clock: Arc<dyn Clock>) -> Arc<Engine> {
        let tasks = Tasks::default();
        let inspector = Inspector {
            indexers: Indexers::all(),
            settings: Arc::new(Settings::default()),
            inventories: Arc::new(NoInventories),
            tasks: tasks.clone(),
            parallel: 1,
        };
        let (passing, _) = Passing::new(inspector.clone(), tasks.clone());
        let parts = EngineParts {
            catalog: self.catalog.clone(),
            inspector,
            scanner: None,
            repositories: Arc::new(NoRepositories),
            exclusions: Exclusions::default(),
            receivers: Vec::new(),
            clock,
            tasks,
            metrics: EngineMetrics::new(&prometheus::Registry::new()).unwrap(),
        };
        Engine::new(parts, passing)
    }
}
