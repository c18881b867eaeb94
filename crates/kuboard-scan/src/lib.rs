//! Layers to packages, images to inventories, inventories to reports.
//!
//! A layer's bytes are pushed through [`index`] once; what is found depends on nothing else and is
//! shared by all images. Nothing here executes, unpacks to disk under a name from an archive, or
//! follows a link.

pub mod api;
pub mod artifact;
pub mod assemble;
pub mod clair_engine;
pub mod delivery;
pub mod engine;
pub mod index;
mod indexer;
pub mod indexers;
pub mod inspect;
pub mod inventories;
pub mod merge;
pub mod report;
pub mod sbom;
pub mod schedule;
pub mod source;

pub use indexer::{Candidate, Content, ContentExt, File, Found, Indexer, MAX_READ, Want};
