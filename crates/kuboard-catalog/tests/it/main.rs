//! The catalogue against SQLite and PostgreSQL: the same cases, twice.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;
mod opening;
mod races;
mod scans;
mod script;
mod tables;
