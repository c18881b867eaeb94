//! What the project's tests are made with: images built in memory or from Debian packages, an
//! upstream registry that misbehaves on command, and real servers started for one test.
//!
//! Everything here blocks and runs on threads, so that it serves plain tests and asynchronous ones
//! alike and needs nothing of the product but the values of `kuboard-oci`. A server started here
//! lives on loopback, keeps its files in a folder of its own, and ends when its value is dropped.
//! Nothing here is shipped.

mod apps;
pub mod archive;
pub mod certificate;
pub mod clair;
pub mod client;
pub mod cluster;
pub mod containerd;
pub mod debian;
pub mod disk;
pub mod distribution;
pub mod feeds;
pub mod http;
pub mod image;
pub mod kuboard;
pub mod nginx;
pub mod object_store;
pub mod pebble;
pub mod postgres;
pub mod process;
pub mod rootfs;
pub mod server;
pub mod token;
pub mod tool;
pub mod upstream;

pub use client::RegistryClient;
pub use image::Image;
pub use kuboard::Kuboard;
pub use upstream::{FakeUpstream, Fault, On};
