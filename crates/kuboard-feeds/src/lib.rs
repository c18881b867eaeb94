//! Feeds of advisories: fetchers (bytes and a fingerprint), parsers (bytes to advisories), and the
//! compiled database that is mapped and searched.
//!
//! Fetching is not parsing: a fetcher never looks into the bytes, a parser never waits.

pub mod database;
pub mod fetch;
pub mod parse;
mod sink;

pub use sink::Sink;
