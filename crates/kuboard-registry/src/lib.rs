//! The OCI distribution protocol, both sides of it.
//!
//! [`client`] talks to upstream registries: authentication, redirects, mirrors, rate limits,
//! ranges. [`credentials`] says with what secrets. [`server`] reads requests and writes answers:
//! paths, errors, the token service.
//!
//! This crate never stores anything and never decides what is cached.

pub mod client;
pub mod credentials;
pub mod server;
