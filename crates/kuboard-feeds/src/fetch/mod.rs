//! Fetching: bytes of feeds onto disk, and the fingerprints by which the next time is cheap.
//!
//! ```text
//! update     one update: lock, ask, compile, swap, report
//!  ├ ask        what each feed has for us: documents that stand for themselves
//!  │  ├ changes    OSV and Red Hat: the whole, then only what their lists of changes name
//!  │  └ amazon     where Amazon's repositories are
//!  ├ compile    documents into the next generation
//!  └ state      what is remembered, mostly in the database itself
//! download   one document: conditions, resume, throttling
//! ```
//!
//! A fetch never looks into what it fetches. It asks conditionally, goes on where a connection broke,
//! waits as long as a throttling server says (within bounds), and leaves a file only when all of it
//! is there.

mod amazon;
mod ask;
mod changes;
mod compile;
mod download;
mod error;
mod feeds;
mod place;
mod state;
mod update;

pub use download::{Downloader, Fetched, Fingerprint};
pub use error::{FetchError, FetchErrorKind};
pub use feeds::{FEEDS, Feed, Form, feed};
pub use place::{Mirror, Place};
pub use state::FeedState;
pub use update::{FeedOutcome, UpdateReport, Updater, UpdaterConfig};
