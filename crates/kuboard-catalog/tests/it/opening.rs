//! Opening: paths, modes, schemas, outages.

use std::{error::Error as _, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use kuboard_catalog::{Catalog, Dialect, Error, ErrorKind, Settings};
use kuboard_testkit::postgres::Postgres;
use tokio::task::JoinSet;

use crate::{
    harness::{World, both},
    script::check,
};

both![what_was_written_is_there_when_opened_again, many_open_a_new_catalogue_at_once];

async fn what_was_written_is_there_when_opened_again(world: World) {
    check(&world.catalog, "announce r a lease=5 => ok").await;
    world.catalog.ping().await.unwrap();
    world.catalog.close().await;
    let error = world.catalog.ping().await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach the catalogue: the catalogue is closed");
    let again = Catalog::open(&world.url).await.unwrap();
    check(&again, "blob r a => 10 bytes, lease 5").await;
}

async fn many_open_a_new_catalogue_at_once(world: World) {
    let new = match world.catalog.dialect() {
        Dialect::Sqlite => world.url.replace("catalog.db", "new.db"),
        Dialect::Postgres => Postgres::shared().unwrap().database().unwrap(),
    };
    let mut opening = JoinSet::new();
    for n in 0..8 {
        let url = new.clone();
        opening.spawn(async move {
            let catalog = Catalog::open(&url).await.unwrap();
            check(&catalog, &format!("announce r{n} a => ok")).await;
        });
    }
    opening.join_all().await;
    let catalog = Catalog::open(&new).await.unwrap();
    check(&catalog, "repositories => r0 r1 r2 r3 r4 r5 r6 r7").await;
}

#[tokio::test]
async fn sqlite_takes_any_path_and_keeps_its_files_private() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a b%20c?d#é");
    fs::create_dir(&odd).unwrap();
    let file = odd.join("my catalog.db");
    let catalog = Catalog::open_file(&file).await.unwrap();
    assert_eq!(catalog.dialect(), Dialect::Sqlite);
    check(&catalog, "announce r a => ok").await;
    for entry in fs::read_dir(&odd).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    assert!(file.exists());

    let spaced = folder.path().join("with space");
    fs::create_dir(&spaced).unwrap();
    for path in ["with space", "with%20space"] {
        let url = format!("sqlite://{}/{path}/catalog.db", folder.path().display());
        Catalog::open(&url).await.unwrap();
    }
    assert!(spaced.join("catalog.db").exists());
}

#[track_caller]
fn told(error: &Error, kind: ErrorKind, words: &str) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text += &format!(": {source}");
        cause = source.source();
    }
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

async fn refused(url: &str) -> Error {
    let settings = Settings { open_within: Duration::from_millis(300), ..Settings::default() };
    Catalog::open_with(url, &settings).await.unwrap_err()
}

#[tokio::test]
async fn what_is_wrong_with_a_sqlite_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let url = |path: &Path| format!("sqlite://{}", path.display());

    let error = refused(&url(&folder.path().join("none/catalog.db"))).await;
    told(&error, ErrorKind::Unavailable, "folder does not exist; hint: create it first");

    let text = folder.path().join("text");
    fs::write(&text, "this is no database, but long enough to look like one ".repeat(20)).unwrap();
    told(&refused(&url(&text)).await, ErrorKind::Corrupt, "no SQLite database");

    let error = refused(&url(folder.path())).await;
    told(&error, ErrorKind::Unavailable, "can't be opened; hint:");
}

#[tokio::test]
async fn what_is_wrong_with_a_postgres_url_is_said_without_the_password() {
    let server = Postgres::shared().unwrap_or_else(|error| panic!("{error:#}"));
    let url = server.database().unwrap();

    let error = refused(&url.replace("/test", "/absent")).await;
    told(&error, ErrorKind::Other, "hint: check user, password, database and rights");

    let error = refused(&url.replace("user=kuboard", "user=nobody&password=s3cret")).await;
    told(&error, ErrorKind::Other, "role \"nobody\" does not exist");

    let error = refused("postgres://me:s3cret@127.0.0.1:1/kuboard").await;
    told(&error, ErrorKind::Unavailable, "the PostgreSQL database kuboard on 127.0.0.1");
    assert!(error.is_retryable());

    let error = refused("postgres:///x?host=/nowhere/at/all&password=s3cret").await;
    told(&error, ErrorKind::Unavailable, "cannot open the catalogue in");
}

#[tokio::test]
async fn a_catalogue_of_a_newer_program_is_left_alone() {
    let server = Postgres::shared().unwrap_or_else(|error| panic!("{error:#}"));
    let url = server.database().unwrap();
    Catalog::open(&url).await.unwrap().close().await;
    let database = url.trim_start_matches("postgres:///").split('?').next().unwrap();
    server.psql(database, "INSERT INTO catalog_migrations VALUES (99)").unwrap();
    told(&refused(&url).await, ErrorKind::Other, "has schema 99");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_and_ends() {
    let server = Postgres::start().unwrap_or_else(|error| panic!("{error:#}"));
    let settings = Settings { acquire_within: Duration::from_millis(500), ..Settings::default() };
    let catalog = Catalog::open_with(&server.database().unwrap(), &settings).await.unwrap();
    check(&catalog, "announce r a lease=5 => ok").await;
    server.crash().unwrap();
    check(
        &catalog,
        "blob r a => Unavailable, retryable
         announce r b => Unavailable, retryable
         tags r => Unavailable, retryable
         sweep now=9 => Unavailable, retryable",
    )
    .await;
    assert_eq!(catalog.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.resume().unwrap();
    catalog.ping().await.unwrap();
    check(&catalog, "blob r a => 10 bytes, lease 5").await;
}
