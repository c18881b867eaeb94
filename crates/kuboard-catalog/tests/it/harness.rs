//! A fresh catalogue for each case, in either database.

use kuboard_catalog::Catalog;
use kuboard_testkit::postgres::Postgres;
use tempfile::TempDir;

/// A catalogue of one's own.
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

pub(crate) async fn sqlite() -> World {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
    World { catalog: Catalog::open(&url).await.unwrap(), url, _folder: Some(folder) }
}

pub(crate) async fn postgres() -> World {
    let url = Postgres::shared().and_then(Postgres::database).unwrap_or_else(|e| panic!("{e:#}"));
    World { catalog: Catalog::open(&url).await.unwrap(), url, _folder: None }
}

/// Makes each case a test of both databases.
macro_rules! both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(crate::harness::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(crate::harness::postgres().await).await;
            })+
        }
    };
}
pub(crate) use both;
