//! What the platform knows, apart from the bytes: repositories, blobs, manifests, tags, referrers,
//! pins and access keys; inventories, reports and findings; the job queue and the outbox of events;
//! in SQLite (one file) or PostgreSQL. One set of statements serves both; the
//! few places where SQL differs are in `dialect.rs` and `migrations/`.
//!
//! It never touches a blob's bytes, never reads a clock (times are arguments, in milliseconds since
//! 1970) and never parses a manifest.
//!
//! # Two kinds of repositories
//! *Hosted* ones are the only home of their content, so the catalogue guards it: a manifest is
//! taken only if all that it needs is there, and [`Catalog::sweep`] decides what may go. *Cached*
//! ones mirror an upstream: nothing is checked, everything may be forgotten and fetched again.
//!
//! # How content of a hosted repository comes and goes
//! 1. [`Catalog::put_blob`] announces it with a lease; **then** the bytes are published; then the
//!    push is acknowledged. A manifest's own bytes are announced and published the same way before
//!    [`Catalog::put_manifest`].
//! 2. A link is therefore a promise, not a proof: after a crash between the two steps it stands for
//!    bytes that never came. Whoever answers "it is here" asks the blob store as well.
//! 3. A `HEAD` answered with yes renews the lease ([`Catalog::renew_lease`]), since the client will
//!    not send the bytes again.
//! 4. [`Catalog::sweep`] unlinks blobs whose lease is over and that no manifest of their repository
//!    refers to, and removes bytes that no hosted repository links any more. `sweep.rs` says why
//!    that never meets an upload.
//!
//! A repository is known from its first blob, tag or manifest until a sweep finds it empty.

mod blobs;
mod cached;
mod config;
mod counts;
mod database;
mod decisions;
mod dialect;
mod error;
#[cfg(test)]
mod explain;
mod findings;
mod inventories;
mod jobs;
mod keys;
mod manifests;
mod migrate;
mod notifications;
#[cfg(test)]
mod orders;
mod outbox;
mod pins;
mod repositories;
mod rows;
mod sweep;
mod tags;
mod untagged;

pub use blobs::{BlobRow, HostedRow};
pub use config::Settings;
pub use counts::Counts;
pub use database::Catalog;
pub use decisions::{DecisionFilter, DecisionRow, NewDecision};
pub use dialect::Dialect;
pub use error::{Error, ErrorKind, Result};
pub use findings::{FindingRow, Published};
pub use inventories::{ImageName, InventoryRow, NamedImage, ReportChange, ReportRow};
pub use jobs::{AfterFailure, JobRow, JobState, LeasedJob, NewJob, QueueDepth};
pub use keys::KeyRow;
pub use manifests::{ManifestMeta, ManifestRow, PutOutcome, ReferrerRow};
pub use outbox::{DeliveryRow, NewEvent};
pub use pins::PinRow;
pub use repositories::Kind;
pub use sweep::SweepReport;
pub use tags::TagRow;
