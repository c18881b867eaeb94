//! The registry that users talk to: content that is local, else from its upstream through one
//! shared download; and repositories of our own.
//!
//! A request goes one way: path (`kuboard_registry::server`) → caller → which registry is meant
//! (`kuboard_api::Rules`) → `hosted` or `proxied` → answer.
//!
//! This crate never talks to the Kubernetes API, never changes a byte of an upstream's content,
//! and never answers "not found" for anything but an upstream's own word.

mod admin;
mod answer;
mod front;
pub mod fsck;
mod hosted;
mod manifest_cache;
mod metrics;
mod observer;
mod proxied;
mod reader;
mod room;
mod service;

pub use admin::{Admin, CachedBlob, CachedImage, Stats, Touched};
pub use front::{Front, FrontConfig};
pub use observer::{ManifestObserver, ManifestSeen, Observers};
pub use reader::{ManifestContent, ReadError, Reader};
pub use room::{Config, Deps, Room, register_metrics};
