//! The store through its public doors, on real files and against a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails; helpers are not seen as tests"
)]

mod cache;
mod fsck;
mod ingest;
mod s3;
mod spool;
mod stores;

use kuboard_store::Spool;
use tempfile::TempDir;

/// A folder that goes away with the test, and a spool in it.
fn place() -> (TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path().join("ingest")).unwrap();
    (dir, spool)
}
