//! The two orders that `sweep.rs` argues about, one by one on PostgreSQL: a transaction of an
//! uploader is stopped half way, a sweep runs into it, then the uploader goes on. (SQLite has only
//! one transaction that writes at a time.)

use std::sync::Mutex;

use kuboard_oci::Digest;
use kuboard_testkit::postgres::Postgres;
use tokio::time::{Duration, sleep};

use crate::{
    Catalog, Kind,
    blobs::{ANNOUNCE, LOCK_CONTENT},
    repositories::Hold,
};

async fn open() -> Catalog {
    let server = Postgres::shared().unwrap_or_else(|error| panic!("{error:#}"));
    Catalog::open(&server.database().unwrap()).await.unwrap()
}

/// Returns once another transaction of this database waits for a lock.
async fn until_blocked(catalog: &Catalog) {
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&catalog.reader).await.unwrap() == 0 {
        sleep(Duration::from_millis(2)).await;
    }
}

/// The uploader has executed `lock`; its link and its commit come when the sweep waits, or when
/// the sweep is through.
async fn uploader_first(catalog: &Catalog, digest: &Digest, lock: &'static str) {
    let mut uploader = catalog.write().await.unwrap();
    uploader.hold("to", Hold::Shared).await.unwrap();
    let mut locking = sqlx::query(lock).bind(digest.to_string());
    if lock == ANNOUNCE {
        locking = locking.bind(10_i64);
    }
    locking.execute(uploader.connection()).await.unwrap();

    let removed = Mutex::new(Vec::new());
    let sweeping = async {
        let remove = async |digest| {
            removed.lock().unwrap().push(digest);
            Ok::<_, std::io::Error>(())
        };
        catalog.sweep(9, 10, remove).await.unwrap()
    };
    let uploading = async {
        until_blocked(catalog).await;
        let id = uploader.ensure("to", Kind::Hosted).await.unwrap();
        uploader.link(id, digest, 10, Some(99)).await.unwrap();
        uploader.commit().await.unwrap();
    };
    tokio::pin!(sweeping);
    tokio::select! {
        report = &mut sweeping => panic!("the sweep did not wait: {report:?}"),
        () = uploading => {}
    }
    let report = sweeping.await;
    assert_eq!((report.removed, removed.lock().unwrap().clone()), (0, Vec::new()));
    assert_eq!(catalog.find_blob(digest).await.unwrap(), Some(("to".to_owned(), 10)));
}

#[tokio::test]
async fn a_sweep_waits_for_an_announcement_and_then_sees_it() {
    let (catalog, digest) = (open().await, Digest::sha256(b"a"));
    catalog.put_blob("from", Kind::Hosted, &digest, 10, 0).await.unwrap();
    catalog.unlink_blob("from", &digest).await.unwrap();
    uploader_first(&catalog, &digest, ANNOUNCE).await;
}

#[tokio::test]
async fn a_sweep_waits_for_a_mount_and_then_sees_it() {
    let (catalog, digest) = (open().await, Digest::sha256(b"a"));
    catalog.put_blob("from", Kind::Hosted, &digest, 10, 0).await.unwrap();
    uploader_first(&catalog, &digest, LOCK_CONTENT).await;
}

#[tokio::test]
async fn an_announcement_waits_for_the_removal_and_a_mount_finds_nothing() {
    let (catalog, digest) = (open().await, Digest::sha256(b"a"));
    catalog.put_blob("from", Kind::Hosted, &digest, 10, 0).await.unwrap();
    let order = Mutex::new(Vec::new());
    let note = |what| order.lock().unwrap().push(what);
    let begun = tokio::sync::Notify::new();
    let sweeping = async {
        let remove = async |_| {
            begun.notify_waiters();
            until_blocked(&catalog).await;
            note("removed");
            Ok::<_, std::io::Error>(())
        };
        catalog.sweep(9, 10, remove).await.unwrap()
    };
    let announcing = async {
        begun.notified().await;
        assert_eq!(catalog.blob("from", &digest).await.unwrap(), None);
        catalog.put_blob("to", Kind::Hosted, &digest, 10, 99).await.unwrap();
        note("announced");
    };
    let mounting = async {
        begun.notified().await;
        catalog.mount("from", "two", &digest, 99).await.unwrap()
    };
    let ((), mounted, report) = tokio::join!(announcing, mounting, sweeping);
    assert_eq!((mounted, report.removed), (None, 1));
    assert_eq!(order.into_inner().unwrap(), ["removed", "announced"]);
    assert_eq!(catalog.find_blob(&digest).await.unwrap(), Some(("to".to_owned(), 10)));
}
